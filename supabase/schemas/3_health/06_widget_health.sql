-- What owners, the SQL editor and monitors read, each column with what good looks like.

create view public.widget_response_times with (security_invoker = true) as
  select r.widget_id, r.hour, round(power(1.1::float8, r.bucket - 0.5))::integer as milliseconds, r.answers
  from widget_internal.health_response_times r;

comment on view public.widget_response_times is
  'How long widgets waited for the answers to their requests, by their own clocks: by widget and hour, how many answers '
  'took about that many milliseconds (within 5 %). Sum up answers to get the median of any period. Good: most below 200.';


create view public.widget_health with (security_invoker = true) as
  select
    h.widget_id, h.hour, h.events_received, h.sessions, h.events_numbered, h.events_expected,
    round(h.events_numbered::numeric / nullif(h.events_expected, 0), 6) as delivery_rate,
    h.loads, h.opens, c.calls_started, c.calls_open, c.calls_observed, c.calls_provider, c.calls_operator,
    c.calls_heartbeat, c.calls_assumed, c.calls_failed,
    round((c.calls_observed + c.calls_provider + c.calls_operator)::numeric / nullif(c.calls_started, 0), 6)
      as completion_rate,
    h.orphan_ends, h.refusals, t.response_ms_median, t.response_ms_p95, s.counted_to as as_of
  from (
    select
      u.widget_id, u.hour, u.hour + interval '1 hour' as hour_end,
      sum(u.events_received)::bigint as events_received, sum(u.sessions)::bigint as sessions,
      sum(u.events_numbered)::bigint as events_numbered, sum(u.events_expected)::bigint as events_expected,
      sum(u.loads)::bigint as loads, sum(u.opens)::bigint as opens, sum(u.orphan_ends)::bigint as orphan_ends,
      sum(u.refusals)::bigint as refusals
    from (
      select
        k.widget_id, k.hour, k.events_received, k.sessions, k.events_numbered, k.events_expected, k.loads, k.opens,
        0::bigint as orphan_ends, 0::bigint as refusals
      from widget_internal.health_hours k
      union all
      select r.widget_id, r.hour, 0, 0, 0, 0, 0, 0, 0, r.refusals from widget_internal.refusal_counts r
      where r.widget_id <> '00000000-0000-0000-0000-000000000000'
      union all
      select o.widget_id, date_trunc('hour', o.last_event_at, 'UTC'), 0, 0, 0, 0, 0, 0, 1, 0
      from widget_internal.call_states o
      where o.started_at is null and o.end_claim is not null
    ) u
    group by u.widget_id, u.hour
  ) h
  cross join widget_internal.health_state s
  cross join lateral (
    select
      count(*) as calls_started, count(*) filter (where k.outcome = 'open') as calls_open,
      count(*) filter (where k.evidence = 'observed') as calls_observed,
      count(*) filter (where k.evidence = 'provider') as calls_provider,
      count(*) filter (where k.evidence = 'operator') as calls_operator,
      count(*) filter (where k.evidence = 'heartbeat') as calls_heartbeat,
      count(*) filter (where k.evidence = 'assumed') as calls_assumed,
      count(*) filter (where k.outcome = 'failed') as calls_failed
    from widget_internal.call_states k
    where k.widget_id = h.widget_id and k.started_at >= h.hour and k.started_at < h.hour_end
  ) c
  cross join lateral (
    select
      min(b.milliseconds) filter (where b.up_to >= 0.5 * b.answers) as response_ms_median,
      min(b.milliseconds) filter (where b.up_to >= 0.95 * b.answers) as response_ms_p95
    from (
      select
        r.milliseconds, sum(r.answers) over (order by r.milliseconds) as up_to, sum(r.answers) over () as answers
      from public.widget_response_times r
      where r.widget_id = h.widget_id and r.hour = h.hour
    ) b
  ) t
  -- A session that turns out to have begun earlier may leave nothing behind.
  where h.events_received + h.sessions + h.refusals + h.orphan_ends > 0;

comment on view public.widget_health is
  'How well tracking works, by widget and hour. Events and sessions are counted every five minutes, up to as_of; calls are '
  'read from widget_calls. An event sent twice is one event. To get a rate of several hours divide the sums.';
comment on column public.widget_health.hour is
  'Events by when they happened, calls by when they started, sessions by their first event.';
comment on column public.widget_health.events_received is
  'Events that happened in this hour. Good: as in the same hour of last week.';
comment on column public.widget_health.sessions is
  'Sessions of browsers that began in this hour: one a page view with the widget. One that was silent for over seven days '
  'counts again.';
comment on column public.widget_health.events_numbered is
  'Of the sessions that began in this hour: events that arrived with a running number (seq), each number once.';
comment on column public.widget_health.events_expected is
  'Of these sessions: the sum of the highest numbers seen. Exact for gaps; does not see events lost at the very end '
  'of a session. Numbers above 10,000 are left out.';
comment on column public.widget_health.delivery_rate is
  'events_numbered / events_expected. Good: above 0.99, a little lower in the current hour. Null: no numbered events. '
  'A lost end shows in completion_rate, not here.';
comment on column public.widget_health.loads is 'widget_load events of this hour: the widget stood on a page.';
comment on column public.widget_health.opens is 'widget_open events of this hour: somebody opened it.';
comment on column public.widget_health.calls_started is 'Calls that started in this hour, as widget_calls has them.';
comment on column public.widget_health.calls_open is
  'Of these, calls with no end yet. Good: none that started hours ago; else the cleanup does not run.';
comment on column public.widget_health.calls_observed is
  'Of these, calls whose end the browser or your server reported. Good: nearly all.';
comment on column public.widget_health.calls_provider is 'Of these, calls that end as the call provider''s record says.';
comment on column public.widget_health.calls_operator is 'Of these, calls that end as a person corrected them. Good: few.';
comment on column public.widget_health.calls_heartbeat is
  'Of these, calls that broke off and end at their last sign of life. Good: below 5 in 100.';
comment on column public.widget_health.calls_assumed is
  'Of these, calls that broke off without any sign of life and are assumed to have lasted 30 minutes. Good: none.';
comment on column public.widget_health.calls_failed is
  'Of these, calls that ended by call_error; they have evidence like all others. Good: few.';
comment on column public.widget_health.completion_rate is
  'Calls whose end somebody observed (browser, server, provider or operator) over calls started. Good: above 0.95; '
  'calls that are still open count as not completed, so the last hours are lower. Null: no calls.';
comment on column public.widget_health.orphan_ends is
  'Calls that ended in this hour and whose start was lost or never sent; known for two weeks, those of a server for as long as they wait. Good: none. Ends that name no '
  'call are not among them.';
comment on column public.widget_health.refusals is
  'Events refused in this hour, by when they came. Good: none; widget_refusals says why.';
comment on column public.widget_health.response_ms_median is
  'Half of the senders'' requests were answered within this many milliseconds, by their own clocks (properties.rtt_ms), '
  'within 5 %. Good: below 200. Null: no sender said.';
comment on column public.widget_health.response_ms_p95 is
  'Nineteen of twenty were answered within this many milliseconds. Good: below 1000.';
comment on column public.widget_health.as_of is 'What was received by then is counted. Good: less than 10 minutes ago.';


create view public.widget_pages with (security_invoker = true) as
  with ranked as (
    select p.*, row_number() over (
      partition by p.widget_id, p.day, p.host order by p.sessions desc, p.calls desc, p.page_url
    ) as rank
    from widget_internal.health_pages p
    where p.sessions > 0
  )
  select
    r.widget_id, r.day, nullif(r.host, '') as host,
    case when r.rank > 50 then '(others)' else nullif(r.page_url, '') end as page_url,
    sum(r.sessions)::bigint as sessions, sum(r.loads)::bigint as loads, sum(r.opens)::bigint as opens,
    sum(r.calls)::bigint as calls
  from ranked r
  group by r.widget_id, r.day, r.host, case when r.rank > 50 then '(others)' else nullif(r.page_url, '') end;

comment on view public.widget_pages is
  'Where each widget is used: sessions of browsers, their loads, opens and call_start events by UTC day, host and page. All '
  'of a session counts on the day of its first event, and for the page that it names first. Of each host and day the 50 '
  'busiest pages stand alone, the rest together as (others). Pages are told apart by their first 512 characters; null: none '
  'was named.';
