-- Refreshing the counts of health, and rebuilding them.

create function public.refresh_widget_health(
  out counted_to timestamptz, out events_counted bigint, out events_left bigint
)
language plpgsql volatile
-- definer because service_role has no right to write the counts
security definer
set search_path = pg_catalog, pg_temp
-- A part of a large ledger is found by its index, however much of the ledger is still to count.
set enable_seqscan = off
-- What that adds to the cost of small tables would have each plan compiled.
set jit = off
as $$
declare
  -- Half of what the statement may take: the rest is for the last part, and for committing.
  v_until constant timestamptz := clock_timestamp()
    + least(coalesce(nullif(current_setting('statement_timeout')::interval, interval '0'), '2 minutes'), '2 minutes') / 2;
  v_from widget_internal.health_state;
  v_to widget_internal.health_state;
  v_cut_off timestamptz;
begin
  perform widget_internal.refuse_visitors();
  if current_setting('transaction_isolation') not in ('read committed', 'read uncommitted') then
    -- It would not see what is committed between its beginning and the cut-off, and nobody would count that again.
    raise exception 'health is counted in a read committed transaction only' using errcode = 'feature_not_supported';
  end if;

  -- One refresh at a time: the next one resumes where this one ends.
  select s.* into v_from from widget_internal.health_state s for update;
  v_to := v_from;
  v_cut_off := widget_internal.cut_off();
  events_counted := 0;
  while v_to.counted_to < v_cut_off and (events_counted = 0 or clock_timestamp() < v_until) loop
    events_counted := events_counted + widget_internal.count_health_part(v_cut_off);
    select s.* into v_to from widget_internal.health_state s;
  end loop;

  if date_trunc('hour', v_from.counted_to, 'UTC') < date_trunc('hour', v_to.counted_to, 'UTC') then
    delete from widget_internal.health_sessions s where s.last_received_at < v_to.counted_to - interval '7 days';
  end if;
  refresh_widget_health.counted_to := v_to.counted_to;
  select count(*) into events_left
  from (
    select from public.widget_analytics e
    where e.received_at between v_to.counted_to and v_cut_off
      and (e.received_at, e.id) > (v_to.counted_to, v_to.counted_to_id)
    limit 10000
  ) l;
end
$$;

comment on function public.refresh_widget_health() is
  'Brings widget_health, widget_pages and widget_response_times up to date. Reads what was received since the last time, '
  'not the ledger; pg_cron runs it every five minutes. Returns up to when everything is counted, and how many events were new. Does '
  'what fits into half of statement_timeout, a minute at most: events_left says how many are left for the next call (10000: that '
  'many or more).';

insert into widget_internal.scheduled_jobs (name, schedule, command)
values ('widget_refresh_health', '*/5 * * * *', 'select public.refresh_widget_health()');


create function widget_internal.rebuild_health()
returns bigint
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  if exists (select from widget_internal.call_states c where c.archived_at is not null) then
    raise exception 'health cannot be counted anew: events are in the archive, and their counts would be lost'
      using errcode = 'object_not_in_prerequisite_state', hint = 'What is counted of archived months stays as it is.';
  end if;

  perform from widget_internal.health_state for update;
  delete from widget_internal.health_sessions;
  delete from widget_internal.health_hours;
  delete from widget_internal.health_response_times;
  delete from widget_internal.health_pages;
  update widget_internal.health_state s set counted_to = default, counted_to_id = default;
  return (select r.events_counted from public.refresh_widget_health() r);
end
$$;

comment on function widget_internal.rebuild_health() is
  'Counts the whole ledger again, and returns how many events it has counted; what does not fit into its time, the next '
  'refreshes count. Needed only after somebody changed or deleted events by hand, or gave new ones a received_at of their '
  'own that lies in the past: those the refresh cannot notice.';
