-- Block ranges were meant to be enough to find a month's calls. They are not: a call's row is written again when it ends,
-- into whatever page has room, and one row of today in a range makes that range one of today's. At five million calls a
-- bill read several times the pages that it needed (docs/performance.md).

-- Built beside the old ones: so only writers wait, for some seconds where there are millions of calls.
create index widget_calls_started_at_idx1 on public.widget_calls (started_at);
-- With what a bill adds up, so that it need not read a page of the table for each of the widget's calls.
create index widget_calls_widget_id_started_at_idx1 on public.widget_calls (widget_id, started_at)
  include (outcome, evidence, duration_seconds);

drop index public.widget_calls_started_at_idx, public.widget_calls_widget_id_started_at_idx;
alter index public.widget_calls_started_at_idx1 rename to widget_calls_started_at_idx;
alter index public.widget_calls_widget_id_started_at_idx1 rename to widget_calls_widget_id_started_at_idx;

comment on index public.widget_calls_started_at_idx is 'Serves all widgets'' calls of a period: the bill.';
comment on index public.widget_calls_widget_id_started_at_idx is 'Serves one widget''s calls of a period, and its bill.';
