-- Over quota is refused (R8): more events than so many of one widget a day, or of one sender a minute.

-- Counting each event would make a queue of a busy widget's senders. Of large quotas only one event in 64 is counted,
-- for 64; and each database connection counts in a row of its own.

alter table widget_internal.settings
  add column events_per_widget_per_day bigint default 1000000,
  add column events_per_sender_per_minute bigint default 3000,
  add column sender_address_hop integer not null default 1,
  add column events_per_count integer not null default 46,
  add column widgets_throttled_until timestamptz not null default '-infinity',
  add column senders_throttled_until timestamptz not null default '-infinity',
  add constraint quotas_are_positive check (events_per_widget_per_day > 0 and events_per_sender_per_minute > 0),
  add constraint sender_address_hop_starts_at_1 check (sender_address_hop >= 1),
  add constraint events_per_count_are_1_to_64 check (events_per_count between 1 and 64);

comment on column widget_internal.settings.events_per_widget_per_day is
  'How many events of a widget are taken in a day (UTC); null: any number. widget_quotas says otherwise for one widget.';
comment on column widget_internal.settings.events_per_sender_per_minute is
  'How many events are taken from one network address (IPv6: one /64) in a minute; null: any number.';
comment on column widget_internal.settings.sender_address_hop is
  'Which address of X-Forwarded-For is the sender''s, counted from its right end, where the nearest proxy writes: 1 is '
  'the last. Anyone can write what stands further left than your own proxies do.';
comment on column widget_internal.settings.events_per_count is
  'One event in so many is counted, for so many. Kept by a trigger: 64, or less where a quota is small.';
comment on column widget_internal.settings.widgets_throttled_until is 'Until when some widget is over its quota; kept by the door.';
comment on column widget_internal.settings.senders_throttled_until is 'Until when some sender is over its quota; kept by the door.';


create table public.widget_quotas (
  widget_id uuid primary key,
  events_per_day bigint,
  constraint events_per_day_is_positive check (events_per_day > 0)
);

comment on table public.widget_quotas is 'Widgets whose daily quota is not the one of the settings.';
comment on column public.widget_quotas.events_per_day is 'How many events are taken in a day (UTC); null: any number.';

alter table public.widget_quotas enable row level security;
revoke all on table public.widget_quotas from public, anon, authenticated, service_role;
grant select on table public.widget_quotas to authenticated;
grant select, insert, update, delete on table public.widget_quotas to service_role;

create policy "owners see their widgets' quotas" on public.widget_quotas
  for select to authenticated
  using (widget_id = any (array(select widget_internal.owned_widget_ids())));


create table widget_internal.event_counts (
  -- A widget's id, or a sender(): neither can be taken for the other.
  subject uuid not null,
  window_start timestamptz not null,
  shard smallint not null,
  events bigint not null,
  constraint event_counts_are_one_row_a_shard primary key (subject, window_start, shard),
  constraint events_are_positive check (events > 0)
) with (fillfactor = 50);

comment on table widget_internal.event_counts is 'Events towards a quota, of a widget and day or of a sender and minute.';

create table widget_internal.throttles (
  subject uuid primary key,
  until timestamptz not null
);

comment on table widget_internal.throttles is 'Who is over quota, and until when: a widget, or a sender().';

create table widget_internal.sender_salts (
  day date primary key,
  -- Two random UUIDs: 244 random bits, with no extension needed.
  salt bytea not null default uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())
);

comment on table widget_internal.sender_salts is
  'The day''s key for hashing addresses. Once it is deleted, nobody can tell whose address a hash was of.';

alter table widget_internal.event_counts enable row level security;
alter table widget_internal.throttles enable row level security;
alter table widget_internal.sender_salts enable row level security;
revoke all on table widget_internal.event_counts from public, anon, authenticated, service_role;
revoke all on table widget_internal.throttles from public, anon, authenticated, service_role;
revoke all on table widget_internal.sender_salts from public, anon, authenticated, service_role;


create function widget_internal.sender_network()
returns text
language plpgsql stable
set search_path = ''
as $$
declare
  v_addresses constant text[] := string_to_array(widget_internal.request_header('x-forwarded-for'), ',');
  v_address text;
begin
  select nullif(trim(v_addresses[cardinality(v_addresses) - s.sender_address_hop + 1]), '') into v_address
  from widget_internal.settings s;
  -- Who has one IPv6 address has the whole /64.
  return case family(v_address::inet) when 6 then network(set_masklen(v_address::inet, 64))::text else host(v_address::inet) end;
exception
  when invalid_text_representation then
    return v_address;
end
$$;

comment on function widget_internal.sender_network() is
  'The sender''s address of this request, IPv6 without its last 64 bits; null where no proxy names one.';


create function widget_internal.sender()
returns uuid
language plpgsql volatile
set search_path = ''
as $$
declare
  v_network constant text := widget_internal.sender_network();
  v_today constant date := clock_timestamp() at time zone 'UTC';
  v_salt bytea;
begin
  loop
    select s.salt into v_salt from widget_internal.sender_salts s where s.day = v_today;
    exit when found;
    insert into widget_internal.sender_salts (day) values (v_today) on conflict do nothing;
  end loop;
  return encode(substring(sha256(v_salt || convert_to(v_network, 'UTF8')) for 16), 'hex')::uuid;
end
$$;

comment on function widget_internal.sender() is
  'A keyed hash of the sender''s address, another one each day: the address itself is never stored. Null where it is not known.';


create function widget_internal.count_towards_quota(
  subject uuid, window_start timestamptz, window_end timestamptz, shard integer, events bigint, quota bigint
)
returns timestamptz
language plpgsql volatile
set search_path = ''
as $$
declare
  v_events bigint;
begin
  insert into widget_internal.event_counts as c (subject, window_start, shard, events)
  values (
    count_towards_quota.subject, count_towards_quota.window_start, count_towards_quota.shard, count_towards_quota.events
  )
  on conflict on constraint event_counts_are_one_row_a_shard do update set events = c.events + excluded.events;

  select sum(c.events) into v_events
  from widget_internal.event_counts c
  where c.subject = count_towards_quota.subject and c.window_start = count_towards_quota.window_start;
  if v_events <= count_towards_quota.quota then
    return null;
  end if;

  insert into widget_internal.throttles as t (subject, until)
  values (count_towards_quota.subject, count_towards_quota.window_end)
  on conflict on constraint throttles_pkey do update set until = excluded.until;
  return count_towards_quota.window_end;
end
$$;

comment on function widget_internal.count_towards_quota(uuid, timestamptz, timestamptz, integer, bigint, bigint) is
  'Adds events to a subject''s count of a window. Where that is then over the quota: throttles the subject until the '
  'window''s end, and answers that moment.';


create function widget_internal.count_event(widget_id uuid, events bigint)
returns timestamptz
language plpgsql volatile
set search_path = ''
as $$
declare
  v_day constant timestamptz := date_trunc('day', clock_timestamp(), 'UTC');
  v_minute constant timestamptz := date_trunc('minute', clock_timestamp());
  v_sender uuid;
  v_quota record;
  v_shard integer;
  v_until timestamptz;
begin
  select
    case when q.widget_id is null then s.events_per_widget_per_day else q.events_per_day end as of_widget,
    s.events_per_sender_per_minute as of_sender, s.events_per_count as weight
  into v_quota
  from widget_internal.settings s
  left join public.widget_quotas q on q.widget_id = count_event.widget_id;

  -- Who counts in a row of its own does not see what others are about to add. Where that could be much of a quota, all
  -- count in one row, one after the other.
  v_shard := case when v_quota.weight = 1 or count_event.events > v_quota.weight then 0 else 1 + pg_backend_pid() % 16 end;

  if v_quota.of_widget is not null then
    v_until := widget_internal.count_towards_quota(
      count_event.widget_id, v_day, v_day + interval '1 day', v_shard, count_event.events,
      -- An estimate from samples is four of its standard deviations off once in 30,000 times: ending so much
      -- earlier, what is stored stays within the quota.
      v_quota.of_widget
        - case when v_quota.weight > 1 then ceil(4 * sqrt(v_quota.weight * v_quota.of_widget))::bigint else 0 end
    );
    update widget_internal.settings s set widgets_throttled_until = v_until where s.widgets_throttled_until < v_until;
  end if;

  -- The company's own backend may speak for many.
  if v_until is null and v_quota.of_sender is not null and current_setting('role') <> 'service_role' then
    v_sender := widget_internal.sender();
    if v_sender is not null then
      v_until := widget_internal.count_towards_quota(
        v_sender, v_minute, v_minute + interval '1 minute', v_shard, count_event.events, v_quota.of_sender
      );
      update widget_internal.settings s set senders_throttled_until = v_until where s.senders_throttled_until < v_until;
    end if;
  end if;
  return v_until;
end
$$;

comment on function widget_internal.count_event(uuid, bigint) is
  'Counts so many events of a widget towards its quota and the sender''s; answers until when more are refused, else null.';


create function widget_internal.over_quota(widget_id uuid, events integer, are_counted boolean)
returns timestamptz
language plpgsql volatile
set search_path = ''
as $$
declare
  v_now constant timestamptz := clock_timestamp();
  v_settings record;
  v_until timestamptz;
begin
  select s.events_per_count, s.widgets_throttled_until, s.senders_throttled_until into v_settings
  from widget_internal.settings s;

  if v_settings.widgets_throttled_until > v_now then
    select t.until into v_until from widget_internal.throttles t where t.subject = over_quota.widget_id;
    if v_until > v_now then
      return v_until;
    end if;
  end if;
  if v_settings.senders_throttled_until > v_now then
    select t.until into v_until from widget_internal.throttles t where t.subject = widget_internal.sender();
    if v_until > v_now then
      return v_until;
    end if;
  end if;

  if not over_quota.are_counted then
    return null;
  end if;
  return widget_internal.count_event(
    over_quota.widget_id, greatest(over_quota.events, v_settings.events_per_count)
  );
end
$$;

comment on function widget_internal.over_quota(uuid, integer, boolean) is
  'Until when so many more events of a widget are refused by its quota or the sender''s; null where they may be stored. '
  'are_counted: whether these are of the sample that is counted, for all (settings.events_per_count).';


create function widget_internal.apply_quotas()
returns trigger
language plpgsql volatile
-- definer because who may change a quota need have no right on who is over it
security definer
set search_path = ''
as $$
begin
  -- Whoever is over the new quota is throttled again at its next event that is counted.
  delete from widget_internal.throttles;
  -- A sample is a fair estimate of a large number only.
  update widget_internal.settings s set events_per_count = coalesce(
    (
      select greatest(1, least(64, min(quota.one_in)))
      from (
        select s.events_per_widget_per_day / 4096
        union all select s.events_per_sender_per_minute / 64
        union all select q.events_per_day / 4096 from public.widget_quotas q
      ) quota (one_in)
    ),
    64
  );
  return null;
end
$$;

comment on function widget_internal.apply_quotas() is 'After a quota changed: lifts what rested on the old one.';


create function widget_internal.forget_senders()
returns void
language plpgsql volatile
set search_path = ''
as $$
declare
  v_today constant timestamptz := date_trunc('day', now(), 'UTC');
begin
  delete from widget_internal.sender_salts s where s.day < v_today at time zone 'UTC';
  delete from widget_internal.throttles t where t.until < now();
  -- A day's counts start at its midnight; all that start at another time of a past hour are of a minute.
  delete from widget_internal.event_counts c
  where c.window_start < v_today or (c.window_start <> v_today and c.window_start < now() - interval '1 hour');
end
$$;

comment on function widget_internal.forget_senders() is
  'Deletes past days'' salts, without which no hash can be traced to an address, and counts that no quota needs.';

revoke all on function widget_internal.sender_network() from public, anon, authenticated, service_role;
revoke all on function widget_internal.sender() from public, anon, authenticated, service_role;
revoke all on function widget_internal.count_towards_quota(uuid, timestamptz, timestamptz, integer, bigint, bigint)
  from public, anon, authenticated, service_role;
revoke all on function widget_internal.count_event(uuid, bigint) from public, anon, authenticated, service_role;
revoke all on function widget_internal.over_quota(uuid, integer, boolean) from public, anon, authenticated, service_role;
revoke all on function widget_internal.apply_quotas() from public, anon, authenticated, service_role;
revoke all on function widget_internal.forget_senders() from public, anon, authenticated, service_role;


create trigger apply_quotas_on_change
  after insert or update or delete on public.widget_quotas
  for each statement execute function widget_internal.apply_quotas();

create trigger apply_quotas_on_change
  after update of events_per_widget_per_day, events_per_sender_per_minute on widget_internal.settings
  for each statement execute function widget_internal.apply_quotas();
