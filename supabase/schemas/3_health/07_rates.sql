-- Health summed up over a period: what the command, monitors and alarms judge by.

create function public.widget_rates(since timestamptz)
returns table (
  widget_id uuid, events_received bigint, events_numbered bigint, events_expected bigint, delivery_rate numeric,
  calls_started bigint, calls_open bigint, calls_observed bigint, completion_rate numeric,
  orphan_ends bigint, refusals bigint, response_ms_median integer, response_ms_p95 integer
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_custom_plan
as $$
#variable_conflict use_column
declare
  v_since constant timestamptz := date_trunc('hour', widget_rates.since, 'UTC');
begin
  return query
  with counts as (
    select h.widget_id, h.events_received, h.events_numbered, h.events_expected, 0::bigint as calls_started,
      0::bigint as calls_open, 0::bigint as calls_observed, 0::bigint as orphan_ends, 0::bigint as refusals
    from widget_internal.health_hours h where h.hour >= v_since
    union all
    select c.widget_id, 0, 0, 0, count(*), count(*) filter (where c.outcome = 'open'),
      count(*) filter (where c.evidence in ('observed', 'provider', 'operator')), 0, 0
    from widget_internal.call_states c where c.started_at >= v_since
    group by c.widget_id
    union all
    select o.widget_id, 0, 0, 0, 0, 0, 0, 1, 0
    from widget_internal.call_states o
    where o.started_at is null and o.end_claim is not null and o.last_event_at >= v_since
    union all
    select r.widget_id, 0, 0, 0, 0, 0, 0, 0, r.refusals
    from widget_internal.refusal_counts r
    where r.hour >= v_since and r.widget_id <> '00000000-0000-0000-0000-000000000000'
  ),
  rates as (
    select
      c.widget_id, coalesce(sum(c.events_received), 0)::bigint as events_received,
      coalesce(sum(c.events_numbered), 0)::bigint as events_numbered,
      coalesce(sum(c.events_expected), 0)::bigint as events_expected,
      coalesce(sum(c.calls_started), 0)::bigint as calls_started, coalesce(sum(c.calls_open), 0)::bigint as calls_open,
      coalesce(sum(c.calls_observed), 0)::bigint as calls_observed,
      coalesce(sum(c.orphan_ends), 0)::bigint as orphan_ends, coalesce(sum(c.refusals), 0)::bigint as refusals
    from counts c
    group by grouping sets ((), (c.widget_id))
  ),
  answers as (
    select
      r.widget_id, r.bucket, sum(sum(r.answers)) over (partition by r.widget_id order by r.bucket) as up_to,
      sum(sum(r.answers)) over (partition by r.widget_id) as all_of_them
    from widget_internal.health_response_times r
    where r.hour >= v_since
    group by grouping sets ((r.bucket), (r.widget_id, r.bucket))
  ),
  response_times as (
    select
      a.widget_id, min(a.bucket) filter (where a.up_to >= 0.5 * a.all_of_them) as median,
      min(a.bucket) filter (where a.up_to >= 0.95 * a.all_of_them) as p95
    from answers a
    group by a.widget_id
  )
  select
    r.widget_id, r.events_received, r.events_numbered, r.events_expected,
    round(r.events_numbered::numeric / nullif(r.events_expected, 0), 6),
    r.calls_started, r.calls_open, r.calls_observed,
    round(r.calls_observed::numeric / nullif(r.calls_started - r.calls_open, 0), 6), r.orphan_ends, r.refusals,
    round(power(1.1::float8, t.median - 0.5))::integer, round(power(1.1::float8, t.p95 - 0.5))::integer
  from rates r
  -- No widget: all of them.
  left join response_times t on coalesce(t.widget_id::text, '') = coalesce(r.widget_id::text, '');
end
$$;

comment on function public.widget_rates(timestamptz) is
  'widget_health summed up from the hour of that moment on: a row for each widget, and one with no widget_id for all of '
  'them. completion_rate leaves calls out that are still open, unlike widget_health; calls_observed counts ends that '
  'browser, server, provider or operator reported. Good: delivery_rate above 0.99, completion_rate above 0.95.';
