-- The bill, for every engine: DuckDB and Apache Spark run it as it stands. One sum over calls as they were billed and over
-- what each widget was charged a month; how long calls are and what they cost was decided in the database.
with parts as (
  select
    c.widget_id, 1 as calls, c.billable_seconds as seconds, c.outcome, c.evidence, 0 as months,
    cast(null as decimal(18, 6)) as charged_seconds, cast(null as decimal(18, 6)) as amount, cast(null as varchar(3)) as currency,
    cast(null as decimal(18, 6)) as fees
  from archived_calls c
  union all
  select
    m.widget_id, 0, cast(0 as decimal(18, 6)), null, null, 1, m.charged_seconds, m.amount, m.currency, m.fees
  from archived_charges m
),
sums as (
  select
    widget_id, sum(calls) as calls, sum(seconds) as billable_seconds,
    count(case when evidence = 'observed' then 1 end) as observed_calls,
    sum(case when evidence = 'observed' then seconds else 0 end) as observed_seconds,
    count(case when evidence = 'provider' then 1 end) as provider_calls,
    sum(case when evidence = 'provider' then seconds else 0 end) as provider_seconds,
    count(case when evidence = 'operator' then 1 end) as operator_calls,
    sum(case when evidence = 'operator' then seconds else 0 end) as operator_seconds,
    count(case when evidence = 'heartbeat' then 1 end) as heartbeat_calls,
    sum(case when evidence = 'heartbeat' then seconds else 0 end) as heartbeat_seconds,
    count(case when evidence = 'assumed' then 1 end) as assumed_calls,
    sum(case when evidence = 'assumed' then seconds else 0 end) as assumed_seconds,
    count(case when outcome = 'open' then 1 end) as open_calls,
    count(case when outcome = 'failed' then 1 end) as failed_calls,
    sum(charged_seconds) as charged_seconds, sum(amount) as amount, min(currency) as currency, sum(fees) as fees,
    sum(months) as months,
    -- A month without a plan has no amount, and euros are not added to dollars.
    count(currency) = sum(months) and min(currency) = max(currency) as has_amount
  from parts
  group by widget_id
)
select
  widget_id, calls, billable_seconds, observed_calls, observed_seconds, provider_calls, provider_seconds,
  operator_calls, operator_seconds, heartbeat_calls, heartbeat_seconds, assumed_calls, assumed_seconds,
  open_calls, failed_calls, charged_seconds,
  case when has_amount then amount end as amount, case when has_amount then currency end as currency,
  case when has_amount then fees end as fees, months, months as closed_months,
  0 as pending_calls, 0 as pending_seconds, case when has_amount then 0 end as pending_amount,
  true as is_closed
from sums
order by widget_id
