-- Calls as of a past moment were computed session by session: a bill of 200,000 calls took a minute. Now they are
-- computed many at a time, by the same definition.

create or replace function widget_internal.calls_as_of(
  period_start timestamptz, period_end timestamptz, as_of timestamptz,
  only_sessions widget_internal.session_name[] default null
)
returns table (
  widget_id uuid, session_id text, call_id text, started_at timestamptz, ended_at timestamptz, outcome text,
  evidence text, duration_seconds numeric
)
language plpgsql stable
set search_path = ''
as $$
declare
  v_widget_ids uuid[];
  v_session_ids text[];
begin
  if calls_as_of.period_start is null or calls_as_of.period_end is null
    or calls_as_of.period_end <= calls_as_of.period_start
  then
    raise exception 'period_end: must be after period_start' using errcode = 'invalid_parameter_value';
  end if;

  -- Some thousands at a time: what has to be sorted for them stays in memory.
  for v_widget_ids, v_session_ids in
    with sessions as (
      -- A call starts with its earliest call_start, so a session with none in the period has no call in it.
      select distinct e.widget_id, e.session_id::text
      from public.widget_analytics e
      where e.event_type = 'call_start'
        and e."timestamp" >= calls_as_of.period_start
        and e."timestamp" < calls_as_of.period_end
        and e.received_at <= calls_as_of.as_of
        and calls_as_of.only_sessions is null
      union
      select o.widget_id, o.session_id from unnest(calls_as_of.only_sessions) o
    )
    select array_agg(s.widget_id), array_agg(s.session_id)
    from (select *, row_number() over () / 5000 as batch from sessions) s
    group by s.batch
  loop
    return query
    select c.widget_id, c.session_id, c.call_id, c.started_at, c.ended_at, c.outcome, c.evidence,
      extract(epoch from c.ended_at - c.started_at)
    from widget_internal.calls_of_sessions(v_widget_ids, v_session_ids, calls_as_of.as_of) c
    where c.started_at >= calls_as_of.period_start and c.started_at < calls_as_of.period_end;
  end loop;
end
$$;

comment on function widget_internal.calls_as_of(timestamptz, timestamptz, timestamptz, widget_internal.session_name[]) is
  'The calls that started in [period_start, period_end), by the events received as of a moment, of all sessions or '
  'of some. As they are now they stand in widget_calls.';
