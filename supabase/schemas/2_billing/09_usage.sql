-- A bill's sums by widget. Amounts of a part of a month are the month to date at its end less the month to date at its
-- start, so that parts add up to the month.

create function widget_internal.usage_parts(
  period_start timestamptz, period_end timestamptz, as_of timestamptz, only_widget uuid
)
returns table (
  month date, widget_id uuid, outcome text, evidence text, is_before boolean, calls bigint, seconds numeric,
  pending_calls bigint, pending_seconds numeric
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  with months as materialized (
    select m.* from widget_internal.bill_months(usage_parts.period_start, usage_parts.period_end, usage_parts.as_of) m
  )
  select m.month, r.widget_id, r.outcome, r.evidence, r.is_before, r.calls, r.billable_seconds, 0::bigint, 0::numeric
  from months m
  cross join lateral widget_internal.priced_calls(
    m.month, m.month_start, m.to_at, m.counted_as_of, usage_parts.only_widget, in_sums => true, split_at => m.from_at
  ) r
  where not m.is_closed
  union all
  select m.month, l.widget_id, l.outcome, l.evidence, l.started_at < m.from_at, count(*), sum(l.new_seconds), 0, 0
  from months m
  cross join lateral widget_internal.billed_calls(m.month, m.month_start, m.to_at, usage_parts.only_widget) l
  where m.is_closed and l.outcome is not null
  group by m.month, l.widget_id, l.outcome, l.evidence, l.started_at < m.from_at
  union all
  select m.month, c.widget_id, null, null, c.started_at < m.from_at, 0, 0, count(*), sum(c.new_seconds - c.old_seconds)
  from months m
  cross join lateral widget_internal.late_changes(only_month => m.month, only_widget => usage_parts.only_widget) c
  where m.is_closed and c.started_at < m.to_at
  group by m.month, c.widget_id, c.started_at < m.from_at
  union all
  -- A fee is due in each month that has begun, with calls or without.
  select m.month, p.widget_id, null, null, false, 0, 0, 0, 0
  from months m
  cross join lateral widget_internal.plans_in(m.month) p
  where p.monthly_fee > 0 and m.month_start <= least(usage_parts.as_of, now())
    and (usage_parts.only_widget is null or p.widget_id = usage_parts.only_widget);
end
$$;

comment on function widget_internal.usage_parts(timestamptz, timestamptz, timestamptz, uuid) is
  'The calls from the first instant of each month that the period touches to the end of the period, summed up by widget, '
  'month, outcome and evidence. is_before: those before the period, which its amounts rest on. pending: what was charged '
  'of a closed month less what its calls come to now.';


create function public.widget_billing_usage(
  period_start timestamptz, period_end timestamptz, as_of timestamptz default null, only_widget uuid default null
)
returns table (
  widget_id uuid, calls bigint, billable_seconds numeric,
  observed_calls bigint, observed_seconds numeric, provider_calls bigint, provider_seconds numeric,
  operator_calls bigint, operator_seconds numeric, heartbeat_calls bigint, heartbeat_seconds numeric,
  assumed_calls bigint, assumed_seconds numeric, open_calls bigint, failed_calls bigint,
  charged_seconds numeric, amount numeric, currency text, fees numeric,
  months bigint, closed_months bigint, pending_calls bigint, pending_seconds numeric, pending_amount numeric
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  with months as materialized (
    select m.* from widget_internal.bill_months(
      widget_billing_usage.period_start, widget_billing_usage.period_end, widget_billing_usage.as_of
    ) m
  ),
  parts as materialized (
    select p.* from widget_internal.usage_parts(
      widget_billing_usage.period_start, widget_billing_usage.period_end, widget_billing_usage.as_of,
      widget_billing_usage.only_widget
    ) p
  ),
  to_date as (
    select p.month, p.widget_id, sum(p.seconds) as seconds, sum(p.seconds + p.pending_seconds) as with_pending,
      coalesce(sum(p.seconds) filter (where p.is_before), 0) as seconds_before,
      coalesce(sum(p.seconds + p.pending_seconds) filter (where p.is_before), 0) as with_pending_before
    from parts p
    group by p.month, p.widget_id
  ),
  priced as (
    select
      t.*, m.is_closed, p.included_seconds, p.currency,
      case when m.from_at = m.month_start then round(p.monthly_fee, widget_internal.currency_decimals(p.currency)) else 0 end
        as fee,
      coalesce(b.amount, widget_internal.charge(t.seconds, p)) as amount,
      widget_internal.charge(t.with_pending, p) as amount_with_pending,
      -- Nothing is due at a month's first instant.
      case when m.from_at = m.month_start then 0 else widget_internal.charge(t.seconds_before, p) end as amount_before,
      case when m.from_at = m.month_start then 0 else widget_internal.charge(t.with_pending_before, p) end
        as amount_with_pending_before
    from months m
    join to_date t on t.month = m.month
    left join lateral (
      select l.* from public.widget_plans l
      where l.widget_id = t.widget_id and l.valid_from <= m.month
      order by l.valid_from desc
      limit 1
    ) p on true
    left join lateral (
      select sum(s.difference_amount) as amount
      from public.widget_statement_charges s
      where m.is_closed and m.to_at = m.month_end and s.usage_period = m.month and s.widget_id = t.widget_id
    ) b on true
  ),
  charges as (
    select
      c.widget_id, min(c.currency) as currency, sum(c.fee) as fees,
      sum(greatest(c.seconds - coalesce(c.included_seconds, 0), 0)
        - greatest(c.seconds_before - coalesce(c.included_seconds, 0), 0)) as charged_seconds,
      sum(c.amount - c.amount_before) as amount,
      sum(c.amount_with_pending - c.amount_with_pending_before - c.amount + c.amount_before) as pending_amount,
      -- A month without a plan has no amount, and euros are not added to dollars.
      count(c.currency) = count(*) and min(c.currency) = max(c.currency) as has_amount,
      count(*) as months, count(*) filter (where c.is_closed) as closed_months
    from priced c
    group by c.widget_id
  ),
  sums as (
    select
      r.widget_id, sum(r.calls)::bigint as calls, sum(r.seconds) as seconds,
      coalesce(sum(r.calls) filter (where r.evidence = 'observed'), 0)::bigint as observed_calls,
      coalesce(sum(r.seconds) filter (where r.evidence = 'observed'), 0) as observed_seconds,
      coalesce(sum(r.calls) filter (where r.evidence = 'provider'), 0)::bigint as provider_calls,
      coalesce(sum(r.seconds) filter (where r.evidence = 'provider'), 0) as provider_seconds,
      coalesce(sum(r.calls) filter (where r.evidence = 'operator'), 0)::bigint as operator_calls,
      coalesce(sum(r.seconds) filter (where r.evidence = 'operator'), 0) as operator_seconds,
      coalesce(sum(r.calls) filter (where r.evidence = 'heartbeat'), 0)::bigint as heartbeat_calls,
      coalesce(sum(r.seconds) filter (where r.evidence = 'heartbeat'), 0) as heartbeat_seconds,
      coalesce(sum(r.calls) filter (where r.evidence = 'assumed'), 0)::bigint as assumed_calls,
      coalesce(sum(r.seconds) filter (where r.evidence = 'assumed'), 0) as assumed_seconds,
      coalesce(sum(r.calls) filter (where r.outcome = 'open'), 0)::bigint as open_calls,
      coalesce(sum(r.calls) filter (where r.outcome = 'failed'), 0)::bigint as failed_calls,
      sum(r.pending_calls)::bigint as pending_calls, sum(r.pending_seconds) as pending_seconds
    from parts r
    where not r.is_before
    group by r.widget_id
  )
  select
    s.widget_id, s.calls, s.seconds, s.observed_calls, s.observed_seconds, s.provider_calls, s.provider_seconds,
    s.operator_calls, s.operator_seconds, s.heartbeat_calls, s.heartbeat_seconds, s.assumed_calls, s.assumed_seconds,
    s.open_calls, s.failed_calls, c.charged_seconds, case when c.has_amount then c.amount end,
    case when c.has_amount then c.currency end, case when c.has_amount then c.fees end,
    c.months, c.closed_months, s.pending_calls, s.pending_seconds, case when c.has_amount then c.pending_amount end
  from sums s
  join charges c on c.widget_id = s.widget_id;
end
$$;

comment on function public.widget_billing_usage(timestamptz, timestamptz, timestamptz, uuid) is
  'The sums of widget_billing_calls() per widget: all calls of the period, their billable seconds, and both by evidence. '
  'charged_seconds: month by month what exceeds the plan''s included seconds; amount: its price, rounded to the currency''s '
  'decimals, and the fees; null unless all months have a plan, and all in one currency. Of a part of a month: the month to '
  'date at its end less the month to date at its start. months: how many had calls or fees, and of these closed_months '
  'count what was charged for them; pending_…: what the next statement will add to that.';
