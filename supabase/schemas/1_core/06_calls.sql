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
