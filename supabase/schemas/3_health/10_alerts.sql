-- Without a monitor of your own, alarms can be posted to a webhook: by pg_cron and pg_net, once enabled.

create table widget_internal.alert_settings (
  only_row boolean primary key default true,
  url text not null,
  min_delivery_rate numeric not null,
  min_completion_rate numeric not null,
  min_cases integer not null,
  repeat_after interval not null,
  told jsonb not null default '[]',
  telling jsonb,
  request_id bigint,
  posted_at timestamptz,
  constraint alert_settings_are_one_row check (only_row),
  constraint alert_rates_are_shares check (min_delivery_rate between 0 and 1 and min_completion_rate between 0 and 1),
  constraint alert_min_cases_is_positive check (min_cases > 0),
  constraint alert_repeat_after_is_positive check (repeat_after > interval '0')
);

comment on table widget_internal.alert_settings is 'Where alerts go, and when; no row while they are off. The URL is a secret.';
comment on column widget_internal.alert_settings.told is
  'The alarms that the webhook knows of: [{"alarm", "widget_id", "message", "told_at"}].';
comment on column widget_internal.alert_settings.telling is
  'What it will know of once it has taken the last post; null where nothing was to be posted.';
comment on column widget_internal.alert_settings.request_id is 'The last post, as pg_net numbers it.';

alter table widget_internal.alert_settings enable row level security;


create function widget_internal.send_alerts()
returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  -- By name at run time: the extension may come after these migrations, or never.
  v_schema constant name := 'net';
  v_settings widget_internal.alert_settings;
  v_status integer;
  v_new jsonb;
  v_cleared jsonb;
  v_text text;
begin
  -- One at a time: the lock is held until the end.
  select s.* into v_settings from widget_internal.alert_settings s for update;
  if not found then
    return;
  end if;
  execute format('select r.status_code from %I._http_response r where r.id = $1', v_schema)
  into v_status using v_settings.request_id;
  if v_status between 200 and 299 then
    v_settings.told := coalesce(v_settings.telling, v_settings.told);
  elsif v_status is null and v_settings.posted_at > clock_timestamp() - interval '1 minute' then
    return;  -- on its way
  end if;

  -- What it did not take is still not told, and is posted again.
  with known as (
    select to_jsonb(a) as alarm, t.told,
      (t.told ->> 'told_at')::timestamptz > clock_timestamp() - v_settings.repeat_after is not true as is_due
    from public.widget_alarms(v_settings.min_delivery_rate, v_settings.min_completion_rate, v_settings.min_cases) a
    full join jsonb_array_elements(v_settings.told) t (told)
      on concat_ws(' ', t.told ->> 'alarm', t.told ->> 'widget_id') = concat_ws(' ', a.alarm, a.widget_id)
  )
  select
    jsonb_agg(k.alarm order by k.alarm) filter (where k.alarm is not null and k.is_due),
    jsonb_agg(k.told - 'told_at' order by k.told) filter (where k.alarm is null),
    coalesce(jsonb_agg(
      case when k.is_due then k.alarm || jsonb_build_object('told_at', clock_timestamp()) else k.told end
    ) filter (where k.alarm is not null), '[]')
  into v_new, v_cleared, v_settings.telling
  from known k;

  if v_new is null and v_cleared is null then
    v_settings.telling := null;
  else
    select string_agg('Widget analytics: ' || l.line, E'\n') into v_text
    from (
      select a ->> 'message' as line from jsonb_path_query(v_new, '$[0 to 19]') a
      union all
      select 'well again: ' || (c ->> 'message') from jsonb_path_query(v_cleared, '$[0 to 19]') c
    ) l;
    execute format('select %I.http_post(url := $1, body := $2, timeout_milliseconds := 5000)', v_schema)
    into v_settings.request_id using v_settings.url, jsonb_build_object(
      'text', v_text, 'alarms', coalesce(v_new, '[]'), 'cleared', coalesce(v_cleared, '[]')
    );
    v_settings.posted_at := clock_timestamp();
  end if;
  update widget_internal.alert_settings s
  set told = v_settings.told, telling = v_settings.telling, request_id = v_settings.request_id,
    posted_at = v_settings.posted_at;
end
$$;

comment on function widget_internal.send_alerts() is
  'Posts new alarms, repeats them after repeat_after, and posts once that they are over; nothing where nothing changed. What the '
  'webhook did not take is posted again for as long as it holds. The body''s text is what Slack and similar services show.';


create function public.enable_widget_alerts(
  url text, min_delivery_rate numeric default 0.95, min_completion_rate numeric default 0.8,
  min_cases integer default 20, repeat_after interval default '6 hours'
)
returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  perform widget_internal.refuse_visitors();
  if enable_widget_alerts.url is null or enable_widget_alerts.url !~ '^https?://[^[:space:]]+$' then
    raise exception 'url: must be an http or https URL' using errcode = 'invalid_parameter_value';
  elsif not exists (
    select from pg_proc p join pg_namespace n on n.oid = p.pronamespace where n.nspname = 'net' and p.proname = 'http_post'
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
  insert into widget_internal.scheduled_jobs (name, schedule, command)
  values ('widget_send_alerts', '*/5 * * * *', 'select widget_internal.send_alerts()')
  on conflict do nothing;
  perform widget_internal.schedule_jobs('widget_send_alerts');
end
$$;

comment on function public.enable_widget_alerts(text, numeric, numeric, integer, interval) is
  'For the SQL editor: from now on every five minutes what widget_alarms() finds is posted to this URL, once, again '
  'after repeat_after, and when it is over. Called again, it changes the settings. No API role may call it.';


create function public.disable_widget_alerts()
returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  perform widget_internal.refuse_visitors();
  delete from widget_internal.alert_settings;
  delete from widget_internal.scheduled_jobs j where j.name = 'widget_send_alerts';
  perform cron.unschedule(j.jobid) from cron.job j where j.jobname = 'widget_send_alerts';
end
$$;

comment on function public.disable_widget_alerts() is 'For the SQL editor: posts no alerts any more, and forgets the URL.';
