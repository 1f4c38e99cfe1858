-- Whoever has no monitor can have alarms posted to a webhook: by pg_cron and pg_net, once enabled; off until then.

create table widget_internal.standing_alarms (
  alarm text not null,
  widget_id uuid,
  message text not null,
  since timestamptz not null default clock_timestamp(),
  told_at timestamptz not null default clock_timestamp(),
  constraint standing_alarms_stand_once unique nulls not distinct (alarm, widget_id)
);

comment on table widget_internal.standing_alarms is 'What was told to be not well, and not yet told to be well again.';

alter table widget_internal.standing_alarms enable row level security;
revoke all on table widget_internal.standing_alarms from public, anon, authenticated, service_role;


create function widget_internal.alert_body(alarms jsonb, cleared jsonb)
returns jsonb
language plpgsql stable
set search_path = ''
as $$
begin
  return jsonb_build_object(
    'text', (
      select string_agg(l.line, E'\n')
      from (
        (select 'Widget analytics: ' || (a.value ->> 'message') as line
          from jsonb_array_elements(alert_body.alarms) a limit 20)
        union all
        (select 'Widget analytics: well again: ' || (c.value ->> 'message')
          from jsonb_array_elements(alert_body.cleared) c limit 20)
      ) l
    ),
    'alarms', coalesce(alert_body.alarms, '[]'),
    'cleared', coalesce(alert_body.cleared, '[]')
  );
end
$$;

comment on function widget_internal.alert_body(jsonb, jsonb) is
  'The message for the webhook: text, as Slack and its like show it, and the same for programs.';

revoke all on function widget_internal.alert_body(jsonb, jsonb) from public, anon, authenticated, service_role;


create function widget_internal.send_alerts()
returns void
language plpgsql volatile
set search_path = ''
as $$
#variable_conflict use_column
declare
  v_settings widget_internal.alert_settings;
  v_alarms jsonb;
  v_cleared jsonb;
begin
  -- One at a time: the lock on the settings is held until the end.
  select s.* into v_settings from widget_internal.alert_settings s for update;
  if not found then
    return;
  end if;
  perform widget_internal.repost_alerts();

  with alarms as materialized (
    select a.* from public.widget_alarms(
      v_settings.min_delivery_rate, v_settings.min_completion_rate, v_settings.min_cases
    ) a
  ),
  told as (
    insert into widget_internal.standing_alarms as s (alarm, widget_id, message)
    select a.alarm, a.widget_id, a.message from alarms a
    on conflict on constraint standing_alarms_stand_once do update
    set message = excluded.message, told_at = excluded.told_at
    where s.told_at <= clock_timestamp() - v_settings.repeat_after
    returning s.alarm, s.widget_id, s.message
  ),
  cleared as (
    delete from widget_internal.standing_alarms s
    where not exists (select from alarms a where a.alarm = s.alarm and a.widget_id is not distinct from s.widget_id)
    returning s.alarm, s.widget_id, s.message
  )
  select
    (select jsonb_agg(to_jsonb(t) order by t.alarm, t.widget_id) from told t),
    (select jsonb_agg(to_jsonb(c) order by c.alarm, c.widget_id) from cleared c)
  into v_alarms, v_cleared;

  if v_alarms is not null or v_cleared is not null then
    insert into widget_internal.alert_posts (body, request_id)
    select b.body, widget_internal.post_alert(b.body)
    from (select widget_internal.alert_body(v_alarms, v_cleared) as body) b;
  end if;
end
$$;

comment on function widget_internal.send_alerts() is
  'Posts what is newly not well, again after repeat_after, and once what is well again; nothing where nothing changed.';

revoke all on function widget_internal.send_alerts() from public, anon, authenticated, service_role;


create function public.enable_widget_alerts(
  url text, min_delivery_rate numeric default 0.95, min_completion_rate numeric default 0.8,
  min_cases integer default 20, repeat_after interval default '6 hours'
)
returns void
language plpgsql volatile
set search_path = ''
as $$
begin
  if enable_widget_alerts.url is null or enable_widget_alerts.url !~ '^https?://[^[:space:]]+$' then
    raise exception 'url: must be an http or https URL' using errcode = 'invalid_parameter_value';
  elsif not exists (
    select from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace
    where n.nspname = 'net' and p.proname = 'http_post'
  ) then
    raise exception 'alerts need the extension pg_net'
      using errcode = 'undefined_function', hint = 'create extension pg_net, then try again.';
  end if;

  insert into widget_internal.alert_settings as s (url, min_delivery_rate, min_completion_rate, min_cases, repeat_after)
  values (
    enable_widget_alerts.url, enable_widget_alerts.min_delivery_rate, enable_widget_alerts.min_completion_rate,
    enable_widget_alerts.min_cases, enable_widget_alerts.repeat_after
  )
  on conflict (only_row) do update set
    url = excluded.url, min_delivery_rate = excluded.min_delivery_rate,
    min_completion_rate = excluded.min_completion_rate, min_cases = excluded.min_cases,
    repeat_after = excluded.repeat_after;
  perform cron.schedule('widget_send_alerts', '*/5 * * * *', 'select widget_internal.send_alerts()');
end
$$;

comment on function public.enable_widget_alerts(text, numeric, numeric, integer, interval) is
  'For the SQL editor: from now on every five minutes what widget_alarms() finds is posted to this URL, once, again '
  'after repeat_after, and when it is well again. Called again, it changes the settings. No API role may call it.';

revoke all on function public.enable_widget_alerts(text, numeric, numeric, integer, interval)
  from public, anon, authenticated, service_role;


create function public.disable_widget_alerts()
returns void
language plpgsql volatile
set search_path = ''
as $$
begin
  delete from widget_internal.alert_settings;
  delete from widget_internal.standing_alarms;
  delete from widget_internal.alert_posts;
  perform cron.unschedule(j.jobid) from cron.job j where j.jobname = 'widget_send_alerts';
end
$$;

comment on function public.disable_widget_alerts() is 'For the SQL editor: posts no alerts any more, and forgets the URL.';

revoke all on function public.disable_widget_alerts() from public, anon, authenticated, service_role;
