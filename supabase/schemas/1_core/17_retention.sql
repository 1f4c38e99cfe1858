-- Retention of the records of runs and the counts of refusals: how long they are kept, and what deletes them.

alter table widget_internal.settings
  add column keep_runs interval not null default '90 days',
  add column keep_refusals interval not null default '400 days',
  add constraint keep_runs_is_a_day_at_least check (keep_runs >= interval '1 day'),
  add constraint keep_refusals_is_a_day_at_least check (keep_refusals >= interval '1 day');

comment on column widget_internal.settings.keep_runs is
  'How long widget_cleanup_runs, and pg_cron''s own records of our jobs, are kept.';
comment on column widget_internal.settings.keep_refusals is 'How long the hours of widget_refusals are kept.';


create function widget_internal.prune()
returns table (cleanup_runs bigint, refusal_counts bigint, job_runs bigint, erased_events bigint, orphans bigint)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_settings widget_internal.settings;
  v_jobs bigint[];
  v_last bigint;
begin
  select s.* into strict v_settings from widget_internal.settings s;

  -- The latest stays, however old: it says since when there was none.
  delete from public.widget_cleanup_runs r
  where r.started_at < now() - v_settings.keep_runs
    and r.id < (select max(l.id) from public.widget_cleanup_runs l);
  get diagnostics prune.cleanup_runs = row_count;

  delete from widget_internal.refusal_counts c where c.hour < now() - v_settings.keep_refusals;
  get diagnostics prune.refusal_counts = row_count;

  prune.job_runs := 0;
  if to_regclass('cron.job_run_details') is not null then
    -- By number up to the youngest that is too old: a run that a crash cut short has no time of its own.
    select array_agg(j.jobid) into v_jobs from cron.job j where j.jobname like 'widget\_%';
    select max(d.runid) into v_last
    from cron.job_run_details d
    where d.jobid = any (v_jobs) and coalesce(d.end_time, d.start_time) < now() - v_settings.keep_runs;
    delete from cron.job_run_details d where d.jobid = any (v_jobs) and d.runid <= v_last;
    get diagnostics prune.job_runs = row_count;
  end if;

  -- What was erased in the last days is erased again where events came late, each time with a row in widget_erasures.
  select coalesce(sum((widget_internal.erase_session(r.widget_id, r.session_id) ->> 'erased')::bigint), 0)
  into prune.erased_events
  from (
    select s.widget_id, s.session_id, min(s.erased_at) as erased_at
    from public.widget_erasures s
    -- What happened before an erasure arrives at most 7 days after it: two days are left for a run that is missed.
    where s.erased_at > now() - interval '9 days'
    group by s.widget_id, s.session_id
  ) r
  where exists (
    select from public.widget_analytics e
    where e.widget_id = r.widget_id
      and e.session_id = r.session_id
      -- Senders are late by 7 days at most, so the index by widget and time finds them.
      and e."timestamp" >= r.erased_at - interval '8 days'
      and (
        e.page_url is not null or e.user_agent is not null
        or e.properties is distinct from widget_internal.billing_facts(e.source, e.properties)
      )
  );

  -- A browser is late by seven days at most, and health has a week to count what stays without a start. The company's own
  -- records may come at any time: what has an end of theirs waits for its start.
  delete from widget_internal.call_states c
  where c.started_at is null and c.last_event_at < now() - interval '14 days'
    and (c.end_claim[1] > array_position(widget_internal.event_sources(), 'browser')) is not true;
  get diagnostics prune.orphans = row_count;
  return next;
end
$$;

comment on function widget_internal.prune() is
  'Removes records of runs that are older than settings.keep_runs and counts of refusals older than keep_refusals, and says '
  'how many; repeats the erasures of the last days, for events that came late; forgets orphans. '
  'Touches neither calls nor bills, nor any job that is not ours.';
