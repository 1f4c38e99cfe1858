-- One definition of "not well" for the terminal, monitors and alerts alike.

create function public.widget_rates(since timestamptz)
returns table (
  widget_id uuid, events_received bigint, events_numbered bigint, events_expected bigint, delivery_rate numeric,
  calls_started bigint, calls_open bigint, calls_observed bigint, completion_rate numeric,
  orphan_ends bigint, refusals bigint, response_ms_median integer, response_ms_p95 integer
)
language plpgsql stable
set search_path = ''
as $$
#variable_conflict use_column
declare
  v_since constant timestamptz := date_trunc('hour', widget_rates.since, 'UTC');
begin
  return query
  with rates as (
    select
      h.widget_id, coalesce(sum(h.events_received), 0)::bigint as events_received,
      coalesce(sum(h.events_numbered), 0)::bigint as events_numbered,
      coalesce(sum(h.events_expected), 0)::bigint as events_expected,
      coalesce(sum(h.calls_started), 0)::bigint as calls_started, coalesce(sum(h.calls_open), 0)::bigint as calls_open,
      coalesce(sum(h.calls_observed + h.calls_provider + h.calls_operator), 0)::bigint as calls_observed,
      coalesce(sum(h.orphan_ends), 0)::bigint as orphan_ends, coalesce(sum(h.refusals), 0)::bigint as refusals
    from public.widget_health h
    where h.hour >= v_since
    group by grouping sets ((), (h.widget_id))
  ),
  -- All in one pass: widget by widget it would be read as often as there are widgets.
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
    round(power(1.1::double precision, t.median - 0.5))::integer, round(power(1.1::double precision, t.p95 - 0.5))::integer
  from rates r
  -- No widget: all of them.
  left join response_times t on coalesce(t.widget_id::text, '') = coalesce(r.widget_id::text, '');
end
$$;

comment on function public.widget_rates(timestamptz) is
  'widget_health summed up from the hour of that moment on: a row for each widget, and one with no widget_id for all of '
  'them. completion_rate leaves calls out that are still open, unlike widget_health; calls_observed counts ends that '
  'browser, server, provider or operator reported. Good: delivery_rate above 0.99, completion_rate above 0.95.';

revoke all on function public.widget_rates(timestamptz) from public, anon, authenticated, service_role;
grant execute on function public.widget_rates(timestamptz) to authenticated, service_role;


create function public.widget_alarms(
  min_delivery_rate numeric default 0.95, min_completion_rate numeric default 0.8, min_cases integer default 20,
  period interval default '24 hours'
)
returns table (alarm text, widget_id uuid, message text)
language plpgsql stable
set search_path = ''
as $$
#variable_conflict use_column
declare
  v_run public.widget_cleanup_runs;
  v_counted_to timestamptz;
begin
  select r.* into v_run from public.widget_cleanup_runs r order by r.id desc limit 1;
  if v_run.started_at is null or v_run.started_at < now() - interval '35 minutes' then
    return query select 'cleanup_late', null::uuid, format(
      'the cleanup is late, it should run every 30 minutes and last ran %s: look at cron.job_run_details, or at '
      'whatever calls the Edge Function',
      coalesce('at ' || to_char(v_run.started_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI') || ' UTC', 'never')
    );
  end if;
  if v_run.error is not null then
    return query select 'cleanup_failed', null::uuid, 'the last cleanup failed: ' || v_run.error;
  end if;

  select s.counted_to into v_counted_to from widget_internal.health_state s;
  if v_counted_to < now() - interval '20 minutes' then
    return query select 'health_late', null::uuid,
      'health is not counted, refresh_widget_health() should run every 5 minutes: look at cron.job_run_details';
  end if;

  return query
  with rates as materialized (select r.* from public.widget_rates(now() - widget_alarms.period) r)
  select 'delivery_low', r.widget_id, format(
    '%s: %s %% of the events arrived, expected at least %s %%', coalesce('widget ' || r.widget_id, 'all widgets'),
    round(100 * r.delivery_rate, 1), round(100 * widget_alarms.min_delivery_rate, 1)
  )
  from rates r
  where r.events_expected >= widget_alarms.min_cases and r.delivery_rate < widget_alarms.min_delivery_rate
  union all
  select 'completion_low', r.widget_id, format(
    '%s: %s %% of the calls that are over ended as somebody observed, expected at least %s %%',
    coalesce('widget ' || r.widget_id, 'all widgets'),
    round(100 * r.completion_rate, 1), round(100 * widget_alarms.min_completion_rate, 1)
  )
  from rates r
  where r.calls_started - r.calls_open >= widget_alarms.min_cases
    and r.completion_rate < widget_alarms.min_completion_rate
  order by 1 desc, 2 nulls first;
end
$$;

comment on function public.widget_alarms(numeric, numeric, integer, interval) is
  'What is not well: cleanup_late, cleanup_failed, health_late, and for each widget, and all of them together (no '
  'widget_id), delivery_low and completion_low, of the last 24 hours, where there were at least min_cases events '
  'expected, or calls that are over. Good: no rows.';

revoke all on function public.widget_alarms(numeric, numeric, integer, interval)
  from public, anon, authenticated, service_role;
grant execute on function public.widget_alarms(numeric, numeric, integer, interval) to service_role;
