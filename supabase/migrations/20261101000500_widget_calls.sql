-- A call is a pure function of its session's events: here is that function (R4–R6), and the table of its results.

create function widget_internal.session_calls(
  widget_id uuid, session_id text, as_of timestamptz default 'infinity'
)
returns table (
  call_id text, started_at timestamptz, last_heartbeat_at timestamptz,
  ended_at timestamptz, outcome text, evidence text, ended_by uuid
)
language plpgsql stable
set search_path = ''
as $$
begin
  return query
  -- R4: among the events that name no call, each start opens one. On equal times the sender's running number
  -- decides; without one the start comes first, as no end precedes its own start.
  with numbered as (
    select e.*, count(*) filter (where e.event_type = 'call_start') over (
      partition by e.call_id is null
      order by e."timestamp", coalesce(e.seq, 0), e.event_type <> 'call_start', e.id
    ) as starts_so_far
    from public.widget_analytics e
    where e.widget_id = session_calls.widget_id
      and e.session_id = session_calls.session_id
      and e.event_type in ('call_start', 'call_heartbeat', 'call_end', 'call_error')
      and e.received_at <= session_calls.as_of
  ),
  named as (
    select e.id, e.event_type, e.source, e."timestamp", e.properties, coalesce(
      e.call_id,
      case when e.starts_so_far > 0 then first_value(e.id) over (
        partition by e.call_id is null, e.starts_so_far order by e.event_type <> 'call_start'
      )::text end
    ) as call_id
    from numbered e
  ),
  -- R5: of the events that say that a call is over, one is believed.
  ranked as (
    select e.*, e.event_type in ('call_end', 'call_error') and 1 = row_number() over (
      partition by e.call_id
      order by
        e.event_type not in ('call_end', 'call_error'),
        array_position(array['operator', 'provider', 'server', 'browser', 'inferred'], e.source),
        e.event_type = 'call_error', e."timestamp" desc, e.id
    ) as is_believed
    from named e
    where e.call_id is not null
  ),
  calls as (
    select
      e.call_id,
      min(e."timestamp") filter (where e.event_type = 'call_start') as started_at,
      max(e."timestamp") filter (where e.event_type = 'call_heartbeat') as last_heartbeat_at,
      max(e."timestamp") filter (where e.is_believed) as said_to_end_at,
      max(e.event_type) filter (where e.is_believed) as end_type,
      max(e.source) filter (where e.is_believed) as end_source,
      (array_agg(e.id) filter (where e.is_believed))[1] as ended_by,
      -- Who is trusted with it may know how long the call was, whatever the browser took for its start.
      max(case when e.is_believed and e.source in ('operator', 'provider', 'server')
        and jsonb_typeof(e.properties -> 'duration_seconds') = 'number'
        then (e.properties ->> 'duration_seconds')::numeric end) as stated_seconds
    from ranked e
    group by e.call_id
  )
  select
    c.call_id, c.started_at, c.last_heartbeat_at,
    -- An inferred end knows only that the call is over; its last sign of life says when.
    case when c.end_type is not null then least(
      greatest(
        c.started_at,
        case
          when c.stated_seconds is not null
            then c.started_at
              + greatest(least(c.stated_seconds, extract(epoch from s.max_call_duration)), 0) * interval '1 second'
          when c.end_source = 'inferred' then coalesce(c.last_heartbeat_at, c.said_to_end_at)
          else c.said_to_end_at
        end
      ),
      c.started_at + s.max_call_duration
    ) end,
    case c.end_type when 'call_end' then 'completed' when 'call_error' then 'failed' else 'open' end,
    case
      when c.end_source in ('browser', 'server') then 'observed'
      when c.end_source = 'inferred' then case when c.last_heartbeat_at is null then 'assumed' else 'heartbeat' end
      else c.end_source
    end,
    c.ended_by
  from calls c
  cross join widget_internal.settings s
  where c.started_at is not null;
end
$$;

comment on function widget_internal.session_calls(uuid, text, timestamptz) is
  'The one definition of how a session''s events, as received by a moment, make calls (R4, R5, R6). ended_by: the event '
  'that is believed. Where that is of source operator, provider or server and its properties state duration_seconds, '
  'the call ends that long after its start.';

revoke all on function widget_internal.session_calls(uuid, text, timestamptz)
  from public, anon, authenticated, service_role;


create table public.widget_calls (
  widget_id uuid not null,
  started_at timestamptz not null,
  ended_at timestamptz,
  duration_seconds numeric generated always as (extract(epoch from ended_at - started_at)) stored,
  session_id text collate "C" not null,
  call_id text collate "C" not null,
  outcome text not null,
  evidence text,
  constraint widget_calls_pkey primary key (widget_id, session_id, call_id),
  constraint outcome_is_known check (outcome in ('open', 'completed', 'failed')),
  constraint evidence_is_known check (evidence in ('observed', 'provider', 'operator', 'heartbeat', 'assumed')),
  constraint only_open_calls_lack_an_end check ((outcome = 'open') = (ended_at is null)),
  constraint every_end_has_evidence check ((ended_at is null) = (evidence is null)),
  constraint calls_end_after_they_start check (ended_at >= started_at)
);

comment on table public.widget_calls is
  'One row a call, kept by triggers on the ledger and at every moment equal to what the ledger gives (R4–R6).';
comment on column public.widget_calls.call_id is 'The sender''s call_id; where it names none, the id of the call_start event.';
comment on column public.widget_calls.started_at is 'The earliest call_start.';
comment on column public.widget_calls.ended_at is 'When it ended, by the best evidence there is (R5); null while open.';
comment on column public.widget_calls.duration_seconds is 'ended_at less started_at, in seconds; null while open.';
comment on column public.widget_calls.outcome is 'open, completed, or failed: it ended by a call_error.';
comment on column public.widget_calls.evidence is
  'What the end rests on: observed (browser or server), provider, operator, heartbeat (the last sign of life) or '
  'assumed (no sign after the start); null while open.';

create index widget_calls_open_idx on public.widget_calls (started_at) where ended_at is null;
comment on index public.widget_calls_open_idx is 'Serves complete_stale_sessions(): its work follows the open calls alone (R7).';

create index widget_calls_widget_id_started_at_idx on public.widget_calls (widget_id, started_at);
comment on index public.widget_calls_widget_id_started_at_idx is 'Serves one widget''s calls of a period.';

-- Calls are written roughly in the order in which they start, so block ranges are enough, and cost next to nothing.
create index widget_calls_started_at_idx on public.widget_calls using brin (started_at) with (pages_per_range = 32);
comment on index public.widget_calls_started_at_idx is 'Serves all widgets'' calls of a period: the bill.';

alter table public.widget_calls enable row level security;
revoke all on table public.widget_calls from public, anon, authenticated, service_role;
grant select on table public.widget_calls to authenticated, service_role;

create policy "owners see their widgets' calls" on public.widget_calls
  for select to authenticated
  using (widget_id = any (array(select widget_internal.owned_widget_ids())));
