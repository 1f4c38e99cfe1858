-- A bill's sums by widget. Amounts of a part of a month are the month to date at its end less the month to date at its
-- start, so that parts add up to the month.

create function widget_internal.usage_parts(
  period_start timestamptz, period_end timestamptz, as_of timestamptz, only_widget uuid, what_if jsonb
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
    select m.month, m.month_start, m.from_at, m.to_at,
      m.is_closed and usage_parts.as_of is null and usage_parts.what_if is null as is_closed
    from widget_internal.billing_months(usage_parts.period_start, usage_parts.period_end) m
  )
  select m.month, r.widget_id, r.outcome, r.evidence, r.is_before, r.calls, r.billable_seconds, 0::bigint, 0::numeric
  from months m
  cross join lateral widget_internal.priced_calls(
    m.month, m.month_start, m.to_at, widget_internal.counted_as_of(usage_parts.as_of), usage_parts.only_widget, true,
    m.from_at, usage_parts.what_if
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
  cross join lateral widget_internal.plans_in(m.month, usage_parts.what_if) p
  where p.monthly_fee > 0 and m.month_start <= least(usage_parts.as_of, now())
    and (usage_parts.only_widget is null or p.widget_id = usage_parts.only_widget);
end
$$;

comment on function widget_internal.usage_parts(timestamptz, timestamptz, timestamptz, uuid, jsonb) is
  'The calls from the first instant of each month that the period touches to the end of the period, summed up by widget, '
  'month, outcome and evidence. is_before: those before the period, which its amounts rest on. pending: what was charged '
  'of a closed month less what its calls come to now.';


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
    select m.month, m.month_start, m.month_end, m.from_at, m.to_at,
      m.is_closed and widget_billing_usage.as_of is null and widget_billing_usage.what_if is null as is_closed
    from widget_internal.billing_months(widget_billing_usage.period_start, widget_billing_usage.period_end) m
  ),
  parts as materialized (
    select p.* from widget_internal.usage_parts(
      widget_billing_usage.period_start, widget_billing_usage.period_end, widget_billing_usage.as_of,
      widget_billing_usage.only_widget, widget_billing_usage.what_if
    ) p
  ),
  plans as (
    select m.month, p.*, p as plan
    from months m
    cross join lateral widget_internal.plans_in(m.month, widget_billing_usage.what_if) p
  ),
  to_date as (
    select p.month, p.widget_id, sum(p.seconds) as seconds, sum(p.seconds + p.pending_seconds) as with_pending,
      coalesce(sum(p.seconds) filter (where p.is_before), 0) as seconds_before,
      coalesce(sum(p.seconds + p.pending_seconds) filter (where p.is_before), 0) as with_pending_before
    from parts p
    group by p.month, p.widget_id
    having not bool_and(p.is_before)
  ),
  priced as (
    select
      t.*, m.is_closed, coalesce(p.included_seconds, 0) as included, p.currency,
      case when m.from_at = m.month_start then round(p.monthly_fee, widget_internal.currency_decimals(p.currency)) else 0 end
        as fee,
      coalesce(b.amount, widget_internal.charge(t.seconds, p.plan)) as amount,
      widget_internal.charge(t.with_pending, p.plan) as amount_with_pending,
      -- Nothing is due at a month's first instant.
      case when m.from_at = m.month_start then 0 else widget_internal.charge(t.seconds_before, p.plan) end as amount_before,
      case when m.from_at = m.month_start then 0 else widget_internal.charge(t.with_pending_before, p.plan) end
        as amount_with_pending_before
    from months m
    join to_date t on t.month = m.month
    left join plans p on p.month = m.month and p.widget_id = t.widget_id
    left join lateral (
      select sum(s.difference_amount) as amount
      from public.widget_statement_charges s
      where m.is_closed and m.to_at = m.month_end and s.usage_period = m.month and s.widget_id = t.widget_id
    ) b on true
  ),
  charges as (
    select
      c.widget_id, c.charged_seconds, c.months, c.closed_months,
      case when c.has_amount then c.amount end as amount, case when c.has_amount then c.currency end as currency,
      case when c.has_amount then c.fees end as fees, case when c.has_amount then c.pending_amount end as pending_amount
    from (
      select
        p.widget_id, min(p.currency) as currency, sum(p.fee) as fees,
        sum(greatest(p.seconds - p.included, 0) - greatest(p.seconds_before - p.included, 0)) as charged_seconds,
        sum(p.amount - p.amount_before) as amount,
        sum(p.amount_with_pending - p.amount_with_pending_before - p.amount + p.amount_before) as pending_amount,
        -- A month without a plan has no amount, and euros are not added to dollars.
        count(p.currency) = count(*) and min(p.currency) = max(p.currency) as has_amount,
        count(*) as months, count(*) filter (where p.is_closed) as closed_months
      from priced p
      group by p.widget_id
    ) c
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
    c.charged_seconds, c.amount, c.currency, c.fees, c.months, c.closed_months,
    sum(r.pending_calls)::bigint, sum(r.pending_seconds), c.pending_amount, c.closed_months = c.months
  from parts r
  join charges c on c.widget_id = r.widget_id
  where not r.is_before
  group by r.widget_id, c.charged_seconds, c.amount, c.currency, c.fees, c.months, c.closed_months, c.pending_amount;
end
$$;

comment on function public.widget_billing_usage(timestamptz, timestamptz, timestamptz, uuid, jsonb) is
  'The sums of widget_billing_calls() per widget: all calls of the period, their billable seconds, and both by evidence. '
  'charged_seconds: month by month what exceeds the plan''s included seconds; amount: its price, rounded to the currency''s '
  'decimals, and the fees; null unless all months have a plan, and all in one currency. Of a part of a month: the month to '
  'date at its end less the month to date at its start. months: how many had calls or fees, and of these closed_months '
  'count what was charged for them (is_closed: all); pending_…: what the next statement will add to that. what_if: rates the calls, as they '
  'are now, by this draft of a plan, an object with columns of widget_plans, in place of each widget''s own.';
