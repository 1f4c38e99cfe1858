-- Which calls were assumed? Calls of the last seven days that nobody saw end, those without any sign of life first.
-- Good: no row with evidence assumed, as their length is a guess; heartbeat rows end at their last sign of life.
-- Many: senders without heartbeats crash, or ends get lost. Use the tracker, or record_widget_call_evidence(). What a plan
-- bills of such calls, widget_plans.assumed_calls says; their share of a bill is in widget_billing_usage().
select
  widget_id, evidence, started_at, ended_at, duration_seconds, session_id, call_id,
  count(*) over (partition by widget_id, evidence) as of_this_widget_and_evidence
from public.widget_calls
where evidence in ('assumed', 'heartbeat') and started_at > now() - interval '7 days'
order by evidence, started_at desc
limit 500;
