-- A bill's sums need neither a price for each call nor the text that explains it (docs/performance.md).

create or replace function public.widget_billing_usage(
  period_start timestamptz, period_end timestamptz, as_of timestamptz default null
)
returns table (
  widget_id uuid, calls bigint, billable_seconds numeric,
  observed_calls bigint, observed_seconds numeric, provider_calls bigint, provider_seconds numeric,
  operator_calls bigint, operator_seconds numeric, heartbeat_calls bigint, heartbeat_seconds numeric,
  assumed_calls bigint, assumed_seconds numeric, open_calls bigint, failed_calls bigint,
  charged_seconds numeric, amount numeric, currency text
)
language plpgsql stable
set search_path = ''
as $$
begin
  perform widget_internal.refuse_archived_period(widget_billing_usage.period_start);
  return query
  with parts as (
    select r.widget_id, r.month, r.plan, r.outcome, r.evidence, r.calls, r.billable_seconds * r.times as seconds
    from widget_internal.priced_calls(
      widget_billing_usage.period_start, widget_billing_usage.period_end,
      case when widget_billing_usage.as_of is not null then widget_internal.counted_as_of(widget_billing_usage.as_of) end,
      in_sums => true
    ) r
  ),
  months as (
    select r.widget_id, r.plan, sum(r.seconds) as seconds from parts r group by r.widget_id, r.month, r.plan
  ),
  charges as (
    select
      m.widget_id,
      sum(greatest(m.seconds - coalesce((m.plan).included_seconds, 0), 0)) as charged_seconds,
      sum(widget_internal.charge(m.seconds, m.plan)) filter (where (m.plan).currency is not null) as amount,
      min((m.plan).currency) as currency,
      -- A month without a plan has no amount, and euros are not added to dollars.
      count((m.plan).currency) = count(*) and min((m.plan).currency) = max((m.plan).currency) as has_amount
    from months m
    group by m.widget_id
  ),
  sums as (
    select
      r.widget_id, sum(r.calls) as calls, sum(r.seconds) as seconds,
      sum(r.calls) filter (where r.evidence = 'observed') as observed_calls,
      sum(r.seconds) filter (where r.evidence = 'observed') as observed_seconds,
      sum(r.calls) filter (where r.evidence = 'provider') as provider_calls,
      sum(r.seconds) filter (where r.evidence = 'provider') as provider_seconds,
      sum(r.calls) filter (where r.evidence = 'operator') as operator_calls,
      sum(r.seconds) filter (where r.evidence = 'operator') as operator_seconds,
      sum(r.calls) filter (where r.evidence = 'heartbeat') as heartbeat_calls,
      sum(r.seconds) filter (where r.evidence = 'heartbeat') as heartbeat_seconds,
      sum(r.calls) filter (where r.evidence = 'assumed') as assumed_calls,
      sum(r.seconds) filter (where r.evidence = 'assumed') as assumed_seconds,
      sum(r.calls) filter (where r.outcome = 'open') as open_calls,
      sum(r.calls) filter (where r.outcome = 'failed') as failed_calls
    from parts r
    group by r.widget_id
  )
  select
    s.widget_id, s.calls::bigint, s.seconds,
    coalesce(s.observed_calls, 0)::bigint, coalesce(s.observed_seconds, 0),
    coalesce(s.provider_calls, 0)::bigint, coalesce(s.provider_seconds, 0),
    coalesce(s.operator_calls, 0)::bigint, coalesce(s.operator_seconds, 0),
    coalesce(s.heartbeat_calls, 0)::bigint, coalesce(s.heartbeat_seconds, 0),
    coalesce(s.assumed_calls, 0)::bigint, coalesce(s.assumed_seconds, 0),
    coalesce(s.open_calls, 0)::bigint, coalesce(s.failed_calls, 0)::bigint,
    c.charged_seconds,
    case when c.has_amount then c.amount end,
    case when c.has_amount then c.currency end
  from sums s
  join charges c on c.widget_id = s.widget_id;
end
$$;
