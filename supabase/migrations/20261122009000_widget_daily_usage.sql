-- A usage page asks for sums that are small however many calls there are: by day, and month against month.

create function public.widget_daily_usage(
  period_start timestamptz, period_end timestamptz, only_widget uuid default null
)
returns table (
  day date, calls bigint, billable_seconds numeric,
  observed_calls bigint, observed_seconds numeric, provider_calls bigint, provider_seconds numeric,
  operator_calls bigint, operator_seconds numeric, heartbeat_calls bigint, heartbeat_seconds numeric,
  assumed_calls bigint, assumed_seconds numeric, open_calls bigint, failed_calls bigint
)
language plpgsql stable
set search_path = ''
as $$
declare
  v_zone constant text := (select s.billing_time_zone from widget_internal.settings s);
begin
  perform widget_internal.refuse_archived_period(widget_daily_usage.period_start);
  return query
  with parts as (
    select
      (r.started_at at time zone v_zone)::date as day, r.outcome, r.evidence,
      count(*) as calls, sum(r.billable_seconds) as seconds
    from widget_internal.priced_calls(widget_daily_usage.period_start, widget_daily_usage.period_end, null) r
    where widget_daily_usage.only_widget is null or r.widget_id = widget_daily_usage.only_widget
    group by 1, 2, 3
  )
  select
    p.day, sum(p.calls)::bigint, sum(p.seconds),
    coalesce(sum(p.calls) filter (where p.evidence = 'observed'), 0)::bigint,
    coalesce(sum(p.seconds) filter (where p.evidence = 'observed'), 0),
    coalesce(sum(p.calls) filter (where p.evidence = 'provider'), 0)::bigint,
    coalesce(sum(p.seconds) filter (where p.evidence = 'provider'), 0),
    coalesce(sum(p.calls) filter (where p.evidence = 'operator'), 0)::bigint,
    coalesce(sum(p.seconds) filter (where p.evidence = 'operator'), 0),
    coalesce(sum(p.calls) filter (where p.evidence = 'heartbeat'), 0)::bigint,
    coalesce(sum(p.seconds) filter (where p.evidence = 'heartbeat'), 0),
    coalesce(sum(p.calls) filter (where p.evidence = 'assumed'), 0)::bigint,
    coalesce(sum(p.seconds) filter (where p.evidence = 'assumed'), 0),
    coalesce(sum(p.calls) filter (where p.outcome = 'open'), 0)::bigint,
    coalesce(sum(p.calls) filter (where p.outcome = 'failed'), 0)::bigint
  from parts p
  group by p.day
  order by p.day;
end
$$;

comment on function public.widget_daily_usage(timestamptz, timestamptz, uuid) is
  'widget_billing_usage() by day instead of by widget: one row for each day of the billing time zone that has calls. '
  'only_widget: of that widget alone; left out: of all that the caller may see.';


create function public.widget_month_to_date(only_widget uuid default null)
returns table (
  month date, period_start timestamptz, period_end timestamptz, to_date_end timestamptz,
  calls bigint, billable_seconds numeric, amounts jsonb,
  calls_to_date bigint, billable_seconds_to_date numeric
)
language plpgsql stable
set search_path = ''
as $$
begin
  return query
  with bounds as (
    select m.month::date, b.period_start, b.period_end, n.age
    from widget_internal.settings s
    cross join lateral (
      select now() - date_trunc('month', now(), s.billing_time_zone) as age,
        date_trunc('month', now() at time zone s.billing_time_zone) as this_month
    ) n
    cross join lateral unnest(array[n.this_month - interval '1 month', n.this_month]) m (month)
    cross join lateral widget_internal.month_bounds(m.month::date) b
  ),
  sums as (
    select
      r.month, r.widget_id, count(*) as calls, sum(r.billable_seconds) as seconds,
      count(*) filter (where r.started_at < b.period_start + b.age) as calls_to_date,
      sum(r.billable_seconds) filter (where r.started_at < b.period_start + b.age) as seconds_to_date
    from widget_internal.priced_calls(
      (select min(b.period_start) from bounds b), (select max(b.period_end) from bounds b), null
    ) r
    join bounds b on b.month = r.month
    where widget_month_to_date.only_widget is null or r.widget_id = widget_month_to_date.only_widget
    group by r.month, r.widget_id
  ),
  -- Each widget by its own plan: included seconds and the rounding of money are a widget's.
  charges as (
    select s.*, (v.plan).currency, widget_internal.charge(s.seconds, v.plan) as amount
    from sums s
    left join widget_internal.plan_validity v
      on v.widget_id = s.widget_id and s.month >= v.valid_from and s.month < v.valid_until
  ),
  amounts as (
    select a.month, jsonb_object_agg(a.currency, a.amount) as amounts
    from (
      select c.month, c.currency, sum(c.amount) as amount
      from charges c
      where c.currency is not null
      group by c.month, c.currency
    ) a
    group by a.month
  )
  select
    b.month, b.period_start, b.period_end, least(b.period_start + b.age, b.period_end),
    coalesce(sum(c.calls), 0)::bigint, coalesce(sum(c.seconds), 0), coalesce(a.amounts, '{}'),
    coalesce(sum(c.calls_to_date), 0)::bigint, coalesce(sum(c.seconds_to_date), 0)
  from bounds b
  left join charges c on c.month = b.month
  left join amounts a on a.month = b.month
  group by b.month, b.period_start, b.period_end, b.age, a.amounts
  order by b.month;
end
$$;

comment on function public.widget_month_to_date(uuid) is
  'Last month and this one, as billed by now: calls, billable seconds, and amounts by currency of the widgets that have a '
  'plan; of all that the caller may see or of only_widget. …_to_date: those of the month up to to_date_end, as far into it '
  'as this month is now, so that the two compare.';

revoke all on function public.widget_daily_usage(timestamptz, timestamptz, uuid)
  from public, anon, authenticated, service_role;
revoke all on function public.widget_month_to_date(uuid) from public, anon, authenticated, service_role;
grant execute on function public.widget_daily_usage(timestamptz, timestamptz, uuid) to authenticated;
grant execute on function public.widget_month_to_date(uuid) to authenticated;
