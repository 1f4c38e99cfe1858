-- The sums of rated_calls per widget. What the seconds beyond the included ones cost is rounded where money is: in bill.py.
select
  widget_id, count(*) as calls, sum(billable_us) as billable_us,
  count(case when evidence = 'observed' then 1 end) as observed_calls,
  sum(case when evidence = 'observed' then billable_us else 0 end) as observed_us,
  count(case when evidence = 'provider' then 1 end) as provider_calls,
  sum(case when evidence = 'provider' then billable_us else 0 end) as provider_us,
  count(case when evidence = 'operator' then 1 end) as operator_calls,
  sum(case when evidence = 'operator' then billable_us else 0 end) as operator_us,
  count(case when evidence = 'heartbeat' then 1 end) as heartbeat_calls,
  sum(case when evidence = 'heartbeat' then billable_us else 0 end) as heartbeat_us,
  count(case when evidence = 'assumed' then 1 end) as assumed_calls,
  sum(case when evidence = 'assumed' then billable_us else 0 end) as assumed_us,
  count(case when outcome = 'open' then 1 end) as open_calls,
  count(case when outcome = 'failed' then 1 end) as failed_calls,
  max(price_per_minute) as price_per_minute, max(currency) as currency, max(decimals) as decimals,
  max(included_us) as included_us
from rated_calls
group by widget_id
order by widget_id
