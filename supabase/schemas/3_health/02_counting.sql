-- Events are counted in the order of their receipt, in parts: each event once, and each session by the difference between
-- what it was before and what it is now. A call counts as many parts as its time allows; the next call resumes there.

create function widget_internal.counted_hours(since widget_internal.health_state, until widget_internal.health_state)
returns table (widget_id uuid, hour timestamptz, bucket smallint, events bigint, loads bigint, opens bigint)
language plpgsql stable
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_custom_plan
as $$
begin
  return query
  select
    e.widget_id, date_trunc('hour', e."timestamp", 'UTC'),
    -- Ten minutes: no sender waits longer; a larger value is invented.
    case when r.milliseconds between 0 and 600000
      then ceil(ln(greatest(r.milliseconds, 1)::float8) / ln(1.1::float8))::smallint
    end,
    count(*), count(*) filter (where e.event_type = 'widget_load'), count(*) filter (where e.event_type = 'widget_open')
  from public.widget_analytics e
  cross join lateral (
    select case when e.source = 'browser' and jsonb_typeof(e.properties -> 'rtt_ms') = 'number'
      then (e.properties ->> 'rtt_ms')::numeric end as milliseconds
  ) r
  where e.received_at between since.counted_to and until.counted_to
    and (e.received_at, e.id) > (since.counted_to, since.counted_to_id)
    and (e.received_at, e.id) <= (until.counted_to, until.counted_to_id)
  group by 1, 2, 3;
end
$$;

comment on function widget_internal.counted_hours(widget_internal.health_state, widget_internal.health_state) is
  'The events that are counted in one state and not yet in the other, by the hour in which they happened and the bucket of '
  'health_response_times; null where their sender names no response time.';


create function widget_internal.counted_sessions(
  since widget_internal.health_state, until widget_internal.health_state, with_kept boolean default false,
  only_widget_id uuid default null, only_session_ids text[] default null
)
returns setof widget_internal.health_sessions
language plpgsql stable
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_custom_plan
as $$
begin
  return query
  with events as materialized (
    -- Each as the session that it would be alone.
    select
      e.widget_id, e.session_id::text collate "C" as session_id, e."timestamp"::timestamptz as first_at,
      e.received_at as first_received_at, e.received_at as last_received_at,
      -- Above ten thousand a number is a fault or a forgery, and would drown the rate of its hour.
      case when e.seq <= 10000 then int4multirange(int4range(e.seq, e.seq, '[]')) end as seqs,
      case when e.page_url <> '' then e."timestamp"::timestamptz end as page_at,
      left(e.page_url, 512) collate "C" as page_url, (e.event_type = 'widget_load')::integer::bigint as loads,
      (e.event_type = 'widget_open')::integer::bigint as opens, (e.event_type = 'call_start')::integer::bigint as calls
    from public.widget_analytics e
    where e.source = 'browser' and e.received_at between since.counted_to and until.counted_to
      and (e.received_at, e.id) > (since.counted_to, since.counted_to_id)
      and (e.received_at, e.id) <= (until.counted_to, until.counted_to_id)
      and (counted_sessions.only_widget_id is null or e.widget_id = counted_sessions.only_widget_id)
      and (counted_sessions.only_session_ids is null or e.session_id = any (counted_sessions.only_session_ids))
  ),
  parts as (
    select e.* from events e
    union all
    select s.*
    from (select e.widget_id, e.session_id, min(e.first_received_at) as at from events e group by 1, 2) f
    join widget_internal.health_sessions s on s.widget_id = f.widget_id and s.session_id = f.session_id
      and s.last_received_at >= f.at - interval '7 days'
    where counted_sessions.with_kept
  ),
  visits as (
    select m.*, count(*) filter (where m.is_new) over (
      partition by m.widget_id, m.session_id order by m.last_received_at
    ) as visit
    from (
      select p.*, p.first_received_at > interval '7 days' + lag(p.last_received_at) over (
        partition by p.widget_id, p.session_id order by p.last_received_at
      ) as is_new
      from parts p
    ) m
  )
  select
    v.widget_id, v.session_id, min(v.first_at), min(v.first_received_at), max(v.last_received_at),
    coalesce(range_agg(v.seqs), '{}'), min(v.page_at),
    coalesce((array_agg(v.page_url order by v.page_at, v.page_url) filter (where v.page_at is not null))[1], ''),
    sum(v.loads)::bigint, sum(v.opens)::bigint, sum(v.calls)::bigint
  from visits v
  group by v.widget_id, v.session_id, v.visit;
end
$$;

comment on function widget_internal.counted_sessions(
  widget_internal.health_state, widget_internal.health_state, boolean, uuid, text[]
) is
  'The sessions of browsers in the events that are counted in one state and not yet in the other: of a widget, or of all. '
  'One that was silent for over seven days is two. with_kept: together with what health_sessions holds of them.';


create function widget_internal.count_health_part(cut_off timestamptz)
returns bigint
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_custom_plan
as $$
declare
  v_most constant integer := 10000;
  v_since widget_internal.health_state;
  v_until widget_internal.health_state;
  v_first_at timestamptz;
  v_events bigint;
begin
  select s.* into v_since from widget_internal.health_state s;
  v_until := v_since;
  select min(p.received_at), max(p.received_at), (array_agg(p.id order by p.received_at desc, p.id desc))[1], count(*)
  into v_first_at, v_until.counted_to, v_until.counted_to_id, v_events
  from (
    select e.received_at, e.id
    from public.widget_analytics e
    where e.received_at between v_since.counted_to and count_health_part.cut_off
      and (e.received_at, e.id) > (v_since.counted_to, v_since.counted_to_id)
    order by e.received_at, e.id
    limit v_most
  ) p;
  -- Within seven days no session is silent for longer than that: so each part adds to one row a session.
  if v_events < v_most or v_until.counted_to > v_first_at + interval '7 days' then
    v_until.counted_to := least(count_health_part.cut_off, v_first_at + interval '7 days');
    v_until.counted_to_id := 'ffffffff-ffff-ffff-ffff-ffffffffffff';
  end if;

  with new as materialized (
    select h.* from widget_internal.counted_hours(v_since, v_until) h
  ),
  after as materialized (
    select s.* from widget_internal.counted_sessions(v_since, v_until, true) s
  ),
  changes as materialized (
    select 1 as sign, a.* from after a
    union all
    select -1, s.*
    from after a
    join widget_internal.health_sessions s on s.widget_id = a.widget_id and s.session_id = a.session_id
      -- Else it was silent for over seven days, and is replaced.
      and s.last_received_at >= a.first_received_at
  ),
  kept as (
    insert into widget_internal.health_sessions as s select a.* from after a
    on conflict (widget_id, session_id) do update set
      first_at = excluded.first_at, first_received_at = excluded.first_received_at,
      last_received_at = excluded.last_received_at, seqs = excluded.seqs,
      page_at = excluded.page_at, page_url = excluded.page_url,
      loads = excluded.loads, opens = excluded.opens, calls = excluded.calls
  ),
  pages as (
    insert into widget_internal.health_pages as p (widget_id, day, page_url, host, sessions, loads, opens, calls)
    select
      c.widget_id, (c.first_at at time zone 'UTC')::date, c.page_url, coalesce(widget_internal.url_host(c.page_url), ''),
      sum(c.sign), sum(c.sign * c.loads), sum(c.sign * c.opens), sum(c.sign * c.calls)
    from changes c
    group by 1, 2, 3
    on conflict (widget_id, day, page_url) do update set
      sessions = p.sessions + excluded.sessions, loads = p.loads + excluded.loads,
      opens = p.opens + excluded.opens, calls = p.calls + excluded.calls
  ),
  response_times as (
    insert into widget_internal.health_response_times as r (widget_id, hour, bucket, answers)
    select n.widget_id, n.hour, n.bucket, n.events from new n where n.bucket is not null
    on conflict (widget_id, hour, bucket) do update set answers = r.answers + excluded.answers
  ),
  hours as (
    insert into widget_internal.health_hours as h (
      widget_id, hour, events_received, loads, opens, sessions, events_numbered, events_expected
    )
    select u.widget_id, u.hour, sum(u.events), sum(u.loads), sum(u.opens), sum(u.sessions), sum(u.numbered), sum(u.expected)
    from (
      select n.widget_id, n.hour, n.events, n.loads, n.opens, 0 as sessions, 0 as numbered, 0 as expected from new n
      union all
      select
        c.widget_id, date_trunc('hour', c.first_at, 'UTC'), 0, 0, 0, c.sign,
        c.sign * (select coalesce(sum(upper(r) - lower(r)), 0) from unnest(c.seqs) r), c.sign * coalesce(upper(c.seqs) - 1, 0)
      from changes c
    ) u
    group by u.widget_id, u.hour
    on conflict (widget_id, hour) do update set
      events_received = h.events_received + excluded.events_received, loads = h.loads + excluded.loads,
      opens = h.opens + excluded.opens, sessions = h.sessions + excluded.sessions,
      events_numbered = h.events_numbered + excluded.events_numbered,
      events_expected = h.events_expected + excluded.events_expected
  )
  update widget_internal.health_state s
  set counted_to = v_until.counted_to, counted_to_id = v_until.counted_to_id
  returning (select coalesce(sum(n.events), 0) from new n) into v_events;
  return v_events;
end
$$;

comment on function widget_internal.count_health_part(timestamptz) is
  'Counts the next 10,000 events; or those up to the cut-off, or within seven days of the first, if these are fewer. Says '
  'how many these were.';
