-- Made by scripts/baseline from schemas/1_core/05_events.sql, schemas/1_core/06_calls.sql, schemas/1_core/07_joining.sql, schemas/1_core/08_recomputing.sql, schemas/1_core/09_refusals.sql, schemas/1_core/10_quotas.sql, schemas/1_core/11_door.sql, schemas/1_core/12_sent_events.sql, schemas/1_core/13_writer.sql, schemas/1_core/14_track_events.sql, schemas/1_core/15_cleanup.sql, schemas/1_core/16_erasures.sql, schemas/1_core/17_retention.sql, schemas/1_core/18_hooks.sql, schemas/1_core/19_comparing.sql, schemas/1_core/20_migrations.sql, schemas/1_core/21_jobs.sql, schemas/1_core/90_rights.sql.

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


-- A call is the join of its events. Its state is three claims (start, heartbeat, end), each of which only moves one way;
-- what a person wants to know of a call follows from the state and the settings, in call_facts() and nowhere else.

create function widget_internal.claim(
  event_type text, source text, received_at timestamptz, "timestamp" timestamptz
)
returns bigint[]
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
  -- Times are microseconds since 1970. Greater wins: the more trusted source; among operators the later decision;
  -- call_end before call_error; the earliest start (hence the minus) and the latest end.
  return array[
    array_position(widget_internal.event_sources(), claim.source),
    case when claim.source = 'operator' then (extract(epoch from claim.received_at) * 1000000)::bigint else 0 end,
    case when claim.event_type = 'call_error' then 0 else 1 end,
    (extract(epoch from claim."timestamp") * case when claim.event_type = 'call_start' then -1000000 else 1000000 end)::bigint
  ];
end
$$;

comment on function widget_internal.claim(text, text, timestamptz, timestamptz) is
  'What a start or an end claims, as one sortable value: [rank of the source, an operator''s moment of decision, '
  'end before error, time]. Of several claims the greatest holds.';


create table widget_internal.call_states (
  widget_id uuid not null,
  session_id text collate "C" not null,
  call_id text collate "C" not null,
  -- The half of events that name the call: joined, never overwritten.
  start_claim bigint[],
  heartbeat_at timestamptz,
  end_claim bigint[],
  -- The half of events that were matched to it: overwritten whenever its session is matched afresh.
  matched_start_claim bigint[],
  matched_heartbeat_at timestamptz,
  matched_end_claim bigint[],
  next_start_at timestamptz,
  -- Where in the ledger its events lie.
  first_event_at timestamptz not null,
  last_event_at timestamptz not null,
  archived_at timestamptz,
  -- What call_facts() makes of the above.
  started_at timestamptz,
  ended_at timestamptz,
  outcome text not null default 'open',
  evidence text,
  constraint call_states_pkey primary key (widget_id, session_id, call_id)
) with (fillfactor = 80);

comment on table widget_internal.call_states is
  'One row for each call that any event belongs to. public.widget_calls shows those whose start is known.';
comment on column widget_internal.call_states.start_claim is 'The greatest claim() of its call_start events.';
comment on column widget_internal.call_states.heartbeat_at is 'Its latest heartbeat.';
comment on column widget_internal.call_states.end_claim is 'The greatest claim() of its call_end and call_error events.';
comment on column widget_internal.call_states.next_start_at is
  'When the session''s next call without a name of its own started: an assumed end is not later. Part of the matched half.';
comment on column widget_internal.call_states.first_event_at is 'The timestamp of the earliest of its events.';
comment on column widget_internal.call_states.last_event_at is 'The timestamp of the latest of its events.';
comment on column widget_internal.call_states.archived_at is
  'When the archive took its events; null where they are in the ledger. From then on browser events change it no more, '
  'a provider''s and an operator''s do.';

-- Room on the page lets a heartbeat, which changes no indexed column, touch no index.
create index call_states_open_idx on widget_internal.call_states (started_at) where ended_at is null and started_at is not null;
comment on index widget_internal.call_states_open_idx is
  'Serves complete_stale_sessions(): its work follows the open calls alone.';

create index call_states_widget_id_started_at_idx on widget_internal.call_states (widget_id, started_at)
  include (ended_at, outcome, evidence) where started_at is not null;
comment on index widget_internal.call_states_widget_id_started_at_idx is 'Serves one widget''s calls of a period, and its bill.';

create index call_states_started_at_idx on widget_internal.call_states (started_at)
  include (widget_id, ended_at, outcome, evidence) where started_at is not null;
comment on index widget_internal.call_states_started_at_idx is 'Serves all widgets'' calls of a period, and their bill.';

create index call_states_without_start_idx on widget_internal.call_states (last_event_at) where started_at is null;
comment on index widget_internal.call_states_without_start_idx is 'Serves prune(): states whose start never came.';

alter table widget_internal.call_states enable row level security;

create policy "owners see their widgets' calls" on widget_internal.call_states
  for select to authenticated
  using (widget_id = any (array(select widget_internal.owned_widget_ids())));


create function widget_internal.call_facts(
  start_claim bigint[], heartbeat_at timestamptz, end_claim bigint[], next_start_at timestamptz,
  out started_at timestamptz, out ended_at timestamptz, out outcome text, out evidence text
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_source constant text := (widget_internal.event_sources())[call_facts.end_claim[1]];
  -- In whole seconds and the rest: the microseconds of some centuries are more than a float8 holds.
  v_said_to_end_at constant timestamptz := to_timestamp(call_facts.end_claim[4] / 1000000)
    + call_facts.end_claim[4] % 1000000 * interval '1 microsecond';
  v_settings widget_internal.settings;
begin
  call_facts.started_at := to_timestamp(-call_facts.start_claim[4] / 1000000)
    + -call_facts.start_claim[4] % 1000000 * interval '1 microsecond';
  if call_facts.start_claim is null or call_facts.end_claim is null then
    call_facts.outcome := 'open';
    return;
  end if;
  select * into v_settings from widget_internal.settings;

  -- An inferred end says only that the call is over; a browser's end that heartbeats outlive was none.
  if v_source = 'inferred' or v_source = 'browser' and call_facts.heartbeat_at > v_said_to_end_at + interval '1 minute' then
    call_facts.outcome := 'completed';
    if call_facts.heartbeat_at is not null then
      call_facts.evidence := 'heartbeat';
      call_facts.ended_at := call_facts.heartbeat_at;
    else
      call_facts.evidence := 'assumed';
      call_facts.ended_at :=
        least(call_facts.started_at + v_settings.assumed_call_duration, call_facts.next_start_at);
    end if;
  else
    call_facts.outcome := case call_facts.end_claim[3] when 1 then 'completed' else 'failed' end;
    call_facts.evidence := case when v_source in ('browser', 'server') then 'observed' else v_source end;
    call_facts.ended_at := v_said_to_end_at;
  end if;
  call_facts.ended_at := least(
    greatest(call_facts.ended_at, call_facts.started_at), call_facts.started_at + v_settings.max_call_duration
  );
end
$$;

comment on function widget_internal.call_facts(bigint[], timestamptz, bigint[], timestamptz) is
  'When a call started and ended, its outcome and what its end rests on: the one definition, for kept calls and for '
  'calls as of a moment. Takes the claims of both halves joined.';


create function widget_internal.settle_call()
returns trigger
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  select f.started_at, f.ended_at, f.outcome, f.evidence
  into new.started_at, new.ended_at, new.outcome, new.evidence
  from widget_internal.call_facts(
    greatest(new.start_claim, new.matched_start_claim), greatest(new.heartbeat_at, new.matched_heartbeat_at),
    greatest(new.end_claim, new.matched_end_claim), new.next_start_at
  ) f;
  return new;
end
$$;

comment on function widget_internal.settle_call() is 'Brings a call''s facts in line with its claims.';

-- Not for a heartbeat of an open call, nor for a state whose start is not known: their facts do not change.
create trigger settle_call_on_insert
  before insert on widget_internal.call_states
  for each row when (new.start_claim is not null or new.matched_start_claim is not null)
  execute function widget_internal.settle_call();

create trigger settle_call_on_update
  before update on widget_internal.call_states
  for each row when (
    (new.start_claim is not null or new.matched_start_claim is not null)
    and (
      new.start_claim is distinct from old.start_claim or new.matched_start_claim is distinct from old.matched_start_claim
      or new.end_claim is not null or new.matched_end_claim is not null
      or old.ended_at is not null
    )
  )
  execute function widget_internal.settle_call();


create view public.widget_calls with (security_invoker = true) as
  select
    c.widget_id, c.session_id, c.call_id, c.started_at, c.ended_at, c.outcome, c.evidence,
    extract(epoch from c.ended_at - c.started_at) as duration_seconds
  from widget_internal.call_states c
  where c.started_at is not null;

comment on view public.widget_calls is
  'One row for each call whose start is known. Always what the ledger gives: the database keeps it up to date itself.';
comment on column public.widget_calls.call_id is 'The sender''s name for the call, else the id of the call_start that opened it.';
comment on column public.widget_calls.started_at is 'The earliest call_start of the most trusted source that sent one.';
comment on column public.widget_calls.ended_at is 'Never before started_at, never more than max_call_duration after it; null while open.';
comment on column public.widget_calls.duration_seconds is 'ended_at less started_at, in seconds; null while open.';
comment on column public.widget_calls.outcome is 'open, completed, or failed: it ended by a call_error.';
comment on column public.widget_calls.evidence is
  'What the end rests on: observed (browser or server), provider, operator, heartbeat (the last sign of life) or '
  'assumed (no sign after the start); null while open.';

-- Otherwise PostgreSQL would write through the view: a call would be gone, or another one, while its events stay.
create trigger calls_follow_from_events instead of insert or update or delete on public.widget_calls
  for each row execute function widget_internal.refuse_change(
    'a call is what its events say', 'Change the events, or call correct_widget_call().'
  );


create function widget_internal.settle_calls_on_change()
returns trigger
language plpgsql volatile
-- definer because a person who may change a setting need have no right on call_states
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  -- Writers that still settle calls by the old setting commit first; new ones wait.
  perform pg_advisory_xact_lock(widget_internal.receipts_key());
  update widget_internal.call_states c set end_claim = c.end_claim
  where c.evidence = 'assumed'
    or c.ended_at - c.started_at >= least(old.max_call_duration, new.max_call_duration);
  return null;
end
$$;

comment on function widget_internal.settle_calls_on_change() is
  'After max_call_duration or assumed_call_duration changed: settles the calls that it concerns.';

create trigger settle_calls_on_change
  after update of max_call_duration, assumed_call_duration on widget_internal.settings
  for each row execute function widget_internal.settle_calls_on_change();


-- However an event comes in (RPC, SQL editor, COPY), the trigger here joins it to its call in the same transaction.

create function widget_internal.hold_sessions(widget_ids uuid[], session_ids text[])
returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_key bigint;
begin
  -- Others cannot see what the transaction that held the session before this one has just added.
  if current_setting('transaction_isolation') not in ('read committed', 'read uncommitted') then
    raise exception 'a % transaction cannot add events that name no call, nor change or delete any',
      current_setting('transaction_isolation')
      using errcode = 'feature_not_supported', hint = 'Use read committed, or name the call.';
  end if;
  -- A thousand locks stand for all sessions, as the server's lock table is small; always taken in the same order, so
  -- that two transactions that share two of them never wait for each other.
  for v_key in
    select distinct hashtextextended(s.widget_id || s.session_id, 0) & 1023
    from unnest(hold_sessions.widget_ids, hold_sessions.session_ids) s (widget_id, session_id)
    order by 1
  loop
    perform pg_advisory_xact_lock(hashtext('widget_internal: sessions'), v_key::integer);
  end loop;
end
$$;

comment on function widget_internal.hold_sessions(uuid[], text[]) is
  'Holds these sessions until the transaction ends. Who adds events that name no call needs it, and who changes or deletes '
  'events: both read what the session has so far.';


create function widget_internal.matched_claims(
  widget_ids uuid[], session_ids text[], as_of timestamptz default 'infinity',
  from_ats timestamptz[] default null, to_ats timestamptz[] default null
)
returns table (
  widget_id uuid, session_id text, call_id text, start_claim bigint[], heartbeat_at timestamptz, end_claim bigint[],
  next_start_at timestamptz, first_event_at timestamptz, last_event_at timestamptz
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
-- The plan is always the same; a new one for each array would take longer than its run.
set plan_cache_mode = force_generic_plan
as $$
begin
  return query
  -- On equal times the sender's running number decides; without one the start comes first, as no end precedes its start.
  with numbered as (
    select e.*, w.to_at as window_end, count(*) filter (where e.event_type = 'call_start') over (
      partition by e.widget_id, e.session_id
      order by e."timestamp", coalesce(e.seq, 0), e.event_type <> 'call_start', e.id
    ) as call_number
    from unnest(
      matched_claims.widget_ids, matched_claims.session_ids, matched_claims.from_ats, matched_claims.to_ats
    ) s (widget_id, session_id, from_at, to_at)
    -- From the call before to the call after: a session of many calls must not be read as a whole for each event. (`like`
    -- as the partial index says it.)
    cross join lateral (
      select
        coalesce((
          select a."timestamp" from public.widget_analytics a
          where a.widget_id = s.widget_id and a.session_id = s.session_id and a.call_id is null
            and a.event_type like 'call\_%' and a.event_type = 'call_start' and a."timestamp" < s.from_at
          order by a."timestamp" desc limit 1
        ), '-infinity') as from_at,
        coalesce((
          select a."timestamp" from public.widget_analytics a
          where a.widget_id = s.widget_id and a.session_id = s.session_id and a.call_id is null
            and a.event_type like 'call\_%' and a.event_type = 'call_start' and a."timestamp" > s.to_at
          order by a."timestamp" limit 1
        ), 'infinity') as to_at
      offset 0  -- once for the session: inlined, it would be asked for each of its events
    ) w
    cross join lateral (
      select a.* from public.widget_analytics a
      where a.widget_id = s.widget_id and a.session_id = s.session_id
        and a.call_id is null and a.event_type like 'call\_%' and a.received_at <= matched_claims.as_of
        -- As pairs, as only the sessions' index has them: by the widget's times each session would read all of the widget.
        and (a.session_id, a."timestamp") between (s.session_id, w.from_at) and (s.session_id, w.to_at)
      offset 0  -- one session after the other, by its index
    ) e
  ),
  matched as (
    select
      n.widget_id, n.session_id, n.call_number,
      max(n.id::text) filter (where n.event_type = 'call_start') as call_id,
      max(widget_internal.claim(n.event_type, n.source, n.received_at, n."timestamp"))
        filter (where n.event_type = 'call_start') as start_claim,
      max(n."timestamp") filter (where n.event_type = 'call_heartbeat') as heartbeat_at,
      max(widget_internal.claim(n.event_type, n.source, n.received_at, n."timestamp"))
        filter (where n.event_type in ('call_end', 'call_error')) as end_claim,
      min(n."timestamp") as first_event_at, max(n."timestamp") as last_event_at, n.window_end,
      lead(min(n."timestamp")) over (partition by n.widget_id, n.session_id order by n.call_number) as next_start_at
    from numbered n
    where n.call_number > 0
    group by n.widget_id, n.session_id, n.call_number, n.window_end
  )
  select
    m.widget_id, m.session_id::text, m.call_id, m.start_claim, m.heartbeat_at::timestamptz, m.end_claim,
    m.next_start_at::timestamptz, m.first_event_at::timestamptz, m.last_event_at::timestamptz
  from matched m
  -- The call after is there for next_start_at alone: its own events are beyond the window.
  where m.first_event_at < m.window_end;
end
$$;

comment on function widget_internal.matched_claims(uuid[], text[], timestamptz, timestamptz[], timestamptz[]) is
  'What the call events that name no call claim, as received by a moment: in time order a call_start opens a call, whose '
  'call_id is that event''s id, and what follows up to the next belongs to it. The arrays are parallel and name no '
  'session twice; from_ats and to_ats say where events were added: the calls around these, else all.';


create function widget_internal.join_events()
returns trigger
language plpgsql volatile
-- definer because who may add an event need have no right on call_states
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
  v_browser constant integer := array_position(widget_internal.event_sources(), 'browser');
  v_named boolean;
  v_unnamed boolean;
  v_trusted_unnamed boolean;
  v_widget_ids uuid[];
  v_session_ids text[];
  v_from_ats timestamptz[];
  v_to_ats timestamptz[];
begin
  select bool_or(call_id is not null), bool_or(call_id is null), bool_or(call_id is null and source not in ('browser', 'inferred'))
  into v_named, v_unnamed, v_trusted_unnamed
  from new_events where event_type like 'call\_%';
  if v_named is null then
    return null;
  elsif v_trusted_unnamed then
    raise exception 'an event of source server, provider or operator must name its call'
      using errcode = 'check_violation', hint = 'Give its call_id.';
  elsif v_unnamed then
    select array_agg(s.widget_id), array_agg(s.session_id::text), array_agg(s.from_at), array_agg(s.to_at)
    into v_widget_ids, v_session_ids, v_from_ats, v_to_ats
    from (
      select widget_id, session_id, min("timestamp") as from_at, max("timestamp") as to_at
      from new_events where call_id is null and event_type like 'call\_%'
      group by widget_id, session_id
    ) s;
    perform widget_internal.hold_sessions(v_widget_ids, v_session_ids);
  end if;

  insert into widget_internal.call_states as c (
    widget_id, session_id, call_id, start_claim, heartbeat_at, end_claim,
    matched_start_claim, matched_heartbeat_at, matched_end_claim, next_start_at, first_event_at, last_event_at
  )
  select
    j.widget_id, j.session_id, j.call_id, max(j.start_claim), max(j.heartbeat_at), max(j.end_claim),
    max(j.matched_start_claim), max(j.matched_heartbeat_at), max(j.matched_end_claim), max(j.next_start_at),
    min(j.first_event_at), max(j.last_event_at)
  from (
    select
      e.widget_id, e.session_id::text, e.call_id::text,
      case when e.event_type = 'call_start'
        then widget_internal.claim(e.event_type, e.source, e.received_at, e."timestamp") end as start_claim,
      case when e.event_type = 'call_heartbeat' then e."timestamp" end as heartbeat_at,
      case when e.event_type in ('call_end', 'call_error')
        then widget_internal.claim(e.event_type, e.source, e.received_at, e."timestamp") end as end_claim,
      null::bigint[] as matched_start_claim, null::timestamptz as matched_heartbeat_at,
      null::bigint[] as matched_end_claim, null::timestamptz as next_start_at,
      e."timestamp" as first_event_at, e."timestamp" as last_event_at
    from new_events e
    where e.call_id is not null and e.event_type like 'call\_%'
    union all
    select
      m.widget_id, m.session_id, m.call_id, null, null, null,
      m.start_claim, m.heartbeat_at, m.end_claim, m.next_start_at, m.first_event_at, m.last_event_at
    from widget_internal.matched_claims(v_widget_ids, v_session_ids, 'infinity', v_from_ats, v_to_ats) m
    where v_unnamed
  ) j
  group by j.widget_id, j.session_id, j.call_id
  -- In one order everywhere, so that two batches that share two calls never wait for each other.
  order by j.widget_id, j.session_id, j.call_id
  on conflict (widget_id, session_id, call_id) do update set
    -- Once the archive took a call's events, only those join that outrank a browser's.
    start_claim = case when c.archived_at is not null and excluded.start_claim[1] <= v_browser
      then c.start_claim else greatest(c.start_claim, excluded.start_claim) end,
    heartbeat_at = case when c.archived_at is null
      then greatest(c.heartbeat_at, excluded.heartbeat_at) else c.heartbeat_at end,
    end_claim = case when c.archived_at is not null and excluded.end_claim[1] <= v_browser
      then c.end_claim else greatest(c.end_claim, excluded.end_claim) end,
    -- Where the call was matched, afresh; where not, as it was.
    matched_start_claim = case when excluded.matched_start_claim is null or c.archived_at is not null
      then c.matched_start_claim else excluded.matched_start_claim end,
    matched_heartbeat_at = case when excluded.matched_start_claim is null or c.archived_at is not null
      then c.matched_heartbeat_at else excluded.matched_heartbeat_at end,
    matched_end_claim = case when excluded.matched_start_claim is null or c.archived_at is not null
      then c.matched_end_claim else excluded.matched_end_claim end,
    next_start_at = case when excluded.matched_start_claim is null or c.archived_at is not null
      then c.next_start_at else excluded.next_start_at end,
    first_event_at = least(c.first_event_at, excluded.first_event_at),
    last_event_at = greatest(c.last_event_at, excluded.last_event_at)
  where c.archived_at is null or (greatest(excluded.start_claim, excluded.end_claim))[1] > v_browser;
  return null;
end
$$;

comment on function widget_internal.join_events() is
  'After events were added: joins those that name their call to its state, and matches the sessions of the others afresh.';

create trigger join_events_on_insert
  after insert on public.widget_analytics
  referencing new table as new_events
  for each statement execute function widget_internal.join_events();


-- Calls computed afresh from the ledger: for a bill as of a past moment, and after a change by hand.

create function widget_internal.states_of_widget(
  widget_id uuid, from_at timestamptz default '-infinity', to_at timestamptz default 'infinity',
  as_of timestamptz default 'infinity'
)
returns setof widget_internal.call_states
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_widget_ids uuid[];
  v_session_ids text[];
begin
  -- A session without call ids is matched whole, whichever part of it lies in the window.
  select array_agg(states_of_widget.widget_id), array_agg(s.session_id::text) into v_widget_ids, v_session_ids
  from (
    select distinct e.session_id
    from public.widget_analytics e
    where e.widget_id = states_of_widget.widget_id
      and e."timestamp" between states_of_widget.from_at and states_of_widget.to_at
      and e.call_id is null and e.event_type like 'call\_%' and e.received_at <= states_of_widget.as_of
  ) s;

  return query
  select
    states_of_widget.widget_id, session_id, call_id, n.start_claim, n.heartbeat_at, n.end_claim,
    m.start_claim, m.heartbeat_at, m.end_claim, m.next_start_at,
    least(n.first_event_at, m.first_event_at), greatest(n.last_event_at, m.last_event_at), null::timestamptz,
    f.started_at, f.ended_at, f.outcome, f.evidence
  from (
    select
      e.session_id::text, e.call_id::text,
      max(widget_internal.claim(e.event_type, e.source, e.received_at, e."timestamp"))
        filter (where e.event_type = 'call_start') as start_claim,
      max(e."timestamp"::timestamptz) filter (where e.event_type = 'call_heartbeat') as heartbeat_at,
      max(widget_internal.claim(e.event_type, e.source, e.received_at, e."timestamp"))
        filter (where e.event_type in ('call_end', 'call_error')) as end_claim,
      min(e."timestamp"::timestamptz) as first_event_at, max(e."timestamp"::timestamptz) as last_event_at
    from public.widget_analytics e
    where e.widget_id = states_of_widget.widget_id
      and e."timestamp" between states_of_widget.from_at and states_of_widget.to_at
      and e.call_id is not null and e.event_type like 'call\_%' and e.received_at <= states_of_widget.as_of
    group by e.session_id, e.call_id
  ) n
  full join widget_internal.matched_claims(v_widget_ids, v_session_ids, states_of_widget.as_of) m
    using (session_id, call_id)
  cross join lateral widget_internal.call_facts(
    greatest(n.start_claim, m.start_claim), greatest(n.heartbeat_at, m.heartbeat_at),
    greatest(n.end_claim, m.end_claim), m.next_start_at
  ) f;
end
$$;

comment on function widget_internal.states_of_widget(uuid, timestamptz, timestamptz, timestamptz) is
  'The states of a widget''s calls as the events received by as_of give them. Complete for calls whose events all lie '
  'between from_at and to_at; of the others what lies there.';


create function widget_internal.states_as_of(
  widget_id uuid, period_start timestamptz, period_end timestamptz, as_of timestamptz
)
returns setof widget_internal.call_states
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_gone record;
begin
  select min(c.archived_at) as first_archived_at, count(*) as calls into v_gone
  from widget_internal.call_states c
  where c.archived_at is not null and c.started_at >= states_as_of.period_start and c.started_at < states_as_of.period_end
    and (states_as_of.widget_id is null or c.widget_id = states_as_of.widget_id);
  if v_gone.calls > 0 then
    raise exception 'the events of % calls of this period are in the archive since %', v_gone.calls, v_gone.first_archived_at
      using errcode = 'object_not_in_prerequisite_state',
        hint = 'A bill as of a past moment needs the events: ask the archive, or leave as_of out.';
  end if;

  return query
  select s.*
  from (
    select c.widget_id, min(c.first_event_at) as from_at, max(c.last_event_at) as to_at
    from widget_internal.call_states c
    where c.first_event_at < states_as_of.period_end and c.last_event_at >= states_as_of.period_start
      and (states_as_of.widget_id is null or c.widget_id = states_as_of.widget_id)
    group by c.widget_id
  ) w
  cross join lateral widget_internal.states_of_widget(w.widget_id, w.from_at, w.to_at, states_as_of.as_of) s
  where s.started_at >= states_as_of.period_start and s.started_at < states_as_of.period_end;
end
$$;

comment on function widget_internal.states_as_of(uuid, timestamptz, timestamptz, timestamptz) is
  'The calls of a widget (null: of all) that started in a period, as the events received by as_of give them. Raises 55000 '
  'where events of the period are in the archive.';


create function widget_internal.rejoin_sessions(
  widget_ids uuid[], session_ids text[], from_ats timestamptz[] default null, to_ats timestamptz[] default null
)
returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_window record;
begin
  if rejoin_sessions.widget_ids is null then
    return;
  end if;
  -- Who matches one of them meanwhile would do so with events that are about to be gone.
  perform widget_internal.hold_sessions(rejoin_sessions.widget_ids, rejoin_sessions.session_ids);
  for v_window in
    select s.widget_id, array_agg(s.session_id) as session_ids,
      min(coalesce(s.from_at, '-infinity')) as from_at, max(coalesce(s.to_at, 'infinity')) as to_at
    from unnest(
      rejoin_sessions.widget_ids, rejoin_sessions.session_ids, rejoin_sessions.from_ats, rejoin_sessions.to_ats
    ) s (widget_id, session_id, from_at, to_at)
    group by s.widget_id
    order by s.widget_id
  loop
    with held as materialized (
      -- In the order of all writers of states, so that none waits in a circle.
      select c.session_id, c.call_id
      from widget_internal.call_states c
      where c.widget_id = v_window.widget_id and c.session_id = any (v_window.session_ids) and c.archived_at is null
      order by c.session_id, c.call_id
      for update
    ),
    gone as (
      delete from widget_internal.call_states c
      using held h
      where c.widget_id = v_window.widget_id and c.session_id = h.session_id and c.call_id = h.call_id
      returning c.first_event_at, c.last_event_at
    )
    select least(v_window.from_at, min(g.first_event_at)), greatest(v_window.to_at, max(g.last_event_at))
    into v_window.from_at, v_window.to_at
    from gone g;

    insert into widget_internal.call_states
    select s.*
    from widget_internal.states_of_widget(v_window.widget_id, v_window.from_at, v_window.to_at) s
    where s.session_id in (select unnest(v_window.session_ids))
    order by s.session_id, s.call_id
    on conflict do nothing;
  end loop;
end
$$;

comment on function widget_internal.rejoin_sessions(uuid[], text[], timestamptz[], timestamptz[]) is
  'Computes the calls of these sessions anew, less those whose events the archive took. The arrays are parallel; from_ats and '
  'to_ats cover what the ledger changed of each, else all of it.';


create function widget_internal.rejoin_deleted_events()
returns trigger
language plpgsql volatile
-- definer because who may change the ledger need have no right on call_states
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform widget_internal.rejoin_sessions(
    array_agg(s.widget_id), array_agg(s.session_id), array_agg(s.from_at), array_agg(s.to_at)
  )
  from (
    select o.widget_id, o.session_id::text as session_id, min(o."timestamp") as from_at, max(o."timestamp") as to_at
    from old_events o
    -- What the archive takes away was of calls that stay as they are: nothing is read for it.
    where o.event_type like 'call\_%' and exists (
      select from widget_internal.call_states c
      where c.widget_id = o.widget_id and c.session_id = o.session_id and c.archived_at is null
        and case when o.call_id is null then c.matched_start_claim is not null else c.call_id = o.call_id end
    )
    group by o.widget_id, o.session_id
  ) s;
  return null;
end
$$;

comment on function widget_internal.rejoin_deleted_events() is
  'After the ledger''s owner deleted events: the calls of their sessions follow, if the archive did not take them.';

create trigger rejoin_events_on_delete
  after delete on public.widget_analytics
  referencing old table as old_events
  for each statement execute function widget_internal.rejoin_deleted_events();


create function widget_internal.rejoin_changed_events()
returns trigger
language plpgsql volatile
-- definer because who may change the ledger need have no right on call_states
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_erasable constant text[] := array['page_url', 'user_agent', 'properties'];
begin
  -- A row may move from one session to another: both are computed anew. An erasure changes nothing that calls rest on.
  perform widget_internal.rejoin_sessions(
    array_agg(s.widget_id), array_agg(s.session_id), array_agg(s.from_at), array_agg(s.to_at)
  )
  from (
    select widget_id, session_id::text as session_id, min("timestamp") as from_at, max("timestamp") as to_at
    from (
      select e.widget_id, e.session_id, e."timestamp", to_jsonb(e) - v_erasable as facts, true as is_old from old_events e
    ) o
    full join (
      select e.widget_id, e.session_id, e."timestamp", to_jsonb(e) - v_erasable as facts, true as is_new from new_events e
    ) n using (widget_id, session_id, "timestamp", facts)
    where is_old is null or is_new is null
    group by widget_id, session_id
  ) s;
  return null;
end
$$;

comment on function widget_internal.rejoin_changed_events() is
  'After the ledger''s owner changed events by hand: the calls of their sessions follow.';

create trigger rejoin_events_on_update
  after update on public.widget_analytics
  referencing old table as old_events new table as new_events
  for each statement execute function widget_internal.rejoin_changed_events();


create function widget_internal.forget_calls()
returns trigger
language plpgsql volatile
-- definer because who may truncate the ledger need have no right on call_states
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  delete from widget_internal.call_states c where c.archived_at is null;
  return null;
end
$$;

comment on function widget_internal.forget_calls() is
  'After the ledger was truncated: there are no calls but those whose events the archive took.';

create trigger forget_calls_on_truncate
  after truncate on public.widget_analytics
  for each statement execute function widget_internal.forget_calls();


-- "Why is my widget not tracking?" must be one query: what the door refuses is counted, though nothing of it is stored.

create type widget_internal.refusal as (widget_id uuid, reason text, detail text);

comment on type widget_internal.refusal is
  'One refused event. detail: the page''s host, the field that was wrong, or the unknown widget''s id.';


create table widget_internal.refusal_counts (
  hour timestamptz not null,
  -- The nil UUID for a widget that does not exist: a key holds no nulls.
  widget_id uuid not null default '00000000-0000-0000-0000-000000000000',
  reason text not null,
  detail text not null,
  -- Each database session counts in a row of its own, so that a flood does not queue for one row.
  shard smallint not null,
  refusals bigint not null,
  constraint refusal_counts_are_one_row_a_shard primary key (hour, widget_id, reason, detail, shard),
  constraint refusal_reason_is_known check (
    reason in ('unknown_widget', 'widget_inactive', 'domain_not_allowed', 'invalid_input', 'over_quota')
  ),
  constraint refusals_are_positive check (refusals > 0)
);

comment on table widget_internal.refusal_counts is 'Refused events, counted; read them through the view widget_refusals.';

create index refusal_counts_widget_id_idx on widget_internal.refusal_counts (widget_id, hour);
comment on index widget_internal.refusal_counts_widget_id_idx is 'Serves "why is this widget not tracking?".';

alter table widget_internal.refusal_counts enable row level security;

create policy "owners see their widgets' refusals" on widget_internal.refusal_counts
  for select to authenticated
  using (widget_id = any (array(select widget_internal.owned_widget_ids())));


create view public.widget_refusals with (security_invoker = true) as
  select
    nullif(r.widget_id, '00000000-0000-0000-0000-000000000000') as widget_id, r.reason, r.detail, r.hour,
    sum(r.refusals)::bigint as refusals
  from widget_internal.refusal_counts r
  group by r.widget_id, r.reason, r.detail, r.hour;

comment on view public.widget_refusals is
  'Events refused, by widget, reason and hour. domain_not_allowed: detail is the host to add to allowed_domains, '
  'empty where the page named none. invalid_input: the field. unknown_widget: the id sent. over_quota: whose quota, '
  '"widget" or "sender"; about as many as there were, as one refusal in sixteen is counted, for sixteen. Good: no rows.';


create function widget_internal.count_refusals(refusals widget_internal.refusal[])
returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_hour constant timestamptz := date_trunc('hour', now(), 'UTC');
  v_shard constant smallint := pg_backend_pid() % 16;
  v_refusal record;
begin
  for v_refusal in
    select
      coalesce(r.widget_id, '00000000-0000-0000-0000-000000000000') as widget_id, r.reason,
      left(coalesce(r.detail, ''), 255) as detail, count(*) as n
    from unnest(count_refusals.refusals) r
    group by 1, 2, 3
    order by 1, 2, 3
  loop
    -- Details come from outside: past twenty an hour they are counted together, so that nobody can fill the table.
    if (
      select count(distinct c.detail) >= 20 and not bool_or(c.detail = v_refusal.detail)
      from widget_internal.refusal_counts c
      where c.hour = v_hour and c.widget_id = v_refusal.widget_id and c.reason = v_refusal.reason
    ) then
      v_refusal.detail := '(others)';
    end if;

    insert into widget_internal.refusal_counts as c (hour, widget_id, reason, detail, shard, refusals)
    values (v_hour, v_refusal.widget_id, v_refusal.reason, v_refusal.detail, v_shard, v_refusal.n)
    on conflict on constraint refusal_counts_are_one_row_a_shard
    do update set refusals = c.refusals + excluded.refusals;
  end loop;
end
$$;

comment on function widget_internal.count_refusals(widget_internal.refusal[]) is 'Adds refused events to the counts of this hour.';


-- Quotas of events: of a widget a day, of a sender a minute. Counting each event would make a
-- queue of a busy widget's senders, so of a large quota one event in up to 64 is counted, for as many.

alter table widget_internal.settings
  add column events_per_widget_per_day bigint default 1000000,
  add column events_per_sender_per_minute bigint default 3000,
  add column sender_address_hop integer not null default 1,
  -- A sample is a fair estimate of a large number only: of a small quota every event is counted.
  add column widget_sample integer not null
    generated always as (greatest(1, least(64, coalesce(events_per_widget_per_day, 262144) / 4096))) stored,
  add column sender_sample integer not null
    generated always as (greatest(1, least(64, coalesce(events_per_sender_per_minute, 4096) / 64))) stored,
  add constraint quotas_are_positive check (events_per_widget_per_day > 0 and events_per_sender_per_minute > 0),
  add constraint sender_address_hop_starts_at_1 check (sender_address_hop >= 1);

comment on column widget_internal.settings.events_per_widget_per_day is
  'How many events of a widget are taken in a day (UTC); null: any number. widget_quotas says otherwise for one widget.';
comment on column widget_internal.settings.events_per_sender_per_minute is
  'How many events are taken from one network address (IPv6: one /64) in a minute; null: any number.';
comment on column widget_internal.settings.widget_sample is
  'Sampling rate of a widget''s events: one in n is counted, as n. 64, or less where the quota is small.';
comment on column widget_internal.settings.sender_sample is
  'Sampling rate of a sender''s events: one in n is counted, as n. 64, or less where the quota is small.';
comment on column widget_internal.settings.sender_address_hop is
  'Which address of X-Forwarded-For is the sender''s, counted from its right end, where the nearest proxy writes: 1 is '
  'the last. Anyone can write what stands further left than your own proxies do.';


create table public.widget_quotas (
  widget_id uuid primary key,
  events_per_day bigint,
  widget_sample integer not null
    generated always as (greatest(1, least(64, coalesce(events_per_day, 262144) / 4096))) stored,
  constraint events_per_day_is_positive check (events_per_day > 0)
);

comment on table public.widget_quotas is 'Widgets whose daily quota is not the one of the settings.';
comment on column public.widget_quotas.events_per_day is 'How many events are taken in a day (UTC); null: any number.';
comment on column public.widget_quotas.widget_sample is 'Sampling rate of its events: one in n is counted, as n.';

alter table public.widget_quotas enable row level security;

create policy "owners see their widgets' quotas" on public.widget_quotas
  for select to authenticated
  using (widget_id = any (array(select widget_internal.owned_widget_ids())));


create table widget_internal.event_counts (
  -- A widget's id, or a sender(): neither can be taken for the other.
  subject uuid not null,
  window_start timestamptz not null,
  events bigint not null,
  constraint event_counts_are_one_row_a_window primary key (subject, window_start),
  constraint events_are_positive check (events > 0)
) with (fillfactor = 50);

comment on table widget_internal.event_counts is 'Events towards a quota, of a widget and day or of a sender and minute.';

create table widget_internal.throttles (
  subject uuid primary key,
  until timestamptz not null
);

comment on table widget_internal.throttles is 'Who is over quota, and until when: a widget, or a sender().';

create index throttles_until_idx on widget_internal.throttles (until);
comment on index widget_internal.throttles_until_idx is 'Serves the writer: is anybody over a quota at all?';

create table widget_internal.sender_salts (
  day date primary key,
  -- Two random UUIDs: 244 random bits, with no extension needed.
  salt bytea not null default uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())
);

comment on table widget_internal.sender_salts is
  'The day''s key for hashing addresses. Once it is deleted, nobody can tell whose address a hash was of.';

alter table widget_internal.event_counts enable row level security;
alter table widget_internal.throttles enable row level security;
alter table widget_internal.sender_salts enable row level security;


create function widget_internal.sender()
returns uuid
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_today constant date := clock_timestamp() at time zone 'UTC';
  -- The company's own backend may speak for many: for the visitor that it names, else for nobody.
  v_addresses constant text[] := string_to_array(
    widget_internal.request_header(
      case when current_setting('role') = 'service_role' then 'x-widget-visitor' else 'x-forwarded-for' end
    ),
    ','
  );
  v_address text;
  v_salt bytea;
begin
  -- Some proxies write the port too, or IPv4 as IPv6.
  select regexp_replace(
    nullif(trim(v_addresses[cardinality(v_addresses) - s.sender_address_hop + 1]), ''),
    '^(?:\[(.*)\]|(?:::ffff:)?([0-9.]+))(?::[0-9]+)?$', '\1\2', 'i'
  )
  into v_address
  from widget_internal.settings s;
  begin
    -- A household has one /64 of IPv6, and could send from each address in it.
    v_address :=
      case family(v_address::inet) when 6 then network(set_masklen(v_address::inet, 64))::text else host(v_address::inet) end;
  exception
    when invalid_text_representation then
      null;  -- counted as it stands
  end;
  loop
    select s.salt into v_salt from widget_internal.sender_salts s where s.day = v_today;
    exit when found;
    insert into widget_internal.sender_salts (day) values (v_today) on conflict do nothing;
  end loop;
  return encode(substring(sha256(v_salt || convert_to(v_address, 'UTF8')) for 16), 'hex')::uuid;
end
$$;

comment on function widget_internal.sender() is
  'A keyed hash of the sender''s address (IPv6: without its last 64 bits), another one each day: the address itself is never '
  'stored. Null where no proxy names one. For service_role it is in X-Widget-Visitor: what the events relay received as '
  'X-Forwarded-For.';


create function widget_internal.count_towards_quota(subject uuid, span text, events bigint, quota bigint)
returns timestamptz
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_window_start constant timestamptz := date_trunc(count_towards_quota.span, clock_timestamp(), 'UTC');
  v_window_end constant timestamptz := v_window_start + ('1 ' || count_towards_quota.span)::interval;
  v_events bigint;
begin
  insert into widget_internal.event_counts as c (subject, window_start, events)
  values (count_towards_quota.subject, v_window_start, count_towards_quota.events)
  on conflict on constraint event_counts_are_one_row_a_window do update set events = c.events + excluded.events
  returning c.events into v_events;
  if v_events <= count_towards_quota.quota then
    return null;
  end if;

  insert into widget_internal.throttles as t (subject, until)
  values (count_towards_quota.subject, v_window_end)
  on conflict on constraint throttles_pkey do update set until = excluded.until;
  return v_window_end;
end
$$;

comment on function widget_internal.count_towards_quota(uuid, text, bigint, bigint) is
  'Adds events to a subject''s count of this day or minute (span). Where that is then over the quota: throttles the '
  'subject until the window''s end, and answers that moment.';


create function widget_internal.over_quota(widget_id uuid, events integer, draw float8 default random())
returns timestamptz
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_sender constant uuid := widget_internal.sender();
  v_quota record;
  v_until timestamptz;
begin
  select max(t.until) into v_until
  from widget_internal.throttles t
  where t.until > clock_timestamp() and t.subject in (over_quota.widget_id, v_sender);
  if v_until is not null then
    return v_until;
  end if;

  select
    s.events_per_sender_per_minute as per_minute, s.sender_sample,
    case when q.widget_id is null then s.events_per_widget_per_day else q.events_per_day end as per_day,
    coalesce(q.widget_sample, s.widget_sample) as widget_sample
  into v_quota
  from widget_internal.settings s
  left join public.widget_quotas q on q.widget_id = over_quota.widget_id;

  if over_quota.draw * v_quota.widget_sample < over_quota.events and v_quota.per_day is not null then
    v_until := widget_internal.count_towards_quota(
      over_quota.widget_id, 'day', greatest(over_quota.events, v_quota.widget_sample),
      -- An estimate from samples is four of its standard deviations off once in 30,000 times: ending so much
      -- earlier, what is stored stays within the quota.
      v_quota.per_day
        - case when v_quota.widget_sample > 1 then ceil(4 * sqrt(v_quota.widget_sample * v_quota.per_day))::bigint else 0 end
    );
  end if;
  if v_until is null and over_quota.draw * v_quota.sender_sample < over_quota.events
    and v_quota.per_minute is not null and v_sender is not null
  then
    v_until := widget_internal.count_towards_quota(
      v_sender, 'minute', greatest(over_quota.events, v_quota.sender_sample), v_quota.per_minute
    );
  end if;
  return v_until;
end
$$;

comment on function widget_internal.over_quota(uuid, integer, float8) is
  'Until when so many more events of a widget are refused by its quota or the sender''s; null where they may be stored. '
  'draw: from 0 to 1, whether these are of the sample that is counted.';


create function widget_internal.quota_refusal(widget_id uuid, until timestamptz, events integer)
returns jsonb
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_seconds constant integer := greatest(1, ceil(extract(epoch from quota_refusal.until - clock_timestamp())));
  v_detail text;
begin
  -- A flood must not make the database write at each refusal.
  if random() * 16 < quota_refusal.events then
    v_detail := case when exists (
      select from widget_internal.throttles t where t.subject = quota_refusal.widget_id and t.until > clock_timestamp()
    ) then 'widget' else 'sender' end;
    perform widget_internal.count_refusals(array_fill(
      (quota_refusal.widget_id, 'over_quota', v_detail)::widget_internal.refusal,
      array[greatest(16, quota_refusal.events)]
    ));
  end if;

  perform set_config('response.headers', jsonb_build_array(jsonb_build_object('Retry-After', v_seconds::text))::text, true);
  -- A page on another origin cannot read the header, so the body says it too.
  return widget_internal.refusal_answer(
    429, '53400', 'over quota: this widget, or this sender, has sent more events than are taken'
  ) || jsonb_build_object('retry_after', v_seconds);
end
$$;

comment on function widget_internal.quota_refusal(uuid, timestamptz, integer) is
  'Counts so many refused events, and makes the REST answer a 429 with Retry-After, in seconds, in header and body.';


create function widget_internal.lift_throttles()
returns trigger
language plpgsql volatile
-- definer because a person who may change a quota need have no right on who is over it
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  delete from widget_internal.throttles;
  return null;
end
$$;

comment on function widget_internal.lift_throttles() is
  'After a quota changed: whoever is over the new one is throttled again at the next event that is counted.';

create trigger lift_throttles_on_change
  after insert or update or delete on public.widget_quotas
  for each statement execute function widget_internal.lift_throttles();

create trigger lift_throttles_on_change
  after update of events_per_widget_per_day, events_per_sender_per_minute on widget_internal.settings
  for each statement execute function widget_internal.lift_throttles();


create function widget_internal.forget_senders()
returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_today constant timestamptz := date_trunc('day', now(), 'UTC');
begin
  delete from widget_internal.sender_salts s where s.day < v_today at time zone 'UTC';
  delete from widget_internal.throttles t where t.until < now();
  -- A day's counts start at its midnight; all that start at another time of a past hour are of a minute.
  delete from widget_internal.event_counts c
  where c.window_start < v_today or (c.window_start <> v_today and c.window_start < now() - interval '1 hour');
end
$$;

comment on function widget_internal.forget_senders() is
  'Deletes past days'' salts, without which no hash can be traced to an address, and counts that no quota needs.';


-- The door: which request may store an event, and what it answers to the others.

create function widget_internal.request_header(name text)
returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_headers constant text := nullif(current_setting('request.headers', true), '');
  -- Cut out of the text, which takes a tenth of the time of reading it all as JSON. Nothing else can look like this
  -- key: inside a JSON string a quote is written \".
  v_value constant text :=
    split_part(split_part(v_headers, '"' || request_header.name || '":"', 2), '"', 1);
begin
  -- Not there, not written as expected, or with an escape in it.
  if v_value = '' or position('\' in v_value) > 0 then
    return v_headers::json ->> request_header.name;
  end if;
  return v_value;
end
$$;

comment on function widget_internal.request_header(text) is
  'A header of the REST request, by its lower-case name; null where there is no such header or no request.';


create function widget_internal.url_host(url text)
returns text
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  -- As browsers read it (WHATWG URL): the authority ends at /, \, ? or #; user and password stand before its last @.
  v_authority text := substring(lower(url_host.url) from '^https?://([^/\\?#]*)');
  v_host text := substring(v_authority from '^(?:.*@)?(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::[0-9]*)?$');
begin
  -- "shop.example." is the same host, written to its root.
  return regexp_replace(v_host, '(.)\.$', '\1');
end
$$;

comment on function widget_internal.url_host(text) is
  'The host of an http or https URL: lower case, no port, no user, no trailing dot; null where there is none.';


create function widget_internal.is_host_allowed(host text, allowed_domains text[])
returns boolean
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_allowed text;
begin
  foreach v_allowed in array coalesce(is_host_allowed.allowed_domains, '{}') loop
    v_allowed := regexp_replace(lower(v_allowed), '(.)\.$', '\1');
    if v_allowed = '*'
      or v_allowed = is_host_allowed.host
      or (
        starts_with(v_allowed, '*.')
        and right(is_host_allowed.host, length(v_allowed) - 1) = substr(v_allowed, 2)
        and length(is_host_allowed.host) >= length(v_allowed)
      )
    then
      return true;
    end if;
  end loop;
  return false;
end
$$;

comment on function widget_internal.is_host_allowed(text, text[]) is
  'Whether a widget''s allowed_domains admit a host: itself, "*.parent" for hosts below it, "*" for any and for none named.';


create function widget_internal.ask_door(widget_id uuid, out verdict text, out detail text)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_door constant record := widget_internal.widget_door(ask_door.widget_id);
  -- An Origin that is there decides, even "null": a page that hides its origin is not asked for its referrer.
  v_host constant text := widget_internal.url_host(
    coalesce(widget_internal.request_header('origin'), widget_internal.request_header('referer'))
  );
begin
  ask_door.verdict := case
    when v_door.is_active is null then 'unknown_widget'
    when not v_door.is_active then 'widget_inactive'
    when v_door.is_demo then 'demo'
    when widget_internal.is_host_allowed(v_host, v_door.allowed_domains) then 'open'
    else 'domain_not_allowed'
  end;
  ask_door.detail := case ask_door.verdict
    when 'unknown_widget' then ask_door.widget_id::text
    when 'domain_not_allowed' then v_host
  end;
end
$$;

comment on function widget_internal.ask_door(uuid) is
  'Whether this request''s page may store an event of the widget: open, demo (taken, not stored), or the reason why not, '
  'with the detail to count it under.';


create function widget_internal.refusal_answer(status integer, code text, message text, hint text default null)
returns jsonb
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  -- Not raised: that would undo the count of the refusal. The body has the shape of PostgREST's errors.
  perform set_config('response.status', refusal_answer.status::text, true);
  return jsonb_build_object(
    'code', refusal_answer.code, 'message', refusal_answer.message, 'details', null, 'hint', refusal_answer.hint
  );
end
$$;

comment on function widget_internal.refusal_answer(integer, text, text, text) is
  'Makes the REST answer one of this HTTP status and returns its body.';


create function widget_internal.unwrap_json(value jsonb)
returns jsonb
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  if jsonb_typeof(unwrap_json.value) = 'string' then
    return (unwrap_json.value #>> '{}')::jsonb;
  end if;
  return unwrap_json.value;
exception
  when invalid_text_representation or untranslatable_character or numeric_value_out_of_range
    or statement_too_complex or program_limit_exceeded
  then
  -- A string that holds no JSON stays what it is, and is refused by its type.
  return unwrap_json.value;
end
$$;

comment on function widget_internal.unwrap_json(jsonb) is
  'The JSON in a JSON string, or the value itself: a gateway may pass a form field of JSON on as a string.';


-- Fields of a sent event, their types, and the message for a value that does not fit.

create domain widget_internal.event_age as numeric
  constraint age_is_at_most_seven_days check (value <= 604800000);
comment on domain widget_internal.event_age is 'How long ago an event happened, in milliseconds by its sender''s clock.';

create type widget_internal.sent_event as (
  widget_id uuid,
  event_type widget_internal.event_type,
  session_id widget_internal.session_id,
  page_url text,
  event_id uuid,
  call_id widget_internal.call_id,
  seq widget_internal.event_seq,
  age_ms widget_internal.event_age,
  properties widget_internal.event_properties
);

comment on type widget_internal.sent_event is
  'An event as it is sent: its fields, each commented with the message for a value that does not fit.';
comment on column widget_internal.sent_event.widget_id is 'must be a UUID';
comment on column widget_internal.sent_event.event_type is 'must be one of ';
comment on column widget_internal.sent_event.session_id is 'must have 1 to 255 characters';
comment on column widget_internal.sent_event.page_url is 'must be a string';
comment on column widget_internal.sent_event.event_id is 'must be a UUID, or be left out';
comment on column widget_internal.sent_event.call_id is 'must have 1 to 255 characters, or be left out';
comment on column widget_internal.sent_event.seq is 'must be a whole number from 1 to 2147483647';
comment on column widget_internal.sent_event.age_ms is 'must be a number of milliseconds, at most 604800000 (seven days)';
comment on column widget_internal.sent_event.properties is 'must be a JSON object of at most 4096 bytes';


create function widget_internal.event_fields()
returns text[]
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return array(
    select a.attname::text from pg_attribute a where a.attrelid = 'widget_internal.sent_event'::regclass order by a.attnum
  );
end
$$;

comment on function widget_internal.event_fields() is 'The fields that an event may have: those of the type sent_event.';


create function widget_internal.event_problem(event jsonb)
returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_field text;
  v_must text;
  v_value jsonb;
begin
  if jsonb_typeof(event_problem.event) is distinct from 'object' then
    return 'event: must be a JSON object';
  end if;
  for v_field, v_must in
    select a.attname, col_description(a.attrelid, a.attnum)
    from pg_attribute a where a.attrelid = 'widget_internal.sent_event'::regclass order by a.attnum
  loop
    v_value := nullif(event_problem.event -> v_field, 'null');
    if v_value is null then
      continue when v_field not in ('widget_id', 'event_type', 'session_id');
    elsif v_field <> 'properties' and jsonb_typeof(v_value) not in ('string', 'number') then
      v_must := 'must be a string or a number';
    else
      begin
        perform jsonb_populate_record(null::widget_internal.sent_event, jsonb_build_object(v_field, v_value));
        continue;
      exception
        when data_exception or integrity_constraint_violation then
          null;  -- v_must says what it must be
      end;
    end if;
    return v_field || ': ' || v_must
      || case v_field when 'event_type' then array_to_string(widget_internal.event_types(), ', ') else '' end;
  end loop;

  select k into v_field from jsonb_object_keys(event_problem.event - widget_internal.event_fields()) k limit 1;
  return left(v_field, 64) || ': is not a field of an event';
end
$$;

comment on function widget_internal.event_problem(jsonb) is
  'What is wrong with a sent event: the first field that does not fit, a colon, what it must be; null where nothing is.';


-- Events in: one writer for track_event() and track_events(). One statement stores all valid events; only where
-- it stored fewer than were sent is each event examined, to say why.

create function widget_internal.store_events(
  widget_id uuid, events jsonb, received_at timestamptz, are_checked boolean, out stored integer
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
  v_user_agent text :=
    nullif(split_part(split_part(current_setting('request.headers', true), '"user-agent":"', 2), '"', 1), '');
begin
  -- Not written as expected, with an escape in it, long, or passed on by the relay.
  if v_user_agent is null or current_setting('role') = 'service_role' or strpos(v_user_agent, '\') > 0 or octet_length(v_user_agent) > 512 then
    -- The events relay calls with the secret key, which the platform refuses from what looks like a browser.
    v_user_agent := nullif(left(coalesce(
      case when current_setting('role') = 'service_role' then widget_internal.request_header('x-widget-agent') end,
      widget_internal.request_header('user-agent')
    ), 512), '');
  end if;
  insert into public.widget_analytics (
    id, widget_id, event_type, session_id, page_url, user_agent, "timestamp", call_id, seq, source, received_at, properties
  )
  select
    coalesce(e.event_id, widget_internal.uuid_v7()), e.widget_id, e.event_type, e.session_id,
    -- Query, fragment, user and password may hold what is nobody's business. A long rest is cut, not refused: no event
    -- that bills may fail on a field that does not.
    case when e.page_url ~ '[?#@]' or octet_length(e.page_url) > 2048
      then left(
        regexp_replace(substring(e.page_url from '^[^?#]*'), '^([a-z][a-z0-9+.-]*://)[^/\\]*@', '\1', 'i'), 2048
      ) else e.page_url end,
    case when e.event_type = 'widget_load' or e.seq is null or e.seq = 1 then v_user_agent end,
    store_events.received_at - greatest(e.age_ms, 0)::float8 * interval '1 millisecond',
    e.call_id, e.seq, 'browser', store_events.received_at, e.properties
  from jsonb_array_elements(store_events.events) with ordinality sent (event, index)
  cross join lateral jsonb_populate_record(null::widget_internal.sent_event, sent.event) e
  where e.widget_id = store_events.widget_id
    and (
      store_events.are_checked
      -- Without an id of its own an event of a larger batch would be another one at the second look.
      or (e.event_id is not null or jsonb_array_length(store_events.events) = 1)
      and sent.event - widget_internal.event_fields() = '{}'
      -- Begins as JSON that is neither string nor number.
      and not concat_ws(' ', e.session_id, e.call_id, e.page_url) ~ '(^| )([{[]|(true|false)( |$))'
    )
  -- By id, so that two batches that share two events never wait for each other; of two equal ids the first is kept.
  order by e.event_id, sent.index
  on conflict do nothing;
  get diagnostics stored = row_count;
end
$$;

comment on function widget_internal.store_events(uuid, jsonb, timestamptz, boolean) is
  'Stores the events of one widget that are valid and new, and returns how many. An event '
  'that cannot be read raises. are_checked: event_problem() has found nothing.';


create function widget_internal.record_events_singly(
  events jsonb, is_single boolean, received_at timestamptz, stored integer, asked_widget_id uuid, asked_until timestamptz
)
returns jsonb
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_events constant jsonb := widget_internal.unwrap_json(record_events_singly.events);
  v_event jsonb;
  v_index integer;
  v_problem text;
  v_widget_id uuid;
  v_door record;
  v_refusals widget_internal.refusal[] := array[]::widget_internal.refusal[];
  v_rejected jsonb[] := array[]::jsonb[];
  v_good jsonb[] := array[]::jsonb[];
  v_indexes integer[] := array[]::integer[];
  v_widget record;
  v_until timestamptz;
  v_stored integer := record_events_singly.stored;
  v_demos integer := 0;
  v_taken integer := 0;
  v_quota_refusal jsonb := '{}'::jsonb;
begin
  if current_setting('transaction_read_only')::boolean and current_setting('request.method', true) = 'POST' then
    -- Left to itself the answer would be a 405, which tells a sender to give up.
    return widget_internal.refusal_answer(503, '25006', 'the database is read-only just now', 'Send the same again later.');
  elsif jsonb_typeof(v_events) is distinct from 'array' then
    return widget_internal.refusal_answer(400, '22023', 'events: must be a JSON array of events');
  elsif jsonb_array_length(v_events) > 1000 then
    return widget_internal.refusal_answer(413, '54000', 'events: must be at most 1000 in one call');
  end if;

  for v_event, v_index in select e.value, e.ordinality - 1 from jsonb_array_elements(v_events) with ordinality e loop
    if jsonb_typeof(v_event -> 'properties') = 'string' then
      v_event := jsonb_set(v_event, '{properties}', widget_internal.unwrap_json(v_event -> 'properties'));
    end if;
    v_problem := widget_internal.event_problem(v_event);
    if split_part(v_problem, ':', 1) in ('event', 'widget_id') then
      v_refusals := v_refusals || (null, 'invalid_input', 'widget_id')::widget_internal.refusal;
    else
      -- A batch is mostly one widget's: ask once.
      if v_widget_id is distinct from (v_event ->> 'widget_id')::uuid then
        v_widget_id := (v_event ->> 'widget_id')::uuid;
        v_door := widget_internal.ask_door(v_widget_id);
      end if;
      if v_door.verdict not in ('open', 'demo') then
        -- The same for all, so that nobody can probe which widgets exist.
        v_problem := 'widget_id: this widget is unknown, not active, or not allowed on this page''s domain';
        v_refusals := v_refusals || (
          case when v_door.verdict <> 'unknown_widget' then v_widget_id end, v_door.verdict, v_door.detail
        )::widget_internal.refusal;
      elsif v_problem is not null then
        v_refusals := v_refusals || (v_widget_id, 'invalid_input', split_part(v_problem, ':', 1))::widget_internal.refusal;
      elsif v_door.verdict = 'demo' then
        v_demos := v_demos + 1;
      else
        v_good := v_good || v_event;
        v_indexes := v_indexes || v_index;
      end if;
    end if;
    if v_problem is not null then
      v_rejected := v_rejected || jsonb_build_object('index', v_index, 'reason', v_problem);
    end if;
  end loop;

  for v_widget in
    select (g.event ->> 'widget_id')::uuid as id, jsonb_agg(g.event order by g.index) as events, array_agg(g.index) as indexes
    from unnest(v_good, v_indexes) g (event, index)
    group by 1
    order by 1
  loop
    v_until := case when v_widget.id = record_events_singly.asked_widget_id then record_events_singly.asked_until
      else widget_internal.over_quota(v_widget.id, cardinality(v_widget.indexes)) end;
    if v_until is null then
      v_taken := v_taken + cardinality(v_widget.indexes);
      v_stored := v_stored
        + widget_internal.store_events(v_widget.id, v_widget.events, record_events_singly.received_at, true);
    else
      -- Sent again as a whole once there is room, the events that are stored now are duplicates then.
      v_quota_refusal := widget_internal.quota_refusal(v_widget.id, v_until, cardinality(v_widget.indexes));
      v_rejected := v_rejected || array(
        select jsonb_build_object('index', i, 'reason', v_quota_refusal ->> 'message') from unnest(v_widget.indexes) i
      );
    end if;
  end loop;

  if v_refusals <> '{}' then
    perform widget_internal.count_refusals(v_refusals);
    if record_events_singly.is_single and v_refusals[1].reason = 'invalid_input' then
      return widget_internal.refusal_answer(400, '22023', v_problem);
    elsif record_events_singly.is_single then
      return widget_internal.refusal_answer(403, '42501', v_problem);
    end if;
  end if;
  return v_quota_refusal || jsonb_build_object(
    'accepted', v_stored + v_demos, 'duplicates', v_taken - v_stored,
    'rejected', (select coalesce(jsonb_agg(r order by (r ->> 'index')::integer), '[]') from unnest(v_rejected) r)
  );
end
$$;

comment on function widget_internal.record_events_singly(jsonb, boolean, timestamptz, integer, uuid, timestamptz) is
  'The second, slow look at a batch of which fewer events were stored than sent: what is good and not there yet is stored, '
  'and the answer says why the others are not. is_single: a batch of one, whose refusal is the answer''s own. stored: how '
  'many were. asked_widget_id: whose quota has been asked for, asked_until: its answer.';


create function widget_internal.record_events(events jsonb, is_single boolean)
returns jsonb
language plpgsql volatile
-- definer because the anonymous role has no right on any table
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
as $$
declare
  v_received_at timestamptz;
  v_events integer;
  v_widget_id uuid;
  v_draw float8 := random();
  v_is_open boolean;
  v_asks_quota boolean;
  v_stored integer := 0;
  v_asked_widget_id uuid;
  v_until timestamptz;
begin
  -- As receipt_time() does it, and cheaper where nobody waits for the lock and nothing was received before.
  v_received_at := case
    when coalesce(current_setting('widget_internal.receipt_time', true), '') = ''
      and pg_try_advisory_xact_lock_shared(widget_internal.receipts_key()) then clock_timestamp()
    else widget_internal.receipt_time()
  end;
  begin
    v_events := jsonb_array_length(record_events.events);
    v_widget_id := (record_events.events -> 0 ->> 'widget_id')::uuid;
    -- Most pages: https, no port, a host that the widget names as it is.
    select
      d.is_active and not d.is_demo and split_part(
        split_part(current_setting('request.headers', true), '"origin":"https://', 2), '"', 1
      ) = any (d.allowed_domains),
      v_draw * least(s.sender_sample, coalesce(q.widget_sample, s.widget_sample)) < v_events
        or exists (select from widget_internal.throttles t where t.until > v_received_at)
    into v_is_open, v_asks_quota
    from widget_internal.widget_door(v_widget_id) d
    cross join widget_internal.settings s
    left join public.widget_quotas q on q.widget_id = v_widget_id;

    if v_is_open is not true then
      v_is_open := (widget_internal.ask_door(v_widget_id)).verdict = 'open';
    end if;
    if v_is_open then
      v_asked_widget_id := v_widget_id;
      if v_asks_quota then
        v_until := widget_internal.over_quota(v_widget_id, v_events, v_draw);
      end if;
      if v_until is null and v_events <= 1000 then
        v_stored := widget_internal.store_events(v_widget_id, record_events.events, v_received_at, false);
        if v_stored = v_events then
          return jsonb_build_object('accepted', v_stored, 'duplicates', 0, 'rejected', '[]'::jsonb);
        end if;
      end if;
    end if;
  exception
    when data_exception or integrity_constraint_violation or read_only_sql_transaction then
      -- Nothing of it is stored or counted.
      v_asked_widget_id := null;
      v_until := null;
  end;
  return widget_internal.record_events_singly(
    record_events.events, record_events.is_single, v_received_at, v_stored, v_asked_widget_id, v_until
  );
end
$$;

comment on function widget_internal.record_events(jsonb, boolean) is
  'What track_events() does, with the right to write the ledger, and track_event() (is_single). Nearly every batch is '
  'valid and of one widget, and is stored without examining single events.';


-- The two RPCs that widgets call: thin wrappers, which run as their caller, over the function that may write.

create function public.track_event(
  widget_id uuid default null, event_type text default null, session_id text default null, page_url text default null,
  event_id uuid default null, call_id text default null, seq integer default null, age_ms bigint default 0,
  properties jsonb default null
)
returns jsonb
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  return widget_internal.record_events(jsonb_build_array(jsonb_build_object(
    'widget_id', track_event.widget_id, 'event_type', track_event.event_type, 'session_id', track_event.session_id,
    'page_url', track_event.page_url, 'event_id', track_event.event_id, 'call_id', track_event.call_id,
    'seq', track_event.seq, 'age_ms', track_event.age_ms, 'properties', track_event.properties
  )), true);
end
$$;

comment on function public.track_event(uuid, text, text, text, uuid, text, integer, bigint, jsonb) is
  'Takes one event of a widget. age_ms: how long ago it happened, by the sender''s own clock. '
  'Answers {"accepted", "duplicates", "rejected"}: an event_id that is already stored is a success and changes nothing. '
  'HTTP 403 (42501): the widget is unknown, not active or not allowed on the page''s domain. 400 (22023): the message '
  'names the field. 429 (53400): over quota; Retry-After and retry_after say for how many seconds. 503 (25006): the '
  'database is read-only at the moment. Refused events are counted in widget_refusals.';


create function public.track_events(events jsonb default null)
returns jsonb
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  return widget_internal.record_events(track_events.events, false);
end
$$;

comment on function public.track_events(jsonb) is
  'Takes up to 1000 events: an array of objects with the arguments of track_event() as keys. '
  'Answers {"accepted": n, "duplicates": n, "rejected": [{"index": i, "reason": "field: why"}]}; one bad event never '
  'costs another. HTTP 400 (22023): not an array. 413 (54000): too many. 429 (53400): at least one is over quota; the '
  'others are stored. Send all again after Retry-After (in the body: retry_after) seconds.';


-- The cleanup: a call that has been open for too long, as after a browser's crash, gets an inferred end in the ledger.

create table public.widget_cleanup_runs (
  id bigint generated always as identity primary key,
  started_at timestamptz not null default clock_timestamp(),
  finished_at timestamptz not null default clock_timestamp(),
  calls_checked integer not null default 0,
  calls_completed integer not null default 0,
  calls_still_active integer not null generated always as (calls_checked - calls_completed) stored,
  calls_left bigint not null default 0,
  error text,
  constraint runs_finish_after_they_start check (finished_at >= started_at)
);

comment on table public.widget_cleanup_runs is
  'Each run of complete_stale_sessions(). Good: at least one every 30 minutes, none with an error.';
comment on column public.widget_cleanup_runs.calls_checked is 'Open calls that had started more than stale_after ago.';
comment on column public.widget_cleanup_runs.calls_completed is 'Of these, how many got an inferred end.';
comment on column public.widget_cleanup_runs.calls_still_active is 'Of these, how many had a heartbeat younger than stale_after.';
comment on column public.widget_cleanup_runs.calls_left is 'How many stale calls did not fit into the run; the next run completes them.';
comment on column public.widget_cleanup_runs.error is 'Why the run failed, which then changed nothing; null if it succeeded.';

create index widget_cleanup_runs_started_at_idx on public.widget_cleanup_runs (started_at);
comment on index public.widget_cleanup_runs_started_at_idx is 'Serves widget_internal.prune(), and "the latest runs".';

alter table public.widget_cleanup_runs enable row level security;


create function public.complete_stale_sessions(stale_after interval default '30 minutes')
returns table (calls_checked integer, calls_completed integer, calls_still_active integer, calls_left bigint)
language plpgsql volatile
-- definer because service_role has no right to write the ledger
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_part constant integer := 1000;
  v_started_at constant timestamptz := clock_timestamp();
  -- Half of what the statement may take: the rest is for committing, and for a busy machine.
  v_until constant timestamptz := v_started_at
    + coalesce(nullif(current_setting('statement_timeout')::interval, interval '0'), '10 minutes') / 2;
  v_horizon timestamptz;
  v_ended integer;
  v_error text;
begin
  perform widget_internal.refuse_visitors();
  if complete_stale_sessions.stale_after is null or complete_stale_sessions.stale_after < interval '0' then
    raise exception 'stale_after: must be an interval of zero or more'
      using errcode = 'invalid_parameter_value', hint = 'Leave it out for 30 minutes.';
  elsif not pg_try_advisory_xact_lock(hashtextextended('widget_internal: cleanup', 0)) then
    raise notice 'another cleanup is running';
    return query select 0, 0, 0, null::bigint;
    return;
  end if;

  calls_checked := 0;
  calls_completed := 0;
  calls_left := 0;
  begin
    if current_setting('transaction_isolation') not in ('read committed', 'read uncommitted') then
      -- It would end calls over heartbeats that it cannot see.
      raise exception 'a cleanup runs in a read committed transaction only' using errcode = 'feature_not_supported';
    end if;
    v_horizon := now() - complete_stale_sessions.stale_after;
    loop
      insert into public.widget_analytics (widget_id, event_type, session_id, call_id, source, "timestamp")
      select
        c.widget_id, 'call_end', c.session_id, c.call_id, 'inferred',
        coalesce(greatest(c.heartbeat_at, c.matched_heartbeat_at), c.started_at + s.assumed_call_duration)
      from widget_internal.call_states c
      cross join widget_internal.settings s
      where c.ended_at is null and c.started_at < v_horizon
        and greatest(c.heartbeat_at, c.matched_heartbeat_at) > v_horizon is not true
      order by c.started_at
      limit v_part;
      get diagnostics v_ended = row_count;
      calls_completed := calls_completed + v_ended;
      exit when v_ended < v_part or clock_timestamp() > v_until;
    end loop;
    -- What is still open is alive, or left for the next run.
    select
      count(*) filter (where greatest(c.heartbeat_at, c.matched_heartbeat_at) > v_horizon) + calls_completed,
      count(*) filter (where greatest(c.heartbeat_at, c.matched_heartbeat_at) > v_horizon is not true)
    into calls_checked, calls_left
    from widget_internal.call_states c
    where c.ended_at is null and c.started_at < v_horizon;
  exception when others then
    -- Not raised again: that would undo the record of the failure. Nothing else is left of the run.
    calls_completed := 0;
    v_error := sqlstate || ': ' || sqlerrm;
    perform set_config('response.status', '500', true);
    raise warning 'complete_stale_sessions failed: %', v_error;
  end;

  return query
  insert into public.widget_cleanup_runs as r (started_at, calls_checked, calls_completed, calls_left, error)
  values (
    v_started_at, complete_stale_sessions.calls_checked, complete_stale_sessions.calls_completed,
    complete_stale_sessions.calls_left, v_error
  )
  returning r.calls_checked, r.calls_completed, r.calls_still_active, r.calls_left;
end
$$;

comment on function public.complete_stale_sessions(interval) is
  'Gives each call that is open for longer than stale_after, with no heartbeat since, an inferred call_end. Such a call '
  'ended at its last heartbeat, else assumed_call_duration (30 minutes) after its start: no bill depends on stale_after, or '
  'on when this runs. Safe at any moment, twice at once, after days without a run. Does what fits into half of '
  'statement_timeout; calls_left says how many calls are the next run''s, null that another run is in progress and this one did '
  'nothing. Every run leaves a row in widget_cleanup_runs; one that fails changes nothing else and answers HTTP 500.';


-- Erasure of a visitor's personal data. What bills rest on stays, so that no bill changes.

create table public.widget_erasures (
  id bigint generated always as identity primary key,
  widget_id uuid not null,
  session_id text collate "C" not null,
  erased_at timestamptz not null default clock_timestamp(),
  erased_by text not null,
  events integer not null,
  constraint erasures_erase_something check (events > 0)
);

comment on table public.widget_erasures is
  'Who erased what of which session, and when: one row each time that erase_widget_session() found something to erase.';
comment on column public.widget_erasures.erased_by is
  'The database login, with the role and the user of the request if there was one.';
comment on column public.widget_erasures.events is 'How many events lost their page, agent or properties, and records of other sets what tells of a visitor.';

create index widget_erasures_widget_id_session_id_idx on public.widget_erasures (widget_id, session_id);
comment on index public.widget_erasures_widget_id_session_id_idx is 'Serves "was this session erased?" and an owner''s own rows.';

alter table public.widget_erasures enable row level security;

create policy "owners see their widgets' erasures" on public.widget_erasures
  for select to authenticated
  using (widget_id = any (array(select widget_internal.owned_widget_ids())));


create function widget_internal.billing_facts(source text, properties jsonb)
returns jsonb
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  -- A browser's properties never count: only those who may correct a bill say in them what it rests on.
  if billing_facts.source not in ('operator', 'provider', 'server') then
    return null;
  end if;
  return (
    select jsonb_object_agg(p.key, p.value)
    from jsonb_each(billing_facts.properties) p
    where p.key in ('record_id', 'reason', 'corrected_by', 'login')
  );
end
$$;

comment on function widget_internal.billing_facts(text, jsonb) is
  'The part of an event''s properties that bills need: the record''s id, and who corrected the call and why.';


create function widget_internal.erase_session(widget_id uuid, session_id text)
returns jsonb
language plpgsql volatile
-- definer because nobody but its owner has the right to change the ledger
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_claims constant jsonb := nullif(current_setting('request.jwt.claims', true), '')::jsonb;
  v_erased integer;
begin
  if (widget_internal.widget_door(erase_session.widget_id)).is_active is null
    or current_setting('role') in ('anon', 'authenticated')
      and erase_session.widget_id <> all (array(select widget_internal.owned_widget_ids()))
  then
    raise exception 'widget_id: this widget is unknown, or not yours' using errcode = 'insufficient_privilege';
  elsif coalesce(length(erase_session.session_id), 0) not between 1 and 255 then
    raise exception 'session_id: must have 1 to 255 characters' using errcode = 'invalid_parameter_value';
  end if;

  update public.widget_analytics e
  set page_url = null, user_agent = null, properties = widget_internal.billing_facts(e.source, e.properties)
  where e.widget_id = erase_session.widget_id
    and e.session_id = erase_session.session_id
    and (
      e.page_url is not null or e.user_agent is not null
      or e.properties is distinct from widget_internal.billing_facts(e.source, e.properties)
    );
  get diagnostics v_erased = row_count;
  v_erased := v_erased + (
    select coalesce(sum(h::bigint), 0)
    from widget_internal.call_hooks('erase_session', jsonb_build_object(
      'widget_id', erase_session.widget_id, 'session_id', erase_session.session_id
    )) h
  );

  if v_erased > 0 then
    insert into public.widget_erasures (widget_id, session_id, erased_by, events)
    values (
      erase_session.widget_id, erase_session.session_id,
      concat_ws(' ', session_user, v_claims ->> 'role', v_claims ->> 'sub'), v_erased
    );
  end if;
  return jsonb_build_object('erased', v_erased);
end
$$;

comment on function widget_internal.erase_session(uuid, text) is
  'What erase_widget_session() does, with the right to change the ledger: a signed-in user''s own widgets, any for others.';


create function public.erase_widget_session(widget_id uuid, session_id text)
returns jsonb
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  return widget_internal.erase_session(erase_widget_session.widget_id, erase_widget_session.session_id);
end
$$;

comment on function public.erase_widget_session(uuid, text) is
  'Erases page, agent and properties of all events of a session: for the widget''s owner, and service_role. Ids, times, '
  'types, sources and what bills rest on stay, so calls, bills and closed months do not change. Answers {"erased": n}, '
  'how many events lost something; again, 0. Each time that it erases leaves a row in widget_erasures. What arrives in '
  'the days after is erased by the daily job widget_prune. 42501: the widget is unknown, or not yours. 400 (22023): session_id is not one.';


-- Retention of the records of runs and the counts of refusals: how long they are kept, and what deletes them.

alter table widget_internal.settings
  add column keep_runs interval not null default '90 days',
  add column keep_refusals interval not null default '400 days',
  add constraint keep_runs_is_a_day_at_least check (keep_runs >= interval '1 day'),
  add constraint keep_refusals_is_a_day_at_least check (keep_refusals >= interval '1 day');

comment on column widget_internal.settings.keep_runs is
  'How long widget_cleanup_runs, and pg_cron''s own records of our jobs, are kept.';
comment on column widget_internal.settings.keep_refusals is 'How long the hours of widget_refusals are kept.';


create function widget_internal.prune()
returns table (cleanup_runs bigint, refusal_counts bigint, job_runs bigint, erased_events bigint, orphans bigint)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_settings widget_internal.settings;
  v_jobs bigint[];
  v_last bigint;
begin
  select s.* into strict v_settings from widget_internal.settings s;

  -- The latest stays, however old: it says since when there was none.
  delete from public.widget_cleanup_runs r
  where r.started_at < now() - v_settings.keep_runs
    and r.id < (select max(l.id) from public.widget_cleanup_runs l);
  get diagnostics prune.cleanup_runs = row_count;

  delete from widget_internal.refusal_counts c where c.hour < now() - v_settings.keep_refusals;
  get diagnostics prune.refusal_counts = row_count;

  prune.job_runs := 0;
  if to_regclass('cron.job_run_details') is not null then
    -- By number up to the youngest that is too old: a run that a crash cut short has no time of its own.
    select array_agg(j.jobid) into v_jobs from cron.job j where j.jobname like 'widget\_%';
    select max(d.runid) into v_last
    from cron.job_run_details d
    where d.jobid = any (v_jobs) and coalesce(d.end_time, d.start_time) < now() - v_settings.keep_runs;
    delete from cron.job_run_details d where d.jobid = any (v_jobs) and d.runid <= v_last;
    get diagnostics prune.job_runs = row_count;
  end if;

  -- What was erased in the last days is erased again where events came late, each time with a row in widget_erasures.
  select coalesce(sum((widget_internal.erase_session(r.widget_id, r.session_id) ->> 'erased')::bigint), 0)
  into prune.erased_events
  from (
    select s.widget_id, s.session_id, min(s.erased_at) as erased_at
    from public.widget_erasures s
    -- What happened before an erasure arrives at most 7 days after it: two days are left for a run that is missed.
    where s.erased_at > now() - interval '9 days'
    group by s.widget_id, s.session_id
  ) r
  where exists (
    select from public.widget_analytics e
    where e.widget_id = r.widget_id
      and e.session_id = r.session_id
      -- Senders are late by 7 days at most, so the index by widget and time finds them.
      and e."timestamp" >= r.erased_at - interval '8 days'
      and (
        e.page_url is not null or e.user_agent is not null
        or e.properties is distinct from widget_internal.billing_facts(e.source, e.properties)
      )
  );

  -- A browser is late by seven days at most, and health has a week to count what stays without a start. The company's own
  -- records may come at any time: what has an end of theirs waits for its start.
  delete from widget_internal.call_states c
  where c.started_at is null and c.last_event_at < now() - interval '14 days'
    and (c.end_claim[1] > array_position(widget_internal.event_sources(), 'browser')) is not true;
  get diagnostics prune.orphans = row_count;
  return next;
end
$$;

comment on function widget_internal.prune() is
  'Removes records of runs that are older than settings.keep_runs and counts of refusals older than keep_refusals, and says '
  'how many; repeats the erasures of the last days, for events that came late; forgets orphans. '
  'Touches neither calls nor bills, nor any job that is not ours.';


-- Where a set of the schema joins in what the sets below it do, without being named by them.

create table widget_internal.hooks (
  hook text not null,
  function text not null,
  constraint hooks_are_one_row_a_function primary key (hook, function)
);

comment on table widget_internal.hooks is
  'Functions of higher sets that lower sets call, by their qualified names; each set of the schema adds its '
  'own rows.';
comment on column widget_internal.hooks.hook is
  'erase_session: after a session''s events were erased (jsonb: {"widget_id", "session_id"}); answers how many rows lost '
  'something. before_closing: before the statement of a month is written. alarms: answers rows (alarm, widget_id, message).';

alter table widget_internal.hooks enable row level security;


create function widget_internal.call_hooks(hook text, argument jsonb default null)
returns setof jsonb
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_function text;
begin
  for v_function in
    select h.function from widget_internal.hooks h where h.hook = call_hooks.hook order by h.function
  loop
    return query execute format(
      'select to_jsonb(r) from %s(%s) r', v_function, case when call_hooks.argument is not null then '$1' end
    ) using call_hooks.argument;
  end loop;
end
$$;

comment on function widget_internal.call_hooks(text, jsonb) is
  'Calls the functions that widget_internal.hooks names for this, and answers what they answer.';


-- Whether the calls are what the ledger gives, and how to bring them back where they are not.

create function widget_internal.widget_calls_differences()
returns table (widget_id uuid, session_id text, call_id text, kept jsonb, computed jsonb)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_places constant text[] := array['first_event_at', 'last_event_at', 'archived_at'];
begin
  return query
  select
    coalesce(k.widget_id, f.widget_id), coalesce(k.session_id, f.session_id), coalesce(k.call_id, f.call_id),
    jsonb_build_array(k.started_at, k.ended_at, k.outcome, k.evidence),
    jsonb_build_array(f.started_at, f.ended_at, f.outcome, f.evidence)
  from widget_internal.call_states k
  full join (
    select s.*
    from (select distinct e.widget_id from public.widget_analytics e) w
    cross join lateral widget_internal.states_of_widget(w.widget_id) s
  ) f on f.widget_id = k.widget_id and f.session_id = k.session_id and f.call_id = k.call_id
  where k.archived_at is null
    -- A state that has waited for its start in vain is forgotten.
    and (k.call_id is not null or f.started_at is not null or f.last_event_at > now() - interval '7 days')
    and to_jsonb(k) - v_places is distinct from to_jsonb(f) - v_places;
end
$$;

comment on function widget_internal.widget_calls_differences() is
  'Calls whose state is not what the ledger gives, each with [started_at, ended_at, outcome, evidence] as kept and as '
  'computed; calls whose events the archive took are left out. Good: no rows. Reads the whole ledger.';


create function widget_internal.rebuild_calls()
returns bigint
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_widget_ids uuid[];
  v_session_ids text[];
begin
  select array_agg(s.widget_id), array_agg(s.session_id) into v_widget_ids, v_session_ids
  from (select distinct d.widget_id, d.session_id from widget_internal.widget_calls_differences() d) s;
  -- No event may come between the look at the ledger and what is written for it.
  perform pg_advisory_xact_lock(widget_internal.receipts_key());
  perform widget_internal.rejoin_sessions(v_widget_ids, v_session_ids);
  return coalesce(cardinality(v_session_ids), 0);
end
$$;

comment on function widget_internal.rebuild_calls() is
  'Computes the calls of all sessions anew that widget_calls_differences() names, as after a time with disabled triggers, '
  'and returns how many sessions these were. Reads the whole ledger; events wait until it is done.';


-- Which migrations a project has: the API shows nothing of the schema that the CLI keeps them in.

create function public.widget_migrations()
returns text[]
language plpgsql volatile
-- definer because service_role may not read the history
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform widget_internal.refuse_visitors();
  if to_regclass('supabase_migrations.schema_migrations') is null then
    return '{}'::text[];
  end if;
  return array(select concat_ws('_', m.version, m.name) from supabase_migrations.schema_migrations m order by 1);
end
$$;

comment on function public.widget_migrations() is
  'The migrations that the project''s history names, its own included, as version_name. Empty where they were not applied '
  'by the Supabase CLI. widget-analytics doctor compares them with those of its release.';


-- What pg_cron runs. A job is a row here, beside the function that it calls; a set's 91_schedule.sql has the rows scheduled.

alter table widget_internal.settings add column jobs_elsewhere text[] not null default '{}';

comment on column widget_internal.settings.jobs_elsewhere is
  'Jobs that something other than pg_cron runs, by name, such as widget_complete_stale_sessions: no alarm where pg_cron '
  'has none.';


create table widget_internal.scheduled_jobs (
  name text primary key,
  schedule text not null,
  command text not null
);

comment on table widget_internal.scheduled_jobs is
  'The jobs that the migrations schedule, and that of alerts where they are on, as cron.schedule() takes them; each set of '
  'the schema adds its own rows.';

alter table widget_internal.scheduled_jobs enable row level security;

insert into widget_internal.scheduled_jobs (name, schedule, command) values
  ('widget_complete_stale_sessions', '*/30 * * * *', 'select public.complete_stale_sessions()'),
  -- Salts of past days go soon after midnight: without them no hash can be traced to an address.
  ('widget_forget_senders', '7 * * * *', 'select widget_internal.forget_senders()'),
  ('widget_prune', '17 3 * * *', 'select widget_internal.prune()');


create function widget_internal.schedule_jobs(only_job text default null)
returns bigint
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select count(cron.schedule(j.name, j.schedule, j.command))
    from widget_internal.scheduled_jobs j
    cross join widget_internal.settings s
    where (schedule_jobs.only_job is null or j.name = schedule_jobs.only_job) and j.name <> all (s.jobs_elsewhere)
  );
end
$$;

comment on function widget_internal.schedule_jobs(text) is
  'Has pg_cron run the jobs, or one, and returns how many; those of jobs_elsewhere are left out. A schedule that was changed '
  'becomes that of the migrations again.';


-- Who may do what, in one list, and the two functions that apply it and compare it with the database. Default grants,
-- which a restore or a copied schema brings back, are taken away by select widget_internal.apply_rights().

insert into widget_internal.rights (object, grantee, privileges)
select o.object, g.grantee, o.privileges
from (values
  ('schema widget_internal', 'anon, authenticated, service_role', 'usage'),

  -- Events in: everybody, and nothing else for a visitor.
  (
    'function public.track_event(uuid, text, text, text, uuid, text, integer, bigint, jsonb)',
    'anon, authenticated, service_role', 'execute'
  ),
  ('function public.track_events(jsonb)', 'anon, authenticated, service_role', 'execute'),
  ('function widget_internal.record_events(jsonb, boolean)', 'anon, authenticated, service_role', 'execute'),

  -- An owner reads and erases the rows of the own widgets, which row level security names; the company's backend all.
  ('function widget_internal.owned_widget_ids()', 'authenticated', 'execute'),
  ('table public.widget_analytics', 'authenticated, service_role', 'select'),
  ('table widget_internal.call_states', 'authenticated, service_role', 'select'),
  ('table public.widget_calls', 'authenticated, service_role', 'select'),
  ('table public.widget_erasures', 'authenticated, service_role', 'select'),
  ('table public.widget_refusals', 'authenticated, service_role', 'select'),
  ('table widget_internal.refusal_counts', 'authenticated, service_role', 'select'),
  ('table widget_internal.settings', 'authenticated, service_role', 'select'),
  ('function public.erase_widget_session(uuid, text)', 'authenticated, service_role', 'execute'),
  ('function widget_internal.erase_session(uuid, text)', 'authenticated, service_role', 'execute'),

  -- Quotas are the company's to set; it runs the cleanup.
  ('table public.widget_quotas', 'authenticated', 'select'),
  ('table public.widget_quotas', 'service_role', 'select, insert, update, delete'),
  ('table public.widget_cleanup_runs', 'service_role', 'select'),
  ('function public.complete_stale_sessions(interval)', 'service_role', 'execute'),
  ('function public.widget_migrations()', 'service_role', 'execute')
) o (object, grantees, privileges)
cross join lateral string_to_table(o.grantees, ', ') g (grantee);


create function widget_internal.rights_in_force()
returns table (object text, grantee text, privilege text)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  with objects (name, kind, acl, owner) as (
    select format('schema %I', n.nspname), 'n', n.nspacl, n.nspowner from pg_namespace n where n.nspname = 'widget_internal'
    union all
    select format('function %I.%I(%s)', n.nspname, p.proname, oidvectortypes(p.proargtypes)), 'f', p.proacl, p.proowner
    from pg_proc p join pg_namespace n on n.oid = p.pronamespace
    where n.nspname = 'widget_internal'
      or n.nspname = 'public' and exists (
        select from widget_internal.rights r where r.object like format('function public.%I(%%', p.proname)
      )
    union all
    select
      case c.relkind when 'S' then 'sequence ' else 'table ' end || c.oid::regclass,
      case c.relkind when 'S' then 's' else 'r' end, c.relacl, c.relowner
    from pg_class c
    join pg_namespace n on n.oid = c.relnamespace
    -- A sequence goes with the table that it numbers.
    left join pg_depend d on c.relkind = 'S' and d.classid = 'pg_class'::regclass and d.objid = c.oid
      and d.refclassid = 'pg_class'::regclass
    where c.relkind in ('r', 'v', 'm', 'p', 'S') and (
      n.nspname = 'widget_internal'
      or n.nspname = 'public' and exists (
        select from widget_internal.rights r where r.object = 'table ' || coalesce(d.refobjid, c.oid)::regclass
      )
    )
  )
  select o.name, coalesce(a.rolname::text, case when x.grantee = 0 then 'public' end), lower(x.privilege_type)
  from objects o
  left join lateral aclexplode(coalesce(o.acl, acldefault(o.kind::"char", o.owner))) x on x.grantee <> o.owner
  left join pg_roles a on a.oid = x.grantee
  where x.grantee is null or x.grantee = 0 or a.rolname in ('anon', 'authenticated', 'service_role');
end
$$;

comment on function widget_internal.rights_in_force() is
  'What public, anon, authenticated and service_role may do with our objects now: one row a right, and at least one with '
  'null an object. Ours is what stands in widget_internal, and of public what is in the list, with its sequences.';


create function widget_internal.apply_rights()
returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_right record;
begin
  for v_right in select distinct f.object from widget_internal.rights_in_force() f order by 1 loop
    execute format('revoke all on %s from public, anon, authenticated, service_role', v_right.object);
  end loop;
  for v_right in select r.* from widget_internal.rights r where r.privileges <> '' order by r.object, r.grantee loop
    execute format('grant %s on %s to %I', v_right.privileges, v_right.object, v_right.grantee);
  end loop;
end
$$;

comment on function widget_internal.apply_rights() is
  'Takes all rights on our objects away and grants those of widget_internal.rights. Migrations call it last; call it after '
  'a restore.';


create function widget_internal.rights_differences()
returns table (object text, grantee text, privilege text, problem text)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
  return query
  select object, grantee, privilege, case when l.is_listed then 'missing' else 'too wide' end
  from (
    select l.object, l.grantee, lower(trim(p)) as privilege, true as is_listed
    from widget_internal.rights l cross join lateral string_to_table(l.privileges, ',') p
  ) l
  full join (select f.*, true as is_in_force from widget_internal.rights_in_force() f where f.privilege is not null) f
    using (object, grantee, privilege)
  where l.is_listed is null or f.is_in_force is null
  order by 1, 2, 3;
end
$$;

comment on function widget_internal.rights_differences() is
  'Rights in force that the list does not have (too wide), and rights of the list that are not in force (missing). Good: '
  'no rows. select widget_internal.apply_rights() corrects both.';

select widget_internal.apply_rights();
