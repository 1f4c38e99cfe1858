-- The owners' page shows what each widget's plan makes of this month, and the closed months' statements.

create function public.widget_plan_usage(only_widget uuid default null)
returns table (
  widget_id uuid, plan text, monthly_fee numeric, price_per_minute numeric, currency text, included_seconds integer,
  billable_seconds numeric, assumed_seconds numeric, amount numeric, forecast_seconds numeric, forecast_amount numeric
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
-- What a bill is made of is estimated at many times its rows, and compiling it takes a second.
set jit = off
as $$
declare
  v_month constant date := widget_internal.month_of(now());
  v_start constant timestamptz := widget_internal.month_start(v_month);
  v_end constant timestamptz := widget_internal.month_start(v_month + interval '1 month');
  -- A month's first day says little about the others.
  v_scale constant numeric := case when now() >= v_start + interval '1 day'
    then extract(epoch from v_end - v_start) / extract(epoch from now() - v_start) end;
begin
  return query
  select
    coalesce(p.widget_id, u.widget_id), p.name, p.monthly_fee, p.price_per_minute, p.currency, p.included_seconds,
    s.seconds, coalesce(u.assumed_seconds, 0),
    case when p.widget_id is not null then coalesce(u.amount, widget_internal.charge(0, p.plan)) end,
    f.seconds, case when f.seconds is not null then widget_internal.charge(f.seconds, p.plan) end
  from (
    select l.*, l as plan
    from widget_internal.plans_in(v_month) l
    where widget_plan_usage.only_widget is null or l.widget_id = widget_plan_usage.only_widget
  ) p
  full join public.widget_billing_usage(v_start, v_end, only_widget => widget_plan_usage.only_widget) u
    on u.widget_id = p.widget_id
  cross join lateral (select coalesce(u.billable_seconds, 0) as seconds) s
  cross join lateral (select round(s.seconds * v_scale) as seconds) f
  order by 1;
end
$$;

comment on function public.widget_plan_usage(uuid) is
  'This month by widget: its plan, billable seconds so far and the amount for them, and a forecast of both for the whole '
  'month, if the rest goes as the part so far; null on a month''s first day. Rows of widgets that have a plan or calls. '
  'only_widget: of that widget alone; left out: of all that the caller may see.';


create function public.widget_statement_totals(only_widget uuid default null, only_period text default null)
returns table (
  period date, currency text, closed_at timestamptz, widgets bigint, seconds numeric, amount numeric,
  adjusted_seconds numeric, adjusted_amount numeric, assumed_seconds numeric
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_period constant date := case when widget_statement_totals.only_period is not null
    then widget_internal.to_month(widget_statement_totals.only_period) end;
begin
  return query
  select
    c.period, c.currency, p.closed_at, count(distinct c.widget_id),
    coalesce(sum(c.difference_seconds) filter (where c.usage_period = c.period), 0),
    sum(c.difference_amount) filter (where c.usage_period = c.period),
    coalesce(sum(c.difference_seconds) filter (where c.usage_period < c.period), 0),
    sum(c.difference_amount) filter (where c.usage_period < c.period),
    sum(a.seconds)
  from public.widget_statement_charges c
  join public.widget_billing_periods p on p.period = c.period
  left join lateral (
    select coalesce(sum(l.new_seconds), 0) as seconds
    from public.widget_statement_lines l
    where c.usage_period = c.period and l.evidence = 'assumed'
      and l.period = c.period and l.widget_id = c.widget_id and l.usage_period = c.usage_period
  ) a on v_period is not null
  where (v_period is null or c.period = v_period)
    and (widget_statement_totals.only_widget is null or c.widget_id = widget_statement_totals.only_widget)
  group by c.period, c.currency, p.closed_at
  order by c.period desc, c.currency;
end
$$;

comment on function public.widget_statement_totals(uuid, text) is
  'The closed months, latest first, one row for each currency (null: widgets without a plan): the month''s own seconds '
  'and amount, and adjusted_…: the adjustments of earlier months on its statement. What is to be paid is the sum of both '
  'amounts. only_period: of that month (2026-10) alone, with assumed_seconds, those of its calls whose end was assumed.';
