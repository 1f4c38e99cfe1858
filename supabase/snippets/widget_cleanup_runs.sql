-- Cleanup runs of the last two days: how many calls each one completed.
-- Good: one at least every 30 minutes (minutes_since_the_one_before at most 31), error null, and few calls completed.
-- No rows: it never ran. A gap: look at cron.job_run_details, or at whatever calls the Edge Function.
-- Nothing is lost by either: the next run does all the work.
select
  started_at, calls_checked, calls_completed, calls_still_active, error,
  round(extract(epoch from started_at - lag(started_at) over (order by started_at)) / 60)
    as minutes_since_the_one_before,
  round(extract(epoch from finished_at - started_at) * 1000) as took_ms
from public.widget_cleanup_runs
where started_at > now() - interval '2 days'
order by started_at desc;
