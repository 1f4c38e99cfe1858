-- The counts by their definition, computed from the ledger: to check what is kept, and to follow an erasure.

create function widget_internal.computed_sessions(only_widget_id uuid default null, only_session_ids text[] default null)
returns table (
  widget_id uuid, session_id text, first_at timestamptz, first_received_at timestamptz, last_received_at timestamptz,
  numbered bigint, expected bigint, page_url text, loads bigint, opens bigint, calls bigint
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_custom_plan
as $$
begin
  return query
  select
    e.widget_id, e.session_id, min(e.at), min(e.received_at), max(e.received_at),
    count(distinct e.seq) filter (where e.seq <= 10000), coalesce(max(e.seq) filter (where e.seq <= 10000), 0)::bigint,
    coalesce((array_agg(e.page_url order by e.at, e.page_url) filter (where e.page_url is not null))[1], ''),
    count(*) filter (where e.event_type = 'widget_load'), count(*) filter (where e.event_type = 'widget_open'),
    count(*) filter (where e.event_type = 'call_start')
  from (
    select b.*, count(*) filter (where b.is_new) over (
      partition by b.widget_id, b.session_id order by b.received_at, b.id
    ) as visit
    from (
      select
        a.widget_id, a.session_id::text as session_id, a.id, a.event_type, a.seq::integer as seq, a.received_at,
        a."timestamp"::timestamptz as at, nullif(left(a.page_url, 512), '') collate "C" as page_url,
        a.received_at > interval '7 days' + lag(a.received_at) over (
          partition by a.widget_id, a.session_id order by a.received_at, a.id
        ) as is_new
      from public.widget_analytics a
      cross join widget_internal.health_state s
      where a.source = 'browser' and (a.received_at, a.id) <= (s.counted_to, s.counted_to_id)
        and (computed_sessions.only_widget_id is null or a.widget_id = computed_sessions.only_widget_id)
        and (computed_sessions.only_session_ids is null or a.session_id = any (computed_sessions.only_session_ids))
    ) b
  ) e
  group by e.widget_id, e.session_id, e.visit;
end
$$;

comment on function widget_internal.computed_sessions(uuid, text[]) is
  'The sessions that are counted, as the ledger has them: of a widget, or of all. One that was silent for over seven days '
  'is two.';


create function widget_internal.computed_health()
returns table (counted text, widget_id uuid, at text, numbers bigint[])
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  with sessions as materialized (select * from widget_internal.computed_sessions())
  select 'events', e.widget_id, date_trunc('hour', e."timestamp", 'UTC')::text, array[
    count(*), count(*) filter (where e.event_type = 'widget_load'), count(*) filter (where e.event_type = 'widget_open'),
    count(widget_internal.response_bucket(e.source, e.properties))
  ]
  from public.widget_analytics e
  cross join widget_internal.health_state s
  where (e.received_at, e.id) <= (s.counted_to, s.counted_to_id)
  group by 2, 3
  union all
  select 'sessions', s.widget_id, date_trunc('hour', s.first_at, 'UTC')::text,
    array[count(*), sum(s.numbered), sum(s.expected)]::bigint[]
  from sessions s
  group by 2, 3
  union all
  select 'pages', s.widget_id, (s.first_at at time zone 'UTC')::date || ' ' || s.page_url,
    array[count(*), sum(s.loads), sum(s.opens), sum(s.calls)]::bigint[]
  from sessions s
  group by 2, 3;
end
$$;

comment on function widget_internal.computed_health() is
  'The counts that health_hours, health_response_times and health_pages should hold. Reads the whole ledger.';


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
begin
  return query
  with kept as (
    select 'events' as counted, h.widget_id, h.hour::text as at, array[
      h.events_received, h.loads, h.opens, coalesce((
        select sum(r.answers) from widget_internal.health_response_times r where r.widget_id = h.widget_id and r.hour = h.hour
      ), 0)::bigint
    ] as numbers
    from widget_internal.health_hours h
    union all
    select 'sessions', h.widget_id, h.hour::text, array[h.sessions, h.events_numbered, h.events_expected]
    from widget_internal.health_hours h
    union all
    select 'pages', p.widget_id, p.day || ' ' || p.page_url, array[p.sessions, p.loads, p.opens, p.calls]
    from widget_internal.health_pages p
  )
  select coalesce(k.counted, c.counted), coalesce(k.widget_id, c.widget_id), coalesce(k.at, c.at), k.numbers, c.numbers
  -- Counts that fell to zero stay as such.
  from (select * from kept where 0 < any (kept.numbers)) k
  full join widget_internal.computed_health() c on c.counted = k.counted and c.widget_id = k.widget_id and c.at = k.at
  where k.numbers is distinct from c.numbers
    and left(coalesce(k.at, c.at), 10)::date >= v_since;
end
$$;

comment on function widget_internal.health_differences() is
  'Where the counts behind widget_health and widget_pages are not what the ledger gives of the events counted so far. Good: '
  'no rows. Reads the whole ledger, and leaves archived months out. If there are rows: '
  'select widget_internal.rebuild_health().';
