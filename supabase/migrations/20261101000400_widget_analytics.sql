-- The ledger: what was reported, as it was reported. Rows are only ever added (R2); calls and bills are computed from it.

create table public.widget_analytics (
  id uuid not null default widget_internal.uuid_v7(),
  widget_id uuid not null references public.widgets (id),
  event_type text not null,
  -- "C": identifiers compare by bytes, the same on every machine.
  session_id text collate "C" not null,
  page_url text,
  user_agent text,
  "timestamp" timestamptz not null default now(),
  call_id text collate "C",
  seq integer,
  source text not null default 'browser',
  received_at timestamptz not null default widget_internal.receipt_time(),
  properties jsonb,
  -- The widget is part of the key, so that no widget's event can suppress another's (R1); the id stands first, as
  -- time-ordered ids then fill one edge of the index.
  constraint widget_analytics_pkey primary key (id, widget_id),
  constraint event_type_is_known check (
    event_type in ('widget_load', 'widget_open', 'call_start', 'call_heartbeat', 'call_end', 'call_error')
  ),
  constraint source_is_known check (source in ('browser', 'server', 'provider', 'operator', 'inferred')),
  constraint session_id_has_1_to_255_characters check (length(session_id) between 1 and 255),
  constraint call_id_has_1_to_255_characters check (length(call_id) between 1 and 255),
  constraint seq_starts_at_1 check (seq >= 1),
  constraint timestamp_is_finite check (isfinite("timestamp")),
  constraint properties_are_an_object check (jsonb_typeof(properties) = 'object')
);

comment on table public.widget_analytics is
  'The ledger of events, append-only (R2). A correction is a new event of a higher source (R5), never a change.';
comment on column public.widget_analytics.id is 'The sender''s event_id, or one made here: sent again, it is the same row (R1).';
comment on column public.widget_analytics.session_id is 'Groups the events of one widget load; the sender''s choice, best a UUIDv7.';
comment on column public.widget_analytics.page_url is 'The page that embeds the widget, without query string and fragment. On the session''s first event.';
comment on column public.widget_analytics.user_agent is 'The request''s User-Agent header.';
comment on column public.widget_analytics."timestamp" is 'When it happened: receipt less the age that the sender gave (R3).';
comment on column public.widget_analytics.call_id is 'Which call of the session; null when the sender has none (R4).';
comment on column public.widget_analytics.seq is 'The sender''s running number in its session, from 1; null when it has none (R9).';
comment on column public.widget_analytics.source is
  'Who says so: operator, provider, server, browser, or inferred by the cleanup; the earlier in this list outranks (R5).';
comment on column public.widget_analytics.received_at is 'When the database took it in.';
comment on column public.widget_analytics.properties is 'Small extras, such as an error code.';

create index widget_analytics_widget_id_timestamp_idx on public.widget_analytics (widget_id, "timestamp");
comment on index public.widget_analytics_widget_id_timestamp_idx is
  'Serves "what did this widget send, latest first" and the foreign key to widgets.';

create index widget_analytics_session_calls_idx on public.widget_analytics (widget_id, session_id)
  where event_type in ('call_start', 'call_heartbeat', 'call_end', 'call_error');
comment on index public.widget_analytics_session_calls_idx is
  'Serves widget_internal.session_calls(): the call events of one session. Stays at its right edge while session ids are time-ordered.';

alter table public.widget_analytics enable row level security;
revoke all on table public.widget_analytics from public, anon, authenticated, service_role;
grant select on table public.widget_analytics to authenticated, service_role;

create policy "owners see their widgets' events" on public.widget_analytics
  for select to authenticated
  using (widget_id = any (array(select widget_internal.owned_widget_ids())));
