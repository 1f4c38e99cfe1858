-- Is it well? What owners, the SQL editor and monitors read, each column with what good looks like (R9).

create view public.widget_health with (security_invoker = true) as
  with counts as (
    select
      h.widget_id, h.hour, h.events_received, h.loads, h.opens, h.sessions, h.events_numbered, h.events_expected,
      h.orphan_ends, 0::bigint as calls_started, 0::bigint as calls_open, 0::bigint as calls_observed,
      0::bigint as calls_provider, 0::bigint as calls_operator, 0::bigint as calls_heartbeat, 0::bigint as calls_assumed,
      0::bigint as calls_failed, 0::bigint as refusals, h.response_ms_median, h.response_ms_p95
    from widget_internal.health_hours h
    union all
    select
      c.widget_id, c.hour, 0, 0, 0, 0, 0, 0, 0, c.calls_started, c.calls_open, c.calls_observed, c.calls_provider,
      c.calls_operator, c.calls_heartbeat, c.calls_assumed, c.calls_failed, 0, null, null
    from widget_internal.health_calls c
    union all
    select r.widget_id, r.hour, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, r.refusals, null, null
    from widget_internal.refusal_counts r
    where r.widget_id is not null
  ),
  -- Of all but refusals there is one row at most for each hour, so the greatest is it, and costs less than a sum.
  hours as (
    select
      c.widget_id, c.hour,
      max(c.events_received) as events_received,
      max(c.loads) as loads,
      max(c.opens) as opens,
      max(c.sessions) as sessions,
      max(c.events_numbered) as events_numbered,
      max(c.events_expected) as events_expected,
      max(c.orphan_ends) as orphan_ends,
      max(c.calls_started) as calls_started,
      max(c.calls_open) as calls_open,
      max(c.calls_observed) as calls_observed,
      max(c.calls_provider) as calls_provider,
      max(c.calls_operator) as calls_operator,
      max(c.calls_heartbeat) as calls_heartbeat,
      max(c.calls_assumed) as calls_assumed,
      max(c.calls_failed) as calls_failed,
      sum(c.refusals)::bigint as refusals,
      max(c.response_ms_median) as response_ms_median,
      max(c.response_ms_p95) as response_ms_p95
    from counts c
    group by c.widget_id, c.hour
  )
  select
    h.widget_id, h.hour, h.events_received, h.sessions, h.events_numbered, h.events_expected,
    round(h.events_numbered::numeric / nullif(h.events_expected, 0), 6) as delivery_rate,
    h.loads, h.opens, h.calls_started, h.calls_open, h.calls_observed, h.calls_provider, h.calls_operator,
    h.calls_heartbeat, h.calls_assumed, h.calls_failed,
    round((h.calls_observed + h.calls_provider + h.calls_operator)::numeric / nullif(h.calls_started, 0), 6)
      as completion_rate,
    h.orphan_ends, h.refusals, h.response_ms_median, h.response_ms_p95, s.counted_to as as_of
  from hours h
  cross join widget_internal.health_state s
  -- A session that turns out to have begun earlier may leave nothing behind.
  where h.events_received + h.sessions + h.calls_started + h.refusals > 0;

comment on view public.widget_health is
  'How well tracking works, by widget and hour (R9), as of as_of: counted every five minutes, so reading it is quick '
  'however large the ledger is. An event sent twice is one event. To get a rate of several hours divide the sums.';
comment on column public.widget_health.hour is 'Events by when they happened, calls by when they started, sessions by their first event.';
comment on column public.widget_health.events_received is 'Events that happened in this hour. Good: as in the same hour of last week.';
comment on column public.widget_health.sessions is 'Sessions that began in this hour: one a page view with the widget.';
comment on column public.widget_health.events_numbered is
  'Of the sessions that began in this hour: events that arrived with a running number (seq), each number once.';
comment on column public.widget_health.events_expected is
  'Of these sessions: the sum of the highest numbers seen. Exact for gaps; knows nothing of events lost at the very end '
  'of a session. Numbers above 10,000 are left out.';
comment on column public.widget_health.delivery_rate is
  'events_numbered / events_expected. Good: above 0.99, a little lower in the hour that is running. Null: no numbered events. A lost end shows in '
  'completion_rate, not here.';
comment on column public.widget_health.loads is 'widget_load events of this hour: the widget stood on a page.';
comment on column public.widget_health.opens is 'widget_open events of this hour: somebody opened it.';
comment on column public.widget_health.calls_started is 'Calls that started in this hour, as widget_calls has them.';
comment on column public.widget_health.calls_open is 'Of these, calls with no end yet. Good: none that started hours ago; else the cleanup does not run.';
comment on column public.widget_health.calls_observed is 'Of these, calls whose end the browser or your server reported. Good: nearly all.';
comment on column public.widget_health.calls_provider is 'Of these, calls that end as the call provider''s record says.';
comment on column public.widget_health.calls_operator is 'Of these, calls that end as a person corrected them. Good: few.';
comment on column public.widget_health.calls_heartbeat is 'Of these, calls that broke off and end at their last sign of life. Good: below 5 in 100.';
comment on column public.widget_health.calls_assumed is
  'Of these, calls that broke off without any sign of life and are taken to have lasted 30 minutes. Good: none.';
comment on column public.widget_health.calls_failed is 'Of these, calls that ended by call_error; they have evidence like all others. Good: few.';
comment on column public.widget_health.completion_rate is
  'Calls whose end somebody observed (browser, server, provider or operator) over calls started. Good: above 0.95; '
  'calls that are still open count as not completed, so the last hours are lower. Null: no calls.';
comment on column public.widget_health.orphan_ends is
  'Ends that belong to no call, of the sessions that began in this hour: the start was lost or never sent. Good: none.';
comment on column public.widget_health.refusals is
  'Events refused in this hour, by when they came. Good: none; widget_refusals says why.';
comment on column public.widget_health.response_ms_median is
  'Half of the senders'' requests were answered within so many milliseconds, by their own clocks (properties.rtt_ms), '
  'within 5 %. Good: below 200. Null: no sender said.';
comment on column public.widget_health.response_ms_p95 is 'Nineteen of twenty were answered within so many. Good: below 1000.';
comment on column public.widget_health.as_of is 'What was received by then is counted. Good: less than 10 minutes ago.';

revoke all on table public.widget_health from public, anon, authenticated, service_role;
grant select on table public.widget_health to authenticated, service_role;
