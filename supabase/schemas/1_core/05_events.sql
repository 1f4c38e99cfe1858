-- The ledger: events as they were reported. Rows are only ever added; calls and bills follow from them.

create function widget_internal.event_types()
returns text[]
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
  return array['widget_load', 'widget_open', 'call_start', 'call_heartbeat', 'call_end', 'call_error'];
end
$$;

comment on function widget_internal.event_types() is
  'Types of events: the only list. Events of calls are those that begin with "call_".';


create function widget_internal.event_sources()
returns text[]
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
  return array['inferred', 'browser', 'server', 'provider', 'operator'];
end
$$;

comment on function widget_internal.event_sources() is
  'Sources of events, the least trusted first: a claim of a later one outranks those before it.';


-- Domains instead of check constraints: PostgreSQL reads the text of each check constraint anew for each statement, and
-- a domain's once a connection. The writer reads an event's fields into these types, so each rule stands here alone.
create domain widget_internal.event_type as text
  constraint event_type_is_known check (value = any (widget_internal.event_types()));
comment on domain widget_internal.event_type is 'One of widget_internal.event_types().';

create domain widget_internal.event_source as text
  constraint source_is_known check (value = any (widget_internal.event_sources()));
comment on domain widget_internal.event_source is 'One of widget_internal.event_sources().';

-- "C": identifiers compare by bytes, the same on every machine.
create domain widget_internal.session_id as text collate "C"
  constraint session_id_has_1_to_255_characters check (length(value) between 1 and 255);
comment on domain widget_internal.session_id is 'The sender''s name for one load of a widget.';

create domain widget_internal.call_id as text collate "C"
  constraint call_id_has_1_to_255_characters check (length(value) between 1 and 255);
comment on domain widget_internal.call_id is 'The sender''s name for a call of its session.';

create domain widget_internal.event_seq as integer
  constraint seq_starts_at_1 check (value >= 1);
comment on domain widget_internal.event_seq is 'The sender''s running number in its session.';

create domain widget_internal.event_timestamp as timestamptz
  constraint timestamp_is_finite check (isfinite(value));
comment on domain widget_internal.event_timestamp is 'A moment at which an event happened.';

create domain widget_internal.event_properties as jsonb
  constraint properties_are_an_object check (jsonb_typeof(value) = 'object')
  constraint properties_have_at_most_4096_bytes check (octet_length(value::text) <= 4096);
comment on domain widget_internal.event_properties is 'Small extras of an event.';


create table public.widget_analytics (
  id uuid not null default widget_internal.uuid_v7(),
  widget_id uuid not null,
  event_type widget_internal.event_type not null,
  session_id widget_internal.session_id not null,
  page_url text,
  user_agent text,
  "timestamp" widget_internal.event_timestamp not null default now(),
  call_id widget_internal.call_id,
  seq widget_internal.event_seq,
  source widget_internal.event_source not null default 'browser',
  received_at timestamptz not null default widget_internal.receipt_time(),
  properties widget_internal.event_properties,
  -- The widget is part of the key, so that no widget's event can suppress another's; the id stands first, as
  -- time-ordered ids then fill one edge of the index.
  constraint widget_analytics_pkey primary key (id, widget_id),
  constraint events_belong_to_a_widget foreign key (widget_id) references public.widgets (id)
);

comment on table public.widget_analytics is
  'The ledger of events, append-only. A correction is a new event of a higher source, never a change.';
comment on column public.widget_analytics.id is 'The sender''s event_id, or one made here: sent again, it is the same row.';
comment on column public.widget_analytics.session_id is 'Groups the events of one widget load; the sender''s choice, best a UUIDv7.';
comment on column public.widget_analytics.page_url is
  'The page that embeds the widget, without query string and fragment. On the session''s widget_load and first event.';
comment on column public.widget_analytics.user_agent is
  'The request''s User-Agent header. On the session''s widget_load and first event (seq 1), and where there is no seq.';
comment on column public.widget_analytics."timestamp" is 'When it happened: the receipt less the age that the sender gave.';
comment on column public.widget_analytics.call_id is 'Which call of the session; null when the sender has none.';
comment on column public.widget_analytics.seq is 'The sender''s running number in its session, from 1; null when it has none.';
comment on column public.widget_analytics.source is
  'Who reported it: operator, provider, server, browser, or inferred by the cleanup; each outranks those after it.';
comment on column public.widget_analytics.received_at is 'When the database received it.';
comment on column public.widget_analytics.properties is 'Small extras, such as an error code.';

create index widget_analytics_widget_id_timestamp_idx on public.widget_analytics (widget_id, "timestamp");
comment on index public.widget_analytics_widget_id_timestamp_idx is
  'Serves "what did this widget send, latest first", the story of one call, and the foreign key to widgets.';

create index widget_analytics_unnamed_calls_idx on public.widget_analytics (widget_id, session_id, "timestamp")
  where call_id is null and event_type like 'call\_%';
comment on index public.widget_analytics_unnamed_calls_idx is
  'Serves matched_claims(): the call events of one session that name no call, around a moment. Events that name theirs '
  'are not in it.';

alter table public.widget_analytics enable row level security;

create policy "owners see their widgets' events" on public.widget_analytics
  for select to authenticated
  using (widget_id = any (array(select widget_internal.owned_widget_ids())));


create function widget_internal.keep_ledger()
returns trigger
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  if not pg_has_role(current_user, (select c.relowner from pg_class c where c.oid = tg_relid), 'member') then
    raise exception 'events are never changed or deleted' using errcode = 'insufficient_privilege',
      hint = 'A correction is a new event: see correct_widget_call().';
  end if;
  return null;
end
$$;

comment on function widget_internal.keep_ledger() is
  'Raises 42501 where anyone but the ledger''s owner updates or deletes events, whatever grants a restore brought back.';

create trigger a_ledger_is_kept
  before update or delete or truncate on public.widget_analytics
  for each statement execute function widget_internal.keep_ledger();
