-- Event delivery rate of the last seven days, by widget: which share of the events that senders numbered has arrived.
-- Good: above 0.99. Lower: events are lost on their way; a blocker, a page that leaves too early, an API that was down.
-- It does not see events lost at the very end of a session: those show in the completion rate.
select
  coalesce(widget_id::text, 'all widgets') as widget, delivery_rate, events_numbered as events_arrived,
  events_expected, events_expected - events_numbered as events_lost, events_received
from public.widget_rates(now() - interval '7 days')
order by widget_id is not null, delivery_rate;
