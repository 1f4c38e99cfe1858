-- Session completion rate of the last seven days, by widget: which share of the calls that are over ended as somebody observed.
-- Good: above 0.95; browsers that close or crash in mid-call are the rest. Lower: ends get lost; see which_calls_were_assumed.sql.
-- calls_open: good is a handful; calls that have been open for hours say that the cleanup does not run.
select
  coalesce(widget_id::text, 'all widgets') as widget, completion_rate, calls_started, calls_observed,
  calls_started - calls_open - calls_observed as calls_inferred, calls_open, orphan_ends
from public.widget_rates(now() - interval '7 days')
order by widget_id is not null, completion_rate;
