-- API response times of the last seven days, by widget, as the senders' own clocks saw them, in milliseconds.
-- Good: a median below 200 and a 95th percentile below 1000. The tracker waits for no answer, so even slow ones hold up no page.
-- Null: no sender said; the tracker does, bare REST calls do not.
select coalesce(widget_id::text, 'all widgets') as widget, response_ms_median, response_ms_p95
from public.widget_rates(now() - interval '7 days')
order by widget_id is not null, response_ms_p95 desc nulls last;
