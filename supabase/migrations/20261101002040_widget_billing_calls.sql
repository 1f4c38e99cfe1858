-- What finance asks: the calls of a period, each with its bill, and their sums.

create function widget_internal.counted_as_of(as_of timestamptz)
returns timestamptz
language plpgsql stable
set search_path = ''
as $$
begin
  -- As of now is all that there is to see: also what this very transaction has added since it began.
  return case when counted_as_of.as_of >= now() then 'infinity' else counted_as_of.as_of end;
end
$$;

comment on function widget_internal.counted_as_of(timestamptz) is 'Up to which receipt a bill asked for as of a moment counts.';


create function public.widget_billing_calls(
  period_start timestamptz, period_end timestamptz, as_of timestamptz default null
)
returns table (
  widget_id uuid, session_id text, call_id text, started_at timestamptz, ended_at timestamptz, outcome text,
  evidence text, duration_seconds numeric, billable_seconds numeric, rule text, amount numeric, currency text
)
language plpgsql stable
set search_path = ''
as $$
begin
  return query
  select
    c.widget_id, c.session_id, c.call_id, c.started_at, c.ended_at, c.outcome, c.evidence, c.duration_seconds,
    c.billable_seconds, c.rule, round(c.billable_seconds * (c.plan).price_per_minute / 60, 6), (c.plan).currency
  from widget_internal.rated_calls(
    widget_billing_calls.period_start, widget_billing_calls.period_end,
    widget_internal.counted_as_of(widget_billing_calls.as_of)
  ) c;
end
$$;

comment on function public.widget_billing_calls(timestamptz, timestamptz, timestamptz) is
  'The calls that started in [period_start, period_end), one row each: billable_seconds, and rule, which says why. '
  'amount: these seconds at the plan''s price, to six decimals; included seconds and the rounding of money come in where '
  'a month is summed up, in widget_billing_usage(). as_of counts only events received by then, so that a past bill can '
  'be made again; left out: all events. Owners see their widgets'' calls, service_role all.';


create function public.widget_billing_usage(
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
  return query
  with rated as (
    select r.* from widget_internal.rated_calls(
      widget_billing_usage.period_start, widget_billing_usage.period_end,
      widget_internal.counted_as_of(widget_billing_usage.as_of)
    ) r
  ),
  months as (
    select r.widget_id, r.plan, sum(r.billable_seconds) as seconds from rated r group by r.widget_id, r.month, r.plan
  ),
  charges as (
    select
      m.widget_id,
      sum(greatest(m.seconds - coalesce((m.plan).included_seconds, 0), 0)) as charged_seconds,
      sum(widget_internal.charge(m.seconds, m.plan)) as amount,
      min((m.plan).currency) as currency,
      -- A month without a plan has no amount, and euros are not added to dollars.
      count((m.plan).currency) = count(*) and min((m.plan).currency) = max((m.plan).currency) as has_amount
    from months m
    group by m.widget_id
  )
  select
    r.widget_id, count(*), sum(r.billable_seconds),
    count(*) filter (where r.evidence = 'observed'),
    coalesce(sum(r.billable_seconds) filter (where r.evidence = 'observed'), 0),
    count(*) filter (where r.evidence = 'provider'),
    coalesce(sum(r.billable_seconds) filter (where r.evidence = 'provider'), 0),
    count(*) filter (where r.evidence = 'operator'),
    coalesce(sum(r.billable_seconds) filter (where r.evidence = 'operator'), 0),
    count(*) filter (where r.evidence = 'heartbeat'),
    coalesce(sum(r.billable_seconds) filter (where r.evidence = 'heartbeat'), 0),
    count(*) filter (where r.evidence = 'assumed'),
    coalesce(sum(r.billable_seconds) filter (where r.evidence = 'assumed'), 0),
    count(*) filter (where r.outcome = 'open'),
    count(*) filter (where r.outcome = 'failed'),
    c.charged_seconds,
    case when c.has_amount then c.amount end,
    case when c.has_amount then c.currency end
  from rated r
  join charges c on c.widget_id = r.widget_id
  group by r.widget_id, c.charged_seconds, c.amount, c.currency, c.has_amount;
end
$$;

comment on function public.widget_billing_usage(timestamptz, timestamptz, timestamptz) is
  'The sums of widget_billing_calls() per widget: all calls of the period, their billable seconds, and both by evidence. '
  'charged_seconds and amount: month by month what exceeds the plan''s included seconds, and its price, rounded to the '
  'currency''s decimals; null unless all months have a plan, and all in one currency.';

revoke all on function widget_internal.counted_as_of(timestamptz) from public, anon, authenticated, service_role;
revoke all on function public.widget_billing_calls(timestamptz, timestamptz, timestamptz)
  from public, anon, authenticated, service_role;
revoke all on function public.widget_billing_usage(timestamptz, timestamptz, timestamptz)
  from public, anon, authenticated, service_role;
grant execute on function widget_internal.counted_as_of(timestamptz) to authenticated, service_role;
grant execute on function public.widget_billing_calls(timestamptz, timestamptz, timestamptz)
  to authenticated, service_role;
grant execute on function public.widget_billing_usage(timestamptz, timestamptz, timestamptz)
  to authenticated, service_role;
