-- Counts what came in since the last time: each event once, and again all that its session's calls depend on.

create function widget_internal.numbers_seen(seqs int4multirange)
returns integer
language plpgsql immutable
set search_path = ''
as $$
begin
  return (select coalesce(sum(upper(r) - lower(r)), 0) from unnest(numbers_seen.seqs) r);
end
$$;

comment on function widget_internal.numbers_seen(int4multirange) is 'How many different numbers there are in it.';


create function widget_internal.orphan_ends(widget_id uuid, session_id text)
returns integer
language plpgsql stable
set search_path = ''
as $$
begin
  return (
    with call_events as (
      select e.*,
        -- As in session_calls(): an end that names no call ends the one that was opened before it, if any.
        count(*) filter (where e.event_type = 'call_start') over (
          partition by e.call_id is null
          order by e."timestamp", coalesce(e.seq, 0), e.event_type <> 'call_start', e.id
        ) as starts_so_far
      from public.widget_analytics e
      where e.widget_id = orphan_ends.widget_id
        and e.session_id = orphan_ends.session_id
        and e.event_type in ('call_start', 'call_heartbeat', 'call_end', 'call_error')
    )
    select count(*)
    from call_events e
    where e.event_type in ('call_end', 'call_error')
      and case
        when e.call_id is null then e.starts_so_far = 0
        else not exists (
          select from public.widget_calls c
          where c.widget_id = e.widget_id and c.session_id = e.session_id and c.call_id = e.call_id
        )
      end
  );
end
$$;

comment on function widget_internal.orphan_ends(uuid, text) is 'How many ends of a session belong to no call (R4).';


create function widget_internal.changed_health_sessions(received_after timestamptz, received_to timestamptz)
returns setof widget_internal.health_sessions
language plpgsql stable
set search_path = ''
as $$
begin
  return query
  with new as (
    select
      e.widget_id, e.session_id, min(e."timestamp") as first_at,
      -- Above ten thousand a number is a fault or a forgery, and would drown the rate of its hour.
      range_agg(int4range(e.seq, e.seq, '[]')) filter (where e.seq <= 10000) as seqs,
      (array_agg(e."timestamp" order by e."timestamp", left(e.page_url, 512) collate "C") filter (where e.page_url <> ''))[1] as page_at,
      (array_agg(left(e.page_url, 512) order by e."timestamp", left(e.page_url, 512) collate "C") filter (where e.page_url <> ''))[1] as page_url,
      count(*) filter (where e.event_type = 'widget_load') as loads,
      count(*) filter (where e.event_type = 'widget_open') as opens,
      bool_or(e.event_type in ('call_start', 'call_end', 'call_error')) as calls_changed
    from public.widget_analytics e
    where e.received_at > changed_health_sessions.received_after
      and e.received_at <= changed_health_sessions.received_to
    group by e.widget_id, e.session_id
  )
  select
    n.widget_id, n.session_id::text, least(n.first_at, s.first_at),
    coalesce(n.seqs, '{}') + coalesce(s.seqs, '{}'),
    case when p.is_earlier then n.page_at else s.page_at end,
    coalesce(case when p.is_earlier then n.page_url else s.page_url end, ''),
    n.loads::integer + coalesce(s.loads, 0), n.opens::integer + coalesce(s.opens, 0),
    c.calls::integer, coalesce(c.hours, '{}'),
    case when n.calls_changed then widget_internal.orphan_ends(n.widget_id, n.session_id) else coalesce(s.orphan_ends, 0) end
  from new n
  left join widget_internal.health_sessions s on s.widget_id = n.widget_id and s.session_id = n.session_id
  cross join lateral (
    select s.page_at is null or (n.page_at, n.page_url collate "C") < (s.page_at, s.page_url) as is_earlier
  ) p
  cross join lateral (
    select count(*) as calls, array_agg(distinct date_trunc('hour', c.started_at, 'UTC')) as hours
    from public.widget_calls c
    where c.widget_id = n.widget_id and c.session_id = n.session_id
  ) c;
end
$$;

comment on function widget_internal.changed_health_sessions(timestamptz, timestamptz) is
  'The sessions of which events were received in (received_after, received_to], as they are with those.';


create function widget_internal.count_sessions(received_after timestamptz, received_to timestamptz)
returns void
language plpgsql volatile
set search_path = ''
as $$
begin
  with after as materialized (
    select * from widget_internal.changed_health_sessions(count_sessions.received_after, count_sessions.received_to)
  ),
  before as materialized (
    select s.* from after a join widget_internal.health_sessions s using (widget_id, session_id)
  ),
  stored as (
    insert into widget_internal.health_sessions as s select a.* from after a
    on conflict on constraint health_sessions_pkey do update set
      first_at = excluded.first_at, seqs = excluded.seqs, page_at = excluded.page_at, page_url = excluded.page_url,
      loads = excluded.loads, opens = excluded.opens, calls = excluded.calls, call_hours = excluded.call_hours,
      orphan_ends = excluded.orphan_ends
  ),
  -- What a session added before is taken away again.
  changes as (select 1 as sign, a.* from after a union all select -1, b.* from before b),
  pages as (
    insert into widget_internal.health_pages as p (widget_id, day, page_url, host, sessions, loads, opens, calls)
    select
      c.widget_id, (c.first_at at time zone 'UTC')::date, c.page_url,
      coalesce(widget_internal.url_host(c.page_url), ''),
      sum(c.sign), sum(c.sign * c.loads), sum(c.sign * c.opens), sum(c.sign * c.calls)
    from changes c
    group by 1, 2, 3
    on conflict on constraint health_pages_pkey do update set
      sessions = p.sessions + excluded.sessions, loads = p.loads + excluded.loads,
      opens = p.opens + excluded.opens, calls = p.calls + excluded.calls
  ),
  hours as (
    insert into widget_internal.health_hours as h (widget_id, hour, sessions, events_numbered, events_expected, orphan_ends)
    select
      c.widget_id, date_trunc('hour', c.first_at, 'UTC'), sum(c.sign),
      sum(c.sign * widget_internal.numbers_seen(c.seqs)), sum(c.sign * coalesce(upper(c.seqs) - 1, 0)),
      sum(c.sign * c.orphan_ends)
    from changes c
    group by 1, 2
    on conflict on constraint health_hours_pkey do update set
      sessions = h.sessions + excluded.sessions, events_numbered = h.events_numbered + excluded.events_numbered,
      events_expected = h.events_expected + excluded.events_expected, orphan_ends = h.orphan_ends + excluded.orphan_ends
  )
  insert into widget_internal.health_calls as k
  select k.* from (
    select distinct c.widget_id, hour from changes c cross join lateral unnest(c.call_hours) hour
  ) d
  cross join lateral widget_internal.calls_of_hour(d.widget_id, d.hour) k
  on conflict on constraint health_calls_pkey do update set
    calls_started = excluded.calls_started, calls_open = excluded.calls_open, calls_observed = excluded.calls_observed,
    calls_provider = excluded.calls_provider, calls_operator = excluded.calls_operator,
    calls_heartbeat = excluded.calls_heartbeat, calls_assumed = excluded.calls_assumed,
    calls_failed = excluded.calls_failed;
end
$$;

comment on function widget_internal.count_sessions(timestamptz, timestamptz) is
  'Brings sessions, pages and calls up to date with the events received in (received_after, received_to].';


create function widget_internal.calls_of_hour(widget_id uuid, hour timestamptz)
returns setof widget_internal.health_calls
language plpgsql stable
set search_path = ''
as $$
begin
  return query
  select
    calls_of_hour.widget_id, calls_of_hour.hour, count(*), count(*) filter (where c.outcome = 'open'),
    count(*) filter (where c.evidence = 'observed'), count(*) filter (where c.evidence = 'provider'),
    count(*) filter (where c.evidence = 'operator'), count(*) filter (where c.evidence = 'heartbeat'),
    count(*) filter (where c.evidence = 'assumed'), count(*) filter (where c.outcome = 'failed')
  from public.widget_calls c
  where c.widget_id = calls_of_hour.widget_id
    and c.started_at >= calls_of_hour.hour
    and c.started_at < calls_of_hour.hour + interval '1 hour';
end
$$;

comment on function widget_internal.calls_of_hour(uuid, timestamptz) is 'One widget''s calls that started in one hour, counted.';


create function widget_internal.count_events(received_after timestamptz, received_to timestamptz)
returns bigint
language plpgsql volatile
set search_path = ''
as $$
declare
  v_events bigint;
begin
  with new as materialized (
    select
      e.widget_id, e.event_type, date_trunc('hour', e."timestamp", 'UTC') as hour,
      case when e.source = 'browser' and jsonb_typeof(e.properties -> 'rtt_ms') = 'number'
        then (e.properties ->> 'rtt_ms')::numeric end as response_ms
    from public.widget_analytics e
    where e.received_at > count_events.received_after and e.received_at <= count_events.received_to
  ),
  hours as (
    insert into widget_internal.health_hours as h (widget_id, hour, events_received, loads, opens)
    select
      n.widget_id, n.hour, count(*),
      count(*) filter (where n.event_type = 'widget_load'), count(*) filter (where n.event_type = 'widget_open')
    from new n
    group by n.widget_id, n.hour
    on conflict on constraint health_hours_pkey do update set
      events_received = h.events_received + excluded.events_received,
      loads = h.loads + excluded.loads, opens = h.opens + excluded.opens
  ),
  response_times as (
    insert into widget_internal.health_response_times as r (widget_id, hour, bucket, answers)
    select n.widget_id, n.hour, ceil(ln(greatest(n.response_ms, 1)) / ln(1.1)), count(*)
    from new n
    -- Ten minutes: no sender waits longer, and what says so is made up.
    where n.response_ms between 0 and 600000
    group by 1, 2, 3
    on conflict on constraint health_response_times_pkey do update set answers = r.answers + excluded.answers
  )
  select count(*) into v_events from new;
  return v_events;
end
$$;

comment on function widget_internal.count_events(timestamptz, timestamptz) is
  'Adds the events received in (received_after, received_to] to the counts of their hours, and says how many they were.';


create function public.refresh_widget_health(out counted_to timestamptz, out events_counted bigint)
language plpgsql volatile
-- definer because service_role has no right to write the counts
security definer
set search_path = ''
as $$
declare
  v_from timestamptz;
begin
  -- One refresh at a time: the next one goes on where this one ends.
  select s.counted_to into v_from from widget_internal.health_state s for update;
  refresh_widget_health.counted_to := widget_internal.cut_off();
  refresh_widget_health.events_counted := widget_internal.count_events(v_from, refresh_widget_health.counted_to);
  if refresh_widget_health.events_counted > 0 then
    perform widget_internal.count_sessions(v_from, refresh_widget_health.counted_to);
  end if;
  update widget_internal.health_state s set counted_to = refresh_widget_health.counted_to;
end
$$;

comment on function public.refresh_widget_health() is
  'Brings widget_health, widget_pages and widget_response_times up to now. Reads what was received since the last time, '
  'not the ledger; pg_cron runs it every five minutes. Answers up to when, and how many events were new.';


create function widget_internal.rebuild_health()
returns bigint
language plpgsql volatile
set search_path = ''
as $$
begin
  perform from widget_internal.health_state for update;
  delete from widget_internal.health_sessions;
  delete from widget_internal.health_hours;
  delete from widget_internal.health_calls;
  delete from widget_internal.health_response_times;
  delete from widget_internal.health_pages;
  update widget_internal.health_state set counted_to = '-infinity';
  return (select r.events_counted from public.refresh_widget_health() r);
end
$$;

comment on function widget_internal.rebuild_health() is
  'Counts the whole ledger anew. Needed only after somebody changed or deleted events by hand, or gave new ones a '
  'received_at of their own that lies in the past: those the refresh cannot notice.';

revoke all on function widget_internal.numbers_seen(int4multirange) from public, anon, authenticated, service_role;
revoke all on function widget_internal.orphan_ends(uuid, text) from public, anon, authenticated, service_role;
revoke all on function widget_internal.changed_health_sessions(timestamptz, timestamptz)
  from public, anon, authenticated, service_role;
revoke all on function widget_internal.calls_of_hour(uuid, timestamptz) from public, anon, authenticated, service_role;
revoke all on function widget_internal.count_sessions(timestamptz, timestamptz)
  from public, anon, authenticated, service_role;
revoke all on function widget_internal.count_events(timestamptz, timestamptz)
  from public, anon, authenticated, service_role;
revoke all on function public.refresh_widget_health() from public, anon, authenticated, service_role;
revoke all on function widget_internal.rebuild_health() from public, anon, authenticated, service_role;
grant execute on function public.refresh_widget_health() to service_role;
