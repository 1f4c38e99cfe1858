-- A bill's sums by widget. Amounts of a part of a month are the month to date at its end less the month to date at its
-- start, so that parts add up to the month.

create function public.widget_billing_usage(
  period_start timestamptz, period_end timestamptz, as_of timestamptz default null, only_widget uuid default null,
  what_if jsonb default null
)
returns table (
  widget_id uuid, calls bigint, billable_seconds numeric,
  observed_calls bigint, observed_seconds numeric, provider_calls bigint, provider_seconds numeric,
  operator_calls bigint, operator_seconds numeric, heartbeat_calls bigint, heartbeat_seconds numeric,
  assumed_calls bigint, assumed_seconds numeric, open_calls bigint, failed_calls bigint,
  charged_seconds numeric, amount numeric, currency text, fees numeric,
  months bigint, closed_months bigint, pending_calls bigint, pending_seconds numeric, pending_amount numeric,
  is_closed boolean
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
-- Set-returning functions are estimated at many times their rows, and compiling the plan takes a second.
set jit = off
as $$
declare
  v_unknown constant text := (
    select string_agg(k.key, ', ' order by k.key)
    from jsonb_object_keys(widget_billing_usage.what_if) k (key)
    where k.key not in (select a.attname from pg_attribute a where a.attrelid = 'public.widget_plans'::regclass)
  );
begin
  if v_unknown is not null then
    raise exception 'what_if: widget_plans has no column %', v_unknown using errcode = 'invalid_parameter_value';
  end if;
  return query
  with months as materialized (
    select m.* from widget_internal.billing_months(
      widget_billing_usage.period_start, widget_billing_usage.period_end,
      widget_billing_usage.as_of is null and widget_billing_usage.what_if is null
    ) m
  ),
  -- The calls from the first instant of each month that the period touches to the end of the period. is_before: those
  -- before the period, which its amounts rest on.
  parts (month, widget_id, outcome, evidence, is_before, calls, seconds, pending_calls, pending_seconds) as materialized (
    select m.month, r.widget_id, r.outcome, r.evidence, r.is_before, r.calls, r.billable_seconds, 0::bigint, 0::numeric
    from months m
    cross join lateral widget_internal.priced_calls(
      m.month, m.month_start, m.to_at, widget_billing_usage.as_of, widget_billing_usage.only_widget, true, m.from_at,
      widget_billing_usage.what_if
    ) r
    where not m.is_closed
    union all
    select m.month, l.widget_id, l.outcome, l.evidence, l.started_at < m.from_at, count(*), sum(l.new_seconds), 0, 0
    from months m
    cross join lateral widget_internal.billed_calls(m.month, m.month_start, m.to_at, widget_billing_usage.only_widget) l
    where m.is_closed and l.outcome is not null
    group by m.month, l.widget_id, l.outcome, l.evidence, l.started_at < m.from_at
    union all
    -- Pending: what was charged of a closed month less what its calls come to now.
    select m.month, c.widget_id, null, null, c.started_at < m.from_at, 0, 0, count(*), sum(c.new_seconds - c.old_seconds)
    from months m
    cross join lateral widget_internal.late_changes(only_month => m.month, only_widget => widget_billing_usage.only_widget) c
    where m.is_closed and c.started_at < m.to_at
    group by m.month, c.widget_id, c.started_at < m.from_at
    union all
    -- A fee is due in each month that has begun, with calls or without.
    select m.month, p.widget_id, null, null, false, 0, 0, 0, 0
    from months m
    cross join lateral widget_internal.plans_in(m.month, widget_billing_usage.what_if) p
    where p.monthly_fee > 0 and m.month_start <= least(widget_billing_usage.as_of, now())
      and (widget_billing_usage.only_widget is null or p.widget_id = widget_billing_usage.only_widget)
  ),
  plans as (
    select m.month, p.*, p as plan
    from months m
    cross join lateral widget_internal.plans_in(m.month, widget_billing_usage.what_if) p
  ),
  to_date as (
    -- At the period's end and, to be taken off, at its start: nothing at a month's first instant.
    select
      m.month, p.widget_id, e.sign, m.is_closed, m.is_closed and m.to_at = m.month_end and e.sign = 1 as is_charged,
      coalesce(sum(p.seconds) filter (where e.sign = 1 or p.is_before), 0) as seconds,
      coalesce(sum(p.seconds + p.pending_seconds) filter (where e.sign = 1 or p.is_before), 0) as with_pending
    from months m
    join parts p on p.month = m.month
    join (values (1), (-1)) e (sign) on e.sign = 1 or m.from_at > m.month_start
    group by m.month, m.is_closed, m.to_at, m.month_end, p.widget_id, e.sign
    having not bool_and(p.is_before)
  ),
  charges as (
    select
      t.widget_id, min(p.currency) as currency,
      sum(t.sign * greatest(t.seconds - coalesce(p.included_seconds, 0), 0)) as charged_seconds,
      sum(t.sign * coalesce(b.amount, widget_internal.charge(t.seconds, p.plan))) as amount,
      sum(t.sign * widget_internal.charge(t.with_pending, p.plan)) as amount_with_pending,
      sum(t.sign * round(p.monthly_fee, widget_internal.currency_decimals(p.currency))) as fees,
      -- A month without a plan has no amount, and euros are not added to dollars.
      count(p.currency) = count(*) and min(p.currency) = max(p.currency) as has_amount,
      count(*) filter (where t.sign = 1) as months, count(*) filter (where t.sign = 1 and t.is_closed) as closed_months
    from to_date t
    left join plans p on p.month = t.month and p.widget_id = t.widget_id
    left join lateral (
      select sum(s.difference_amount) as amount
      from public.widget_statement_charges s
      where t.is_charged and s.usage_period = t.month and s.widget_id = t.widget_id
    ) b on true
    group by t.widget_id
  )
  select
    r.widget_id, sum(r.calls)::bigint, sum(r.seconds),
    coalesce(sum(r.calls) filter (where r.evidence = 'observed'), 0)::bigint,
    coalesce(sum(r.seconds) filter (where r.evidence = 'observed'), 0),
    coalesce(sum(r.calls) filter (where r.evidence = 'provider'), 0)::bigint,
    coalesce(sum(r.seconds) filter (where r.evidence = 'provider'), 0),
    coalesce(sum(r.calls) filter (where r.evidence = 'operator'), 0)::bigint,
    coalesce(sum(r.seconds) filter (where r.evidence = 'operator'), 0),
    coalesce(sum(r.calls) filter (where r.evidence = 'heartbeat'), 0)::bigint,
    coalesce(sum(r.seconds) filter (where r.evidence = 'heartbeat'), 0),
    coalesce(sum(r.calls) filter (where r.evidence = 'assumed'), 0)::bigint,
    coalesce(sum(r.seconds) filter (where r.evidence = 'assumed'), 0),
    coalesce(sum(r.calls) filter (where r.outcome = 'open'), 0)::bigint,
    coalesce(sum(r.calls) filter (where r.outcome = 'failed'), 0)::bigint,
    c.charged_seconds, a.amount, a.currency, a.fees, c.months, c.closed_months,
    sum(r.pending_calls)::bigint, sum(r.pending_seconds), a.pending_amount, c.closed_months = c.months
  from parts r
  join charges c on c.widget_id = r.widget_id
  left join lateral (
    select c.amount, c.currency, c.fees, c.amount_with_pending - c.amount as pending_amount where c.has_amount
  ) a on true
  where not r.is_before
  group by r.widget_id, c.charged_seconds, a.amount, a.currency, a.fees, c.months, c.closed_months, a.pending_amount;
end
$$;

comment on function public.widget_billing_usage(timestamptz, timestamptz, timestamptz, uuid, jsonb) is
  'The sums of widget_billing_calls() per widget: all calls of the period, their billable seconds, and both by evidence. '
  'charged_seconds: month by month what exceeds the plan''s included seconds; amount: its price, rounded to the currency''s '
  'decimals, and the fees; null unless all months have a plan, and all in one currency. Of a part of a month: the month to '
  'date at its end less the month to date at its start. months: how many had calls or fees, and of these closed_months '
  'count what was charged for them (is_closed: all); pending_…: what the next statement will add to that. what_if: rates the calls, as they '
  'are now, by this draft of a plan, an object with columns of widget_plans, in place of each widget''s own.';
