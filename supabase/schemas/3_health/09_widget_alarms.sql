-- What is wrong now, in one list.

create function public.widget_alarms(
  min_delivery_rate numeric default 0.95, min_completion_rate numeric default 0.8, min_cases integer default 20,
  period interval default '24 hours'
)
returns table (alarm text, widget_id uuid, message text)
language plpgsql volatile
-- definer because service_role has no right on jobs and on the rights of others
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_run public.widget_cleanup_runs;
  v_state widget_internal.health_state;
begin
  perform widget_internal.refuse_visitors();
  select s.* into v_state from widget_internal.health_state s;
  select r.* into v_run from public.widget_cleanup_runs r order by r.id desc limit 1;
  if coalesce(v_run.started_at, v_state.installed_at) < now() - interval '35 minutes' then
    return query select 'cleanup_late', null::uuid, format(
      'the cleanup is late, it should run every 30 minutes and last ran %s: look at cron.job_run_details, or at '
      'whatever calls the Edge Function; widget-analytics cleanup runs it now',
      coalesce('at ' || to_char(v_run.started_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI') || ' UTC', 'never')
    );
  end if;
  if v_run.error is not null then
    return query select 'cleanup_failed', null::uuid, 'the last cleanup failed: ' || v_run.error
      || '; widget-analytics cleanup runs it again';
  end if;
  if greatest(v_state.counted_to, v_state.installed_at) < now() - interval '20 minutes' then
    return query select 'health_late', null::uuid,
      'health is not counted, refresh_widget_health() should run every 5 minutes: look at cron.job_run_details'::text;
  else
    -- What is not counted yet is no silence.
    return query select 'widget_silent', a.widget_id, a.message
      from widget_internal.silence_alarms(widget_alarms.min_cases, widget_alarms.period) a;
  end if;

  return query
  select v.alarm, r.widget_id, format(
    '%s: %s %% of the %s, expected at least %s %%: look at %s.sql', coalesce('widget ' || r.widget_id, 'all widgets'),
    round(100 * v.rate, 1), v.what, round(100 * v.least, 1), v.snippet
  )
  from public.widget_rates(now() - widget_alarms.period) r
  cross join lateral (values
    (
      'delivery_low', 'events arrived', 'widget_delivery_rate', r.events_expected, r.delivery_rate,
      widget_alarms.min_delivery_rate
    ),
    (
      'completion_low', 'calls that are over ended as somebody observed', 'widget_completion_rate',
      r.calls_started - r.calls_open, r.completion_rate, widget_alarms.min_completion_rate
    )
  ) v (alarm, what, snippet, cases, rate, least)
  where v.cases >= widget_alarms.min_cases and v.rate < v.least
  order by 1 desc, 2 nulls first;

  return query select a.* from widget_internal.refusal_alarms(widget_alarms.min_cases, now() - widget_alarms.period) a;
  return query select 'month_not_closed', null::uuid, format(
      '%1$s, the earliest: widget-analytics close --month %2$s, or select * from close_widget_billing_period(%2$L)',
      case count(*) when 1 then 'a month waits to be closed' else count(*) || ' months wait to be closed' end,
      to_char(min(m.month), 'YYYY-MM')
    )
    from public.widget_months_to_close() m
    -- Who never closes a month and has no plans bills by other means.
    where m.settled_at < now()
      and (exists (select from public.widget_plans) or exists (select from public.widget_billing_periods))
    having count(*) > 0;

  if to_regclass('cron.job') is not null then
    return query
    select 'job_missing', null::uuid, string_agg(case
      when j.jobid is null then format(
        'the job %s is missing, a restore does not bring it back: select cron.schedule(%L, %L, %L); if something other than '
        'pg_cron runs it: update widget_internal.settings set jobs_elsewhere = jobs_elsewhere || %L::text',
        w.name, w.name, w.schedule, w.command, w.name
      )
      when not j.active then format(
        'the job %s is disabled: select cron.alter_job(%s, active => true)', w.name, j.jobid
      )
      else format(
        'the job %s failed when it last ran, at %s UTC: %s; look at cron.job_run_details where jobid = %s', w.name,
        to_char(r.start_time at time zone 'UTC', 'YYYY-MM-DD HH24:MI'), coalesce(nullif(r.return_message, ''), 'no reason given'),
        j.jobid
      )
    end, E';\n')
    from widget_internal.scheduled_jobs w
    cross join widget_internal.settings s
    left join cron.job j on j.jobname = w.name and j.database = current_database()
    left join lateral (
      select d.* from cron.job_run_details d
      where d.jobid = j.jobid and d.status in ('succeeded', 'failed')
      order by d.runid desc
      limit 1
    ) r on true
    where w.name <> all (s.jobs_elsewhere)
      and (j.jobid is null or not j.active or r.status = 'failed')
    having count(*) > 0;
  end if;

  -- As an import or a replica may leave them.
  return query
  select 'trigger_disabled', null::uuid, string_agg(format(
    'triggers of %1$s are disabled, such as %2$s, and calls or bills no longer follow from events: alter table %1$s enable '
    'trigger user; then select widget_internal.rebuild_calls()', d.name, d.example
  ), E'\n')
  from (
    select c.oid::regclass as name, min(t.tgname::text) as example
    from pg_trigger t
    join pg_class c on c.oid = t.tgrelid
    join pg_namespace n on n.oid = c.relnamespace
    where t.tgenabled in ('D', 'R') and not t.tgisinternal and (
      n.nspname = 'widget_internal'
      or exists (select from widget_internal.rights r where r.object = format('table %I.%I', n.nspname, c.relname))
    )
    group by c.oid
  ) d
  having count(*) > 0;

  return query select 'rights_too_wide', null::uuid, format(
      '%s rights are wider than they were made, such as %s on %s for %s: select widget_internal.apply_rights()',
      count(*), min(d.privilege), min(d.object), min(d.grantee)
    )
    from widget_internal.rights_differences() d where d.problem = 'too wide'
    having count(*) > 0;
  return query select h ->> 'alarm', (h ->> 'widget_id')::uuid, h ->> 'message' from widget_internal.call_hooks('alarms') h;
end
$$;

comment on function public.widget_alarms(numeric, numeric, integer, interval) is
  'What is wrong, and what to do: cleanup_late, cleanup_failed, health_late, job_missing, trigger_disabled, rights_too_wide, '
  'month_not_closed; for each widget widget_silent, refusals_high, over_quota; and for each, and all of them together (no widget_id), '
  'delivery_low and completion_low, of the last 24 hours, where there were at least min_cases events expected, or calls that '
  'are over. Good: no rows.';
