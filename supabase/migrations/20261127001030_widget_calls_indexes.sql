-- Block ranges were meant to be enough to find a month's calls. They are not: a call's row is written again when it ends,
-- into whatever page has room, and one row of today in a range makes that range one of today's. At five million calls a
-- bill read several times the pages that it needed (docs/performance.md). Building both holds writes for some seconds where
-- there are millions of calls.

drop index public.widget_calls_started_at_idx;
create index widget_calls_started_at_idx on public.widget_calls (started_at);
comment on index public.widget_calls_started_at_idx is 'Serves all widgets'' calls of a period: the bill.';

-- With what a bill adds up, so that it need not read a page of the table for each of the widget's calls.
drop index public.widget_calls_widget_id_started_at_idx;
create index widget_calls_widget_id_started_at_idx on public.widget_calls (widget_id, started_at)
  include (outcome, evidence, duration_seconds);
comment on index public.widget_calls_widget_id_started_at_idx is 'Serves one widget''s calls of a period, and its bill.';
