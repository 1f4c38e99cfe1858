-- A webhook that is down misses nothing: what was posted to it is kept until it says that it took it.

create table widget_internal.alert_settings (
  only_row boolean primary key default true,
  url text not null,
  min_delivery_rate numeric not null,
  min_completion_rate numeric not null,
  min_cases integer not null,
  repeat_after interval not null,
  constraint alert_settings_are_one_row check (only_row),
  constraint alert_url_is_http check (url ~ '^https?://[^[:space:]]+$'),
  constraint alert_rates_are_shares check (min_delivery_rate between 0 and 1 and min_completion_rate between 0 and 1),
  constraint alert_min_cases_is_positive check (min_cases > 0),
  constraint alert_repeat_after_is_positive check (repeat_after > interval '0')
);

comment on table widget_internal.alert_settings is 'Where alerts go, and when; no row while they are off. The URL is a secret.';

alter table widget_internal.alert_settings enable row level security;
revoke all on table widget_internal.alert_settings from public, anon, authenticated, service_role;


create table widget_internal.alert_posts (
  id bigint generated always as identity primary key,
  body jsonb not null,
  request_id bigint not null,
  first_posted_at timestamptz not null default clock_timestamp(),
  posted_at timestamptz not null default clock_timestamp(),
  taken boolean not null default false
);

comment on table widget_internal.alert_posts is
  'What was posted to the webhook in the last 30 days, as which request of pg_net, and whether it was taken.';

alter table widget_internal.alert_posts enable row level security;
revoke all on table widget_internal.alert_posts from public, anon, authenticated, service_role;
revoke all on sequence widget_internal.alert_posts_id_seq from public, anon, authenticated, service_role;


create function widget_internal.post_alert(body jsonb)
returns bigint
language plpgsql volatile
set search_path = ''
as $$
declare
  -- By name at run time: the extension may come after these migrations, or never.
  v_schema constant name := 'net';
  v_request_id bigint;
begin
  execute format('select %I.http_post(url := $1, body := $2, timeout_milliseconds := 5000)', v_schema)
  into v_request_id
  using (select s.url from widget_internal.alert_settings s), post_alert.body;
  return v_request_id;
end
$$;

comment on function widget_internal.post_alert(jsonb) is 'Hands a message for the webhook to pg_net, which sends it after commit.';

revoke all on function widget_internal.post_alert(jsonb) from public, anon, authenticated, service_role;


create function widget_internal.repost_alerts()
returns void
language plpgsql volatile
set search_path = ''
as $$
declare
  v_schema constant name := 'net';
begin
  -- pg_net tries once and keeps the answer for some hours: what got no 2xx is posted again, for a day.
  execute format(
    $sql$
      update widget_internal.alert_posts p set taken = true
      from %I._http_response r
      where r.id = p.request_id and not p.taken and r.status_code between 200 and 299
    $sql$,
    v_schema
  );
  update widget_internal.alert_posts p
  set request_id = widget_internal.post_alert(p.body), posted_at = clock_timestamp()
  where not p.taken
    and p.posted_at < clock_timestamp() - interval '1 minute'
    and p.first_posted_at > clock_timestamp() - interval '1 day';
  delete from widget_internal.alert_posts p where p.first_posted_at < clock_timestamp() - interval '30 days';
end
$$;

comment on function widget_internal.repost_alerts() is 'Posts again what the webhook did not take.';

revoke all on function widget_internal.repost_alerts() from public, anon, authenticated, service_role;
