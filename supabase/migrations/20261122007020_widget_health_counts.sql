-- Sessions move between hours, days and pages as their events come in: what each added before is taken away again.

create function widget_internal.health_archived_to()
returns timestamptz
language plpgsql stable
set search_path = ''
as $$
declare
  v_month constant date := widget_internal.last_archived_month();
begin
  if isfinite(v_month) then
    return (widget_internal.month_bounds(v_month)).period_end;
  end if;
  return timestamptz '-infinity';
end
$$;

comment on function widget_internal.health_archived_to() is
  'Hours before this moment may have lost events to the archive; -infinity: none has.';

revoke all on function widget_internal.health_archived_to() from public, anon, authenticated, service_role;


create function widget_internal.calls_of_hour(widget_id uuid, hour timestamptz)
returns setof widget_internal.health_calls
language plpgsql stable
set search_path = ''
as $$
begin
  return query
  select
    calls_of_hour.widget_id, calls_of_hour.hour, count(*), count(*) filter (where c.outcome = 'open'),
    count(*) filter (where c.evidence = 'observed'), count(*) filter (where c.evidence = 'provider'),
    count(*) filter (where c.evidence = 'operator'), count(*) filter (where c.evidence = 'heartbeat'),
    count(*) filter (where c.evidence = 'assumed'), count(*) filter (where c.outcome = 'failed')
  from public.widget_calls c
  where c.widget_id = calls_of_hour.widget_id
    and c.started_at >= calls_of_hour.hour
    and c.started_at < calls_of_hour.hour + interval '1 hour';
end
$$;

comment on function widget_internal.calls_of_hour(uuid, timestamptz) is 'One widget''s calls that started in one hour, counted.';

revoke all on function widget_internal.calls_of_hour(uuid, timestamptz) from public, anon, authenticated, service_role;


create function widget_internal.count_sessions(received_after timestamptz, received_to timestamptz)
returns void
language plpgsql volatile
set search_path = ''
as $$
begin
  with after as materialized (
    select * from widget_internal.changed_health_sessions(count_sessions.received_after, count_sessions.received_to)
  ),
  before as materialized (
    select s.* from after a join widget_internal.health_sessions s using (widget_id, session_id)
  ),
  stored as (
    insert into widget_internal.health_sessions as s select a.* from after a
    on conflict on constraint health_sessions_pkey do update set
      first_at = excluded.first_at, seqs = excluded.seqs, page_at = excluded.page_at, page_url = excluded.page_url,
      loads = excluded.loads, opens = excluded.opens, calls = excluded.calls,
      orphan_ends = excluded.orphan_ends
  ),
  -- What a session added before is taken away again.
  changes as (select 1 as sign, a.* from after a union all select -1, b.* from before b),
  pages as (
    insert into widget_internal.health_pages as p (widget_id, day, page_url, host, sessions, loads, opens, calls)
    select
      c.widget_id, (c.first_at at time zone 'UTC')::date, c.page_url,
      coalesce(widget_internal.url_host(c.page_url), ''),
      sum(c.sign), sum(c.sign * c.loads), sum(c.sign * c.opens), sum(c.sign * c.calls)
    from changes c
    group by 1, 2, 3
    on conflict on constraint health_pages_pkey do update set
      sessions = p.sessions + excluded.sessions, loads = p.loads + excluded.loads,
      opens = p.opens + excluded.opens, calls = p.calls + excluded.calls
  )
  insert into widget_internal.health_hours as h (widget_id, hour, sessions, events_numbered, events_expected, orphan_ends)
  select
    c.widget_id, date_trunc('hour', c.first_at, 'UTC'), sum(c.sign),
    sum(c.sign * widget_internal.numbers_seen(c.seqs)), sum(c.sign * coalesce(upper(c.seqs) - 1, 0)),
    sum(c.sign * c.orphan_ends)
  from changes c
  group by 1, 2
  on conflict on constraint health_hours_pkey do update set
    sessions = h.sessions + excluded.sessions, events_numbered = h.events_numbered + excluded.events_numbered,
    events_expected = h.events_expected + excluded.events_expected, orphan_ends = h.orphan_ends + excluded.orphan_ends;
end
$$;

comment on function widget_internal.count_sessions(timestamptz, timestamptz) is
  'Brings sessions and pages up to date with the events received in (received_after, received_to].';

revoke all on function widget_internal.count_sessions(timestamptz, timestamptz)
  from public, anon, authenticated, service_role;


create function widget_internal.count_calls(received_after timestamptz, received_to timestamptz)
returns void
language plpgsql volatile
set search_path = ''
as $$
declare
  v_archived_to constant timestamptz := widget_internal.health_archived_to();
begin
  insert into widget_internal.health_calls as k
  select k.*
  from (
    select distinct s.widget_id, h.hour
    from (
      select distinct e.widget_id, e.session_id
      from public.widget_analytics e
      where e.received_at > count_calls.received_after and e.received_at <= count_calls.received_to
        and e.event_type in ('call_start', 'call_heartbeat', 'call_end', 'call_error')
    ) s
    -- Of all its starts, not of its calls: so the hour is counted again too that a call has left for an earlier start.
    cross join lateral (
      select distinct date_trunc('hour', e."timestamp", 'UTC') as hour
      from public.widget_analytics e
      where e.widget_id = s.widget_id and e.session_id = s.session_id and e.event_type = 'call_start'
    ) h
    where h.hour >= v_archived_to
  ) d
  cross join lateral widget_internal.calls_of_hour(d.widget_id, d.hour) k
  on conflict on constraint health_calls_pkey do update set
    calls_started = excluded.calls_started, calls_open = excluded.calls_open, calls_observed = excluded.calls_observed,
    calls_provider = excluded.calls_provider, calls_operator = excluded.calls_operator,
    calls_heartbeat = excluded.calls_heartbeat, calls_assumed = excluded.calls_assumed,
    calls_failed = excluded.calls_failed;
end
$$;

comment on function widget_internal.count_calls(timestamptz, timestamptz) is
  'Counts the hours again in which calls started of which events were received in (received_after, received_to].';

revoke all on function widget_internal.count_calls(timestamptz, timestamptz)
  from public, anon, authenticated, service_role;
