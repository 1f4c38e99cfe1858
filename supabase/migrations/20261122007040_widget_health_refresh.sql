-- Counts what came in since the last time: each event once, and again all that its session's calls depend on.

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
    select n.widget_id, n.hour, ceil(ln(greatest(n.response_ms, 1)::double precision) / ln(1.1::double precision)), count(*)
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

revoke all on function widget_internal.count_events(timestamptz, timestamptz)
  from public, anon, authenticated, service_role;


create function public.refresh_widget_health(out counted_to timestamptz, out events_counted bigint)
language plpgsql volatile
-- definer because service_role has no right to write the counts
security definer
set search_path = ''
as $$
declare
  v_from timestamptz;
begin
  if current_setting('transaction_isolation') not in ('read committed', 'read uncommitted') then
    -- It would not see what is committed between its beginning and the cut-off, and nobody would count that again.
    raise exception 'health is counted in a read committed transaction only' using errcode = 'feature_not_supported';
  end if;

  -- One refresh at a time: the next one goes on where this one ends.
  select s.counted_to into v_from from widget_internal.health_state s for update;
  refresh_widget_health.counted_to := widget_internal.cut_off();
  refresh_widget_health.events_counted := widget_internal.count_events(v_from, refresh_widget_health.counted_to);
  if refresh_widget_health.events_counted > 0 then
    perform widget_internal.rank_response_times(v_from, refresh_widget_health.counted_to);
    perform widget_internal.count_sessions(v_from, refresh_widget_health.counted_to);
    perform widget_internal.count_calls(v_from, refresh_widget_health.counted_to);
  end if;
  update widget_internal.health_state s set counted_to = refresh_widget_health.counted_to;
end
$$;

comment on function public.refresh_widget_health() is
  'Brings widget_health, widget_pages and widget_response_times up to now. Reads what was received since the last time, '
  'not the ledger; pg_cron runs it every five minutes. Answers up to when, and how many events were new.';

revoke all on function public.refresh_widget_health() from public, anon, authenticated, service_role;
grant execute on function public.refresh_widget_health() to service_role;


create function widget_internal.rebuild_health()
returns bigint
language plpgsql volatile
set search_path = ''
as $$
begin
  if isfinite(widget_internal.health_archived_to()) then
    raise exception 'health cannot be counted anew: events up to % are in the archive, and their counts would be lost',
      widget_internal.health_archived_to()
      using errcode = 'object_not_in_prerequisite_state', hint = 'What is counted of archived months stays as it is.';
  end if;

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

revoke all on function widget_internal.rebuild_health() from public, anon, authenticated, service_role;
