-- Months that left for the archive keep their counts: no refresh, no rebuild and no comparison counts what is no longer there.

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


create or replace function widget_internal.count_sessions(received_after timestamptz, received_to timestamptz)
returns void
language plpgsql volatile
set search_path = ''
as $$
declare
  v_archived_to constant timestamptz := widget_internal.health_archived_to();
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
      loads = excluded.loads, opens = excluded.opens, calls = excluded.calls, call_hours = excluded.call_hours,
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
  ),
  hours as (
    insert into widget_internal.health_hours as h (widget_id, hour, sessions, events_numbered, events_expected, orphan_ends)
    select
      c.widget_id, date_trunc('hour', c.first_at, 'UTC'), sum(c.sign),
      sum(c.sign * widget_internal.numbers_seen(c.seqs)), sum(c.sign * coalesce(upper(c.seqs) - 1, 0)),
      sum(c.sign * c.orphan_ends)
    from changes c
    group by 1, 2
    on conflict on constraint health_hours_pkey do update set
      sessions = h.sessions + excluded.sessions, events_numbered = h.events_numbered + excluded.events_numbered,
      events_expected = h.events_expected + excluded.events_expected, orphan_ends = h.orphan_ends + excluded.orphan_ends
  )
  insert into widget_internal.health_calls as k
  select k.* from (
    select distinct c.widget_id, hour from changes c cross join lateral unnest(c.call_hours) hour
    where hour >= v_archived_to
  ) d
  cross join lateral widget_internal.calls_of_hour(d.widget_id, d.hour) k
  on conflict on constraint health_calls_pkey do update set
    calls_started = excluded.calls_started, calls_open = excluded.calls_open, calls_observed = excluded.calls_observed,
    calls_provider = excluded.calls_provider, calls_operator = excluded.calls_operator,
    calls_heartbeat = excluded.calls_heartbeat, calls_assumed = excluded.calls_assumed,
    calls_failed = excluded.calls_failed;
end
$$;


create or replace function widget_internal.rebuild_health()
returns bigint
language plpgsql volatile
set search_path = ''
as $$
begin
  if isfinite(widget_internal.health_archived_to()) then
    raise exception 'health cannot be counted anew: events up to % are in the archive, and their counts would be lost',
      widget_internal.health_archived_to()
      using errcode = 'object_not_in_prerequisite_state', hint = 'What is counted of archived months stays as it is.';
  end if;

  perform from widget_internal.health_state for update;
  delete from widget_internal.health_sessions;
  delete from widget_internal.health_hours;
  delete from widget_internal.health_calls;
  delete from widget_internal.health_response_times;
  delete from widget_internal.health_pages;
  update widget_internal.health_state set counted_to = '-infinity';
  return (select r.events_counted from public.refresh_widget_health() r);
end
$$;


create or replace function widget_internal.health_differences()
returns table (counted text, widget_id uuid, at text, kept bigint[], computed bigint[])
language plpgsql stable
set search_path = ''
as $$
declare
  v_archived_to constant timestamptz := widget_internal.health_archived_to();
begin
  return query
  with kept as (
    select 'events' as counted, h.widget_id, h.hour::text as at, array[h.events_received, h.loads, h.opens] as numbers
    from widget_internal.health_hours h
    where h.hour >= v_archived_to
    union all
    select 'sessions', h.widget_id, h.hour::text, array[h.sessions, h.events_numbered, h.events_expected, h.orphan_ends]
    from widget_internal.health_hours h
    where h.hour >= v_archived_to
    union all
    select 'calls', c.widget_id, c.hour::text, array[
      c.calls_started, c.calls_open, c.calls_observed, c.calls_provider, c.calls_operator, c.calls_heartbeat,
      c.calls_assumed, c.calls_failed
    ]
    from widget_internal.health_calls c
    where c.hour >= v_archived_to
    union all
    select 'pages', p.widget_id, p.day || ' ' || p.page_url, array[p.sessions, p.loads, p.opens, p.calls]
    from widget_internal.health_pages p
    where p.day > (v_archived_to at time zone 'UTC')::date
  ),
  computed as (
    select c.counted, c.widget_id, c.hour::text as at, c.numbers from widget_internal.computed_health() c
    where c.hour >= v_archived_to
    union all
    select 'pages', p.widget_id, p.day || ' ' || p.page_url, p.numbers from widget_internal.computed_health_pages() p
    where p.day > (v_archived_to at time zone 'UTC')::date
  )
  select
    coalesce(k.counted, c.counted), coalesce(k.widget_id, c.widget_id), coalesce(k.at, c.at)::text, k.numbers, c.numbers
  -- Counts that fell to zero stay as such.
  from (select * from kept where 0 < any (kept.numbers)) k
  full join computed c on c.counted = k.counted and c.widget_id = k.widget_id and c.at = k.at
  where k.numbers is distinct from c.numbers;
end
$$;
