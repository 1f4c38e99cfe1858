-- The owners' page asks for sums that are small however many calls there are: by day, and month against month.

create function public.widget_daily_usage(
  period_start timestamptz, period_end timestamptz, only_widget uuid default null
)
returns table (
  day date, calls bigint, billable_seconds numeric,
  observed_calls bigint, observed_seconds numeric, provider_calls bigint, provider_seconds numeric,
  operator_calls bigint, operator_seconds numeric, heartbeat_calls bigint, heartbeat_seconds numeric,
  assumed_calls bigint, assumed_seconds numeric, open_calls bigint, failed_calls bigint
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
-- What a bill is made of is estimated at many times its rows, and compiling it takes a second.
set jit = off
as $$
declare
  v_zone constant text := (select s.billing_time_zone from widget_internal.settings s);
begin
  return query
  select
    (c.started_at at time zone v_zone)::date, count(*), sum(c.billable_seconds),
    count(*) filter (where c.evidence = 'observed'),
    coalesce(sum(c.billable_seconds) filter (where c.evidence = 'observed'), 0),
    count(*) filter (where c.evidence = 'provider'),
    coalesce(sum(c.billable_seconds) filter (where c.evidence = 'provider'), 0),
    count(*) filter (where c.evidence = 'operator'),
    coalesce(sum(c.billable_seconds) filter (where c.evidence = 'operator'), 0),
    count(*) filter (where c.evidence = 'heartbeat'),
    coalesce(sum(c.billable_seconds) filter (where c.evidence = 'heartbeat'), 0),
    count(*) filter (where c.evidence = 'assumed'),
    coalesce(sum(c.billable_seconds) filter (where c.evidence = 'assumed'), 0),
    count(*) filter (where c.outcome = 'open'), count(*) filter (where c.outcome = 'failed')
  from public.widget_billing_calls(
    widget_daily_usage.period_start, widget_daily_usage.period_end, only_widget => widget_daily_usage.only_widget
  ) c
  group by 1
  order by 1;
end
$$;

comment on function public.widget_daily_usage(timestamptz, timestamptz, uuid) is
  'widget_billing_usage() by day instead of by widget: one row for each day of the billing time zone that has calls. '
  'only_widget: of that widget alone; left out: of all that the caller may see.';


create function public.widget_month_to_date(only_widget uuid default null)
returns table (
  month date, period_start timestamptz, period_end timestamptz, to_date_end timestamptz,
  calls bigint, billable_seconds numeric, amounts jsonb,
  calls_to_date bigint, billable_seconds_to_date numeric, is_closed boolean
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
-- What a bill is made of is estimated at many times its rows, and compiling it takes a second.
set jit = off
as $$
declare
  v_month constant date := widget_internal.month_of(now());
  v_age constant interval := now() - widget_internal.month_start(v_month);
begin
  return query
  select b.month, b.period_start, b.period_end, b.to_date_end, u.calls, u.seconds, u.amounts, t.calls, t.seconds,
    b.month in (select c.month from widget_internal.closed_months() c)
  from (
    select m.month::date, s.at as period_start, e.at as period_end, least(s.at + v_age, e.at) as to_date_end
    from unnest(array[(v_month - interval '1 month')::date, v_month]) m (month)
    cross join lateral widget_internal.month_start(m.month) s (at)
    cross join lateral widget_internal.month_start(m.month + interval '1 month') e (at)
  ) b
  cross join lateral (
    select coalesce(sum(c.calls), 0)::bigint as calls, coalesce(sum(c.seconds), 0) as seconds,
      coalesce(jsonb_object_agg(c.currency, c.amount) filter (where c.currency is not null), '{}') as amounts
    from (
      select w.currency, sum(w.calls) as calls, sum(w.billable_seconds) as seconds, sum(w.amount) as amount
      from public.widget_billing_usage(
        b.period_start, b.period_end, only_widget => widget_month_to_date.only_widget
      ) w
      group by w.currency
    ) c
  ) u
  cross join lateral (
    select coalesce(sum(w.calls), 0)::bigint as calls, coalesce(sum(w.billable_seconds), 0) as seconds
    from public.widget_billing_usage(
      b.period_start, greatest(b.to_date_end, b.period_start + interval '1 microsecond'),
      only_widget => widget_month_to_date.only_widget
    ) w
  ) t
  order by b.month;
end
$$;

comment on function public.widget_month_to_date(uuid) is
  'Last month and this one, as billed by now: calls, billable seconds, and amounts by currency of the widgets that have a '
  'plan; of all that the caller may see or of only_widget. …_to_date: those of the month up to to_date_end, as far into it '
  'as this month is now, so that the two compare.';
