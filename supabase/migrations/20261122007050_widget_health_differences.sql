-- What is kept must equal what the ledger gives: the same counts by their definition, in one pass, and what differs.

create function widget_internal.computed_health()
returns table (counted text, widget_id uuid, hour timestamptz, numbers bigint[])
language plpgsql stable
set search_path = ''
as $$
begin
  return query
  select 'events', e.widget_id, date_trunc('hour', e."timestamp", 'UTC'), array[
    count(*), count(*) filter (where e.event_type = 'widget_load'), count(*) filter (where e.event_type = 'widget_open')
  ]
  from public.widget_analytics e
  group by 2, 3
  union all
  select 'sessions', s.widget_id, date_trunc('hour', s.first_at, 'UTC'), array[
    count(*), sum(s.numbered), coalesce(sum(s.highest), 0), sum(widget_internal.orphan_ends(s.widget_id, s.session_id))
  ]::bigint[]
  from (
    select
      e.widget_id, e.session_id, min(e."timestamp") as first_at,
      count(distinct e.seq) filter (where e.seq <= 10000) as numbered, max(e.seq) filter (where e.seq <= 10000) as highest
    from public.widget_analytics e
    group by e.widget_id, e.session_id
  ) s
  group by 2, 3
  union all
  select 'calls', c.widget_id, date_trunc('hour', c.started_at, 'UTC'), array[
    count(*), count(*) filter (where c.outcome = 'open'), count(*) filter (where c.evidence = 'observed'),
    count(*) filter (where c.evidence = 'provider'), count(*) filter (where c.evidence = 'operator'),
    count(*) filter (where c.evidence = 'heartbeat'), count(*) filter (where c.evidence = 'assumed'),
    count(*) filter (where c.outcome = 'failed')
  ]
  from public.widget_calls c
  group by 2, 3;
end
$$;

comment on function widget_internal.computed_health() is 'The counts that health_hours and health_calls should hold. Reads the whole ledger.';

revoke all on function widget_internal.computed_health() from public, anon, authenticated, service_role;


create function widget_internal.computed_health_pages()
returns table (widget_id uuid, day date, page_url text, numbers bigint[])
language plpgsql stable
set search_path = ''
as $$
begin
  return query
  select s.widget_id, (s.first_at at time zone 'UTC')::date, s.page_url, array[
    count(*), sum(s.loads)::bigint, sum(s.opens)::bigint, sum((
      select count(*) from public.widget_calls c where c.widget_id = s.widget_id and c.session_id = s.session_id
    ))::bigint
  ]
  from (
    select
      e.widget_id, e.session_id, min(e."timestamp") as first_at,
      coalesce((
        array_agg(left(e.page_url, 512) order by e."timestamp", left(e.page_url, 512) collate "C")
          filter (where e.page_url <> '')
      )[1], '') as page_url,
      count(*) filter (where e.event_type = 'widget_load') as loads,
      count(*) filter (where e.event_type = 'widget_open') as opens
    from public.widget_analytics e
    group by e.widget_id, e.session_id
  ) s
  group by 1, 2, 3;
end
$$;

comment on function widget_internal.computed_health_pages() is 'The counts that health_pages should hold. Reads the whole ledger.';

revoke all on function widget_internal.computed_health_pages() from public, anon, authenticated, service_role;


create function widget_internal.health_differences()
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

comment on function widget_internal.health_differences() is
  'Where the counts behind widget_health and widget_pages are not what the ledger gives. Good: no rows, right after '
  'refresh_widget_health(). Reads the whole ledger. If there are rows: select widget_internal.rebuild_health().';

revoke all on function widget_internal.health_differences() from public, anon, authenticated, service_role;
