-- What is kept against the counts by their definition, computed from the whole ledger.

create function widget_internal.health_differences()
returns table (counted text, widget_id uuid, at text, kept bigint[], computed bigint[])
language plpgsql stable
set search_path = pg_catalog, pg_temp
set work_mem = '64MB'
set jit = off
as $$
declare
  -- Hours before this have lost events to the archive, which takes whole months. A day for months of other zones.
  v_since constant timestamptz := (
    select coalesce(date_trunc('month', max(c.started_at)) + interval '1 month 1 day', '-infinity')
    from widget_internal.call_states c where c.archived_at is not null
  );
  v_none constant widget_internal.health_state := (true, now(), '-infinity', null);
  v_state constant widget_internal.health_state := (select s from widget_internal.health_state s);
begin
  return query
  with sessions as materialized (select s.* from widget_internal.counted_sessions(v_none, v_state) s),
  counts as (
    select 'events' as counted, h.widget_id, h.hour::text as at, true as is_kept, array[
      h.events_received, h.loads, h.opens, coalesce((
        select sum(r.answers) from widget_internal.health_response_times r where r.widget_id = h.widget_id and r.hour = h.hour
      ), 0)::bigint
    ] as numbers
    from widget_internal.health_hours h
    union all
    select 'events', e.widget_id, e.hour::text, false,
      array[sum(e.events), sum(e.loads), sum(e.opens), coalesce(sum(e.events) filter (where e.bucket is not null), 0)]::bigint[]
    from widget_internal.counted_hours(v_none, v_state) e
    group by e.widget_id, e.hour
    union all
    select 'sessions', h.widget_id, h.hour::text, true, array[h.sessions, h.events_numbered, h.events_expected]
    from widget_internal.health_hours h
    union all
    select 'sessions', s.widget_id, date_trunc('hour', s.first_at, 'UTC')::text, false, array[
      count(*), sum((select coalesce(sum(upper(r) - lower(r)), 0) from unnest(s.seqs) r)), sum(coalesce(upper(s.seqs) - 1, 0))
    ]::bigint[]
    from sessions s
    group by 2, 3
    union all
    select 'pages', p.widget_id, p.day || ' ' || p.page_url, true, array[p.sessions, p.loads, p.opens, p.calls]
    from widget_internal.health_pages p
    union all
    select 'pages', s.widget_id, (s.first_at at time zone 'UTC')::date || ' ' || s.page_url, false,
      array[count(*), sum(s.loads), sum(s.opens), sum(s.calls)]::bigint[]
    from sessions s
    group by 2, 3
  )
  select k.* from (
    select n.counted, n.widget_id, n.at, max(n.numbers) filter (where n.is_kept) as kept,
      max(n.numbers) filter (where not n.is_kept) as computed
    from counts n
    -- Counts that fell to zero stay as such.
    where 0 < any (n.numbers) and left(n.at, 10)::date >= v_since
    group by n.counted, n.widget_id, n.at
  ) k
  where k.kept is distinct from k.computed;
end
$$;

comment on function widget_internal.health_differences() is
  'Where the counts behind widget_health and widget_pages are not what the ledger gives of the events counted so far. Good: '
  'no rows. Reads the whole ledger, and leaves archived months out. If there are rows: '
  'select widget_internal.rebuild_health().';
