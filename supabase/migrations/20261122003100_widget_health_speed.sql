-- Reading a month of many widgets by the hour took half a second: what the reader ranked is ranked once, by the refresh.

alter table widget_internal.health_hours add column response_ms_median integer, add column response_ms_p95 integer;


create or replace view public.widget_response_times with (security_invoker = true) as
  select r.widget_id, r.hour, round(power(1.1::double precision, r.bucket - 0.5))::integer as milliseconds, r.answers
  from widget_internal.health_response_times r;


create function widget_internal.rank_response_times(received_after timestamptz, received_to timestamptz)
returns void
language plpgsql volatile
set search_path = ''
as $$
begin
  update widget_internal.health_hours h
  set response_ms_median = q.median, response_ms_p95 = q.p95
  from (
    select distinct e.widget_id, date_trunc('hour', e."timestamp", 'UTC') as hour
    from public.widget_analytics e
    where e.received_at > rank_response_times.received_after
      and e.received_at <= rank_response_times.received_to
      and e.properties ? 'rtt_ms'
  ) d
  cross join lateral (
    select
      min(t.milliseconds) filter (where t.up_to >= 0.5 * t.all_of_them) as median,
      min(t.milliseconds) filter (where t.up_to >= 0.95 * t.all_of_them) as p95
    from (
      select
        r.milliseconds, sum(r.answers) over (order by r.milliseconds) as up_to, sum(r.answers) over () as all_of_them
      from public.widget_response_times r
      where r.widget_id = d.widget_id and r.hour = d.hour
    ) t
  ) q
  where h.widget_id = d.widget_id and h.hour = d.hour;
end
$$;

comment on function widget_internal.rank_response_times(timestamptz, timestamptz) is
  'Median and 95th percentile of the hours of which response times were received in (received_after, received_to].';

revoke all on function widget_internal.rank_response_times(timestamptz, timestamptz)
  from public, anon, authenticated, service_role;


create or replace function public.refresh_widget_health(out counted_to timestamptz, out events_counted bigint)
language plpgsql volatile
-- definer because service_role has no right to write the counts
security definer
set search_path = ''
as $$
declare
  v_from timestamptz;
begin
  -- One refresh at a time: the next one goes on where this one ends.
  select s.counted_to into v_from from widget_internal.health_state s for update;
  refresh_widget_health.counted_to := widget_internal.cut_off();
  refresh_widget_health.events_counted := widget_internal.count_events(v_from, refresh_widget_health.counted_to);
  if refresh_widget_health.events_counted > 0 then
    perform widget_internal.rank_response_times(v_from, refresh_widget_health.counted_to);
    perform widget_internal.count_sessions(v_from, refresh_widget_health.counted_to);
  end if;
  update widget_internal.health_state s set counted_to = refresh_widget_health.counted_to;
end
$$;


create or replace view public.widget_health with (security_invoker = true) as
  with counts as (
    select
      h.widget_id, h.hour, h.events_received, h.loads, h.opens, h.sessions, h.events_numbered, h.events_expected,
      h.orphan_ends, 0::bigint as calls_started, 0::bigint as calls_open, 0::bigint as calls_observed,
      0::bigint as calls_provider, 0::bigint as calls_operator, 0::bigint as calls_heartbeat, 0::bigint as calls_assumed,
      0::bigint as calls_failed, 0::bigint as refusals, h.response_ms_median, h.response_ms_p95
    from widget_internal.health_hours h
    union all
    select
      c.widget_id, c.hour, 0, 0, 0, 0, 0, 0, 0, c.calls_started, c.calls_open, c.calls_observed, c.calls_provider,
      c.calls_operator, c.calls_heartbeat, c.calls_assumed, c.calls_failed, 0, null, null
    from widget_internal.health_calls c
    union all
    select r.widget_id, r.hour, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, r.refusals, null, null
    from widget_internal.refusal_counts r
    where r.widget_id is not null
  ),
  -- Of all but refusals there is one row at most for each hour, so the greatest is it, and costs less than a sum.
  hours as (
    select
      c.widget_id, c.hour,
      max(c.events_received) as events_received,
      max(c.loads) as loads,
      max(c.opens) as opens,
      max(c.sessions) as sessions,
      max(c.events_numbered) as events_numbered,
      max(c.events_expected) as events_expected,
      max(c.orphan_ends) as orphan_ends,
      max(c.calls_started) as calls_started,
      max(c.calls_open) as calls_open,
      max(c.calls_observed) as calls_observed,
      max(c.calls_provider) as calls_provider,
      max(c.calls_operator) as calls_operator,
      max(c.calls_heartbeat) as calls_heartbeat,
      max(c.calls_assumed) as calls_assumed,
      max(c.calls_failed) as calls_failed,
      sum(c.refusals)::bigint as refusals,
      max(c.response_ms_median) as response_ms_median,
      max(c.response_ms_p95) as response_ms_p95
    from counts c
    group by c.widget_id, c.hour
  )
  select
    h.widget_id, h.hour, h.events_received, h.sessions, h.events_numbered, h.events_expected,
    round(h.events_numbered::numeric / nullif(h.events_expected, 0), 6) as delivery_rate,
    h.loads, h.opens, h.calls_started, h.calls_open, h.calls_observed, h.calls_provider, h.calls_operator,
    h.calls_heartbeat, h.calls_assumed, h.calls_failed,
    round((h.calls_observed + h.calls_provider + h.calls_operator)::numeric / nullif(h.calls_started, 0), 6)
      as completion_rate,
    h.orphan_ends, h.refusals, h.response_ms_median, h.response_ms_p95, s.counted_to as as_of
  from hours h
  cross join widget_internal.health_state s
  -- A session that turns out to have begun earlier may leave nothing behind.
  where h.events_received + h.sessions + h.calls_started + h.refusals > 0;


create or replace function widget_internal.response_time(widget_id uuid, since timestamptz, share numeric)
returns integer
language plpgsql stable
set search_path = ''
as $$
begin
  return (
    select round(power(1.1, t.bucket - 0.5))
    from (
      select
        r.bucket, sum(sum(r.answers)) over (order by r.bucket) as up_to, sum(sum(r.answers)) over () as all_of_them
      from widget_internal.health_response_times r
      where r.hour >= response_time.since
        and (response_time.widget_id is null or r.widget_id = response_time.widget_id)
      group by r.bucket
    ) t
    where t.up_to >= response_time.share * t.all_of_them
    order by t.bucket
    limit 1
  );
end
$$;


-- Also where there is nothing to sum up.
create or replace function public.widget_rates(since timestamptz)
returns table (
  widget_id uuid, events_received bigint, events_numbered bigint, events_expected bigint, delivery_rate numeric,
  calls_started bigint, calls_open bigint, calls_observed bigint, completion_rate numeric,
  orphan_ends bigint, refusals bigint, response_ms_median integer, response_ms_p95 integer
)
language plpgsql stable
set search_path = ''
as $$
#variable_conflict use_column
begin
  return query
  select
    h.widget_id, coalesce(sum(h.events_received), 0)::bigint, coalesce(sum(h.events_numbered), 0)::bigint,
    coalesce(sum(h.events_expected), 0)::bigint,
    round(sum(h.events_numbered) / nullif(sum(h.events_expected), 0), 6),
    coalesce(sum(h.calls_started), 0)::bigint, coalesce(sum(h.calls_open), 0)::bigint,
    coalesce(sum(h.calls_observed + h.calls_provider + h.calls_operator), 0)::bigint,
    round(sum(h.calls_observed + h.calls_provider + h.calls_operator) / nullif(sum(h.calls_started - h.calls_open), 0), 6),
    coalesce(sum(h.orphan_ends), 0)::bigint, coalesce(sum(h.refusals), 0)::bigint,
    widget_internal.response_time(h.widget_id, date_trunc('hour', widget_rates.since, 'UTC'), 0.5),
    widget_internal.response_time(h.widget_id, date_trunc('hour', widget_rates.since, 'UTC'), 0.95)
  from public.widget_health h
  where h.hour >= date_trunc('hour', widget_rates.since, 'UTC')
  group by grouping sets ((), (h.widget_id));
end
$$;


-- Logarithms of numerics took a third of the time.
create or replace function widget_internal.count_events(received_after timestamptz, received_to timestamptz)
returns bigint
language plpgsql volatile
set search_path = ''
as $$
declare
  v_events bigint;
begin
  with new as materialized (
    select
      e.widget_id, e.event_type, date_trunc('hour', e."timestamp", 'UTC') as hour,
      case when e.source = 'browser' and jsonb_typeof(e.properties -> 'rtt_ms') = 'number'
        then (e.properties ->> 'rtt_ms')::numeric end as response_ms
    from public.widget_analytics e
    where e.received_at > count_events.received_after and e.received_at <= count_events.received_to
  ),
  hours as (
    insert into widget_internal.health_hours as h (widget_id, hour, events_received, loads, opens)
    select
      n.widget_id, n.hour, count(*),
      count(*) filter (where n.event_type = 'widget_load'), count(*) filter (where n.event_type = 'widget_open')
    from new n
    group by n.widget_id, n.hour
    on conflict on constraint health_hours_pkey do update set
      events_received = h.events_received + excluded.events_received,
      loads = h.loads + excluded.loads, opens = h.opens + excluded.opens
  ),
  response_times as (
    insert into widget_internal.health_response_times as r (widget_id, hour, bucket, answers)
    select n.widget_id, n.hour, ceil(ln(greatest(n.response_ms, 1)::double precision) / ln(1.1::double precision)), count(*)
    from new n
    -- Ten minutes: no sender waits longer, and what says so is made up.
    where n.response_ms between 0 and 600000
    group by 1, 2, 3
    on conflict on constraint health_response_times_pkey do update set answers = r.answers + excluded.answers
  )
  select count(*) into v_events from new;
  return v_events;
end
$$;
