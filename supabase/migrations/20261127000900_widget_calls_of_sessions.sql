-- A plan that was made while the ledger was small read all of it for each session, and was kept while it grew.

create or replace function widget_internal.calls_of_sessions(
  widget_ids uuid[], session_ids text[], as_of timestamptz default 'infinity'
)
returns table (
  widget_id uuid, session_id text, call_id text, started_at timestamptz, last_heartbeat_at timestamptz,
  ended_at timestamptz, outcome text, evidence text, ended_by uuid
)
language plpgsql stable
set search_path = ''
-- The plan is always the same; a new one for each array would take longer than its run.
set plan_cache_mode = force_generic_plan
as $$
begin
  return query
  -- R4: among the events that name no call, each start opens one. On equal times the sender's running number
  -- decides; without one the start comes first, as no end precedes its own start.
  with numbered as (
    select e.*, count(*) filter (where e.event_type = 'call_start') over (
      partition by e.widget_id, e.session_id, e.call_id is null
      order by e."timestamp", coalesce(e.seq, 0), e.event_type <> 'call_start', e.id
    ) as starts_so_far
    from unnest(calls_of_sessions.widget_ids, calls_of_sessions.session_ids) s (widget_id, session_id)
    -- "offset 0": session by session through their index. A plan that is made while the ledger is small would read all of
    -- it instead, and be kept while it grows.
    cross join lateral (
      select a.* from public.widget_analytics a
      where a.widget_id = s.widget_id and a.session_id = s.session_id
        and a.event_type in ('call_start', 'call_heartbeat', 'call_end', 'call_error')
        and a.received_at <= calls_of_sessions.as_of
      offset 0
    ) e
  ),
  named as (
    select e.widget_id, e.session_id, e.id, e.event_type, e.source, e."timestamp", e.properties, coalesce(
      e.call_id,
      case when e.starts_so_far > 0 then first_value(e.id) over (
        partition by e.widget_id, e.session_id, e.call_id is null, e.starts_so_far
        order by e.event_type <> 'call_start'
      )::text end
    ) as call_id
    from numbered e
  ),
  -- R5: of the events that say that a call is over, one is believed.
  ranked as (
    select e.*, e.event_type in ('call_end', 'call_error') and 1 = row_number() over (
      partition by e.widget_id, e.session_id, e.call_id
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
      e.widget_id, e.session_id, e.call_id,
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
    group by e.widget_id, e.session_id, e.call_id
  )
  select
    c.widget_id, c.session_id::text, c.call_id, c.started_at, c.last_heartbeat_at,
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
