-- Events are counted in the order of their receipt, in parts: each event once, and each session by the difference between
-- what it was before and what it is now. A call counts as many parts as its time allows; the next call resumes there.

create function widget_internal.response_bucket(source text, properties jsonb)
returns smallint
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_milliseconds numeric;
begin
  if response_bucket.source <> 'browser' or jsonb_typeof(response_bucket.properties -> 'rtt_ms') is distinct from 'number' then
    return null;
  end if;
  v_milliseconds := (response_bucket.properties ->> 'rtt_ms')::numeric;
  -- Ten minutes: no sender waits longer; a larger value is invented.
  if v_milliseconds between 0 and 600000 then
    return ceil(ln(greatest(v_milliseconds, 1)::float8) / ln(1.1::float8));
  end if;
  return null;
end
$$;

comment on function widget_internal.response_bucket(text, jsonb) is
  'The bucket of health_response_times in which an event counts; null where its sender names no response time.';


create function widget_internal.health_part(
  from_at timestamptz, from_id uuid, cut_off timestamptz, out to_at timestamptz, out to_id uuid
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_custom_plan
as $$
declare
  v_most constant integer := 10000;
  v_first_at timestamptz;
begin
  select min(e.received_at) into v_first_at
  from public.widget_analytics e
  where e.received_at between health_part.from_at and health_part.cut_off
    and (e.received_at, e.id) > (health_part.from_at, health_part.from_id);
  select e.received_at, e.id into to_at, to_id
  from public.widget_analytics e
  where e.received_at between v_first_at and health_part.cut_off
    and (e.received_at, e.id) > (health_part.from_at, health_part.from_id)
  order by e.received_at, e.id
  offset v_most - 1 limit 1;
  -- Within seven days no session is silent for longer than that: so each part adds to one row a session.
  if to_at is null or to_at > v_first_at + interval '7 days' then
    to_at := least(health_part.cut_off, v_first_at + interval '7 days');
    to_id := 'ffffffff-ffff-ffff-ffff-ffffffffffff';
  end if;
end
$$;

comment on function widget_internal.health_part(timestamptz, uuid, timestamptz) is
  'The end of the next part to count: its 10,000th event; or the cut-off, or seven days after its first, if sooner.';


create function widget_internal.count_health_part(from_at timestamptz, from_id uuid, to_at timestamptz, to_id uuid)
returns bigint
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_custom_plan
as $$
declare
  v_events bigint;
begin
  with new as materialized (
    select e.widget_id, e.session_id::text as session_id, e.event_type, e.source, e."timestamp"::timestamptz as at,
      e.received_at, e.seq::integer as seq, nullif(left(e.page_url, 512), '') collate "C" as page_url, e.properties
    from public.widget_analytics e
    where e.received_at between count_health_part.from_at and count_health_part.to_at
      and (e.received_at, e.id) > (count_health_part.from_at, count_health_part.from_id)
      and (e.received_at, e.id) <= (count_health_part.to_at, count_health_part.to_id)
  ),
  added as materialized (
    select
      n.widget_id, n.session_id, min(n.at) as first_at, min(n.received_at) as first_received_at,
      max(n.received_at) as last_received_at,
      -- Above ten thousand a number is a fault or a forgery, and would drown the rate of its hour.
      coalesce(range_agg(int4range(n.seq, n.seq, '[]')) filter (where n.seq <= 10000), '{}') as seqs,
      (array_agg(n.at order by n.at, n.page_url) filter (where n.page_url is not null))[1] as page_at,
      (array_agg(n.page_url order by n.at, n.page_url) filter (where n.page_url is not null))[1] as page_url,
      count(*) filter (where n.event_type = 'widget_load') as loads,
      count(*) filter (where n.event_type = 'widget_open') as opens,
      count(*) filter (where n.event_type = 'call_start') as calls
    from new n
    where n.source = 'browser'
    group by n.widget_id, n.session_id
  ),
  before as materialized (
    select s.*
    from added a
    join widget_internal.health_sessions s on s.widget_id = a.widget_id and s.session_id = a.session_id
      and s.last_received_at >= a.first_received_at - interval '7 days'
  ),
  after as materialized (
    select
      a.widget_id, a.session_id, least(a.first_at, b.first_at) as first_at, a.last_received_at,
      a.seqs + coalesce(b.seqs, '{}') as seqs,
      case when p.is_earlier then a.page_at else b.page_at end as page_at,
      coalesce(case when p.is_earlier then a.page_url else b.page_url end, '') as page_url,
      a.loads + coalesce(b.loads, 0) as loads, a.opens + coalesce(b.opens, 0) as opens, a.calls + coalesce(b.calls, 0) as calls
    from added a
    left join before b on b.widget_id = a.widget_id and b.session_id = a.session_id
    cross join lateral (
      select b.page_at is null or (a.page_at, a.page_url) < (b.page_at, b.page_url) as is_earlier
    ) p
  ),
  kept as (
    insert into widget_internal.health_sessions as s select a.* from after a
    on conflict (widget_id, session_id) do update set
      first_at = excluded.first_at, last_received_at = excluded.last_received_at, seqs = excluded.seqs,
      page_at = excluded.page_at, page_url = excluded.page_url,
      loads = excluded.loads, opens = excluded.opens, calls = excluded.calls
  ),
  changes as materialized (select 1 as sign, a.* from after a union all select -1, b.* from before b),
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
    select n.widget_id, date_trunc('hour', n.at, 'UTC'), b.bucket, count(*)
    from new n
    cross join lateral widget_internal.response_bucket(n.source, n.properties) b (bucket)
    where b.bucket is not null
    group by 1, 2, 3
    on conflict (widget_id, hour, bucket) do update set answers = r.answers + excluded.answers
  ),
  hours as (
    insert into widget_internal.health_hours as h (
      widget_id, hour, events_received, loads, opens, sessions, events_numbered, events_expected
    )
    select u.widget_id, u.hour, sum(u.events), sum(u.loads), sum(u.opens), sum(u.sessions), sum(u.numbered), sum(u.expected)
    from (
      select
        n.widget_id, date_trunc('hour', n.at, 'UTC') as hour, 1 as events, (n.event_type = 'widget_load')::integer as loads,
        (n.event_type = 'widget_open')::integer as opens, 0 as sessions, 0 as numbered, 0 as expected
      from new n
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
  select count(*) into v_events from new;
  return v_events;
end
$$;

comment on function widget_internal.count_health_part(timestamptz, uuid, timestamptz, uuid) is
  'Counts the events received after one moment and up to another (at equal moments: by id), and says how many these were.';
