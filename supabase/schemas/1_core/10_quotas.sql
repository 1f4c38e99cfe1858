-- Quotas of events: of a widget a day, of a sender a minute. Counting each event would make a
-- queue of a busy widget's senders, so of a large quota one event in up to 64 is counted, for as many.

alter table widget_internal.settings
  add column events_per_widget_per_day bigint default 1000000,
  add column events_per_sender_per_minute bigint default 3000,
  add column sender_address_hop integer not null default 1,
  -- A sample is a fair estimate of a large number only: of a small quota every event is counted.
  add column widget_sample integer not null
    generated always as (greatest(1, least(64, coalesce(events_per_widget_per_day, 262144) / 4096))) stored,
  add column sender_sample integer not null
    generated always as (greatest(1, least(64, coalesce(events_per_sender_per_minute, 4096) / 64))) stored,
  add constraint quotas_are_positive check (events_per_widget_per_day > 0 and events_per_sender_per_minute > 0),
  add constraint sender_address_hop_starts_at_1 check (sender_address_hop >= 1);

comment on column widget_internal.settings.events_per_widget_per_day is
  'How many events of a widget are taken in a day (UTC); null: any number. widget_quotas says otherwise for one widget.';
comment on column widget_internal.settings.events_per_sender_per_minute is
  'How many events are taken from one network address (IPv6: one /64) in a minute; null: any number.';
comment on column widget_internal.settings.widget_sample is
  'Sampling rate of a widget''s events: one in n is counted, as n. 64, or less where the quota is small.';
comment on column widget_internal.settings.sender_sample is
  'Sampling rate of a sender''s events: one in n is counted, as n. 64, or less where the quota is small.';
comment on column widget_internal.settings.sender_address_hop is
  'Which address of X-Forwarded-For is the sender''s, counted from its right end, where the nearest proxy writes: 1 is '
  'the last. Anyone can write what stands further left than your own proxies do.';


create table public.widget_quotas (
  widget_id uuid primary key,
  events_per_day bigint,
  widget_sample integer not null
    generated always as (greatest(1, least(64, coalesce(events_per_day, 262144) / 4096))) stored,
  constraint events_per_day_is_positive check (events_per_day > 0)
);

comment on table public.widget_quotas is 'Widgets whose daily quota is not the one of the settings.';
comment on column public.widget_quotas.events_per_day is 'How many events are taken in a day (UTC); null: any number.';
comment on column public.widget_quotas.widget_sample is 'Sampling rate of its events: one in n is counted, as n.';

alter table public.widget_quotas enable row level security;

create policy "owners see their widgets' quotas" on public.widget_quotas
  for select to authenticated
  using (widget_id = any (array(select widget_internal.owned_widget_ids())));


create table widget_internal.event_counts (
  -- A widget's id, or a sender(): neither can be taken for the other.
  subject uuid not null,
  window_start timestamptz not null,
  events bigint not null,
  constraint event_counts_are_one_row_a_window primary key (subject, window_start),
  constraint events_are_positive check (events > 0)
) with (fillfactor = 50);

comment on table widget_internal.event_counts is 'Events towards a quota, of a widget and day or of a sender and minute.';

create table widget_internal.throttles (
  subject uuid primary key,
  until timestamptz not null
);

comment on table widget_internal.throttles is 'Who is over quota, and until when: a widget, or a sender().';

create index throttles_until_idx on widget_internal.throttles (until);
comment on index widget_internal.throttles_until_idx is 'Serves the writer: is anybody over a quota at all?';

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


create function widget_internal.sender()
returns uuid
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_today constant date := clock_timestamp() at time zone 'UTC';
  -- The company's own backend may speak for many: for the visitor that it names, else for nobody.
  v_addresses constant text[] := string_to_array(
    widget_internal.request_header(
      case when current_setting('role') = 'service_role' then 'x-widget-visitor' else 'x-forwarded-for' end
    ),
    ','
  );
  v_address text;
  v_salt bytea;
begin
  -- Some proxies write the port too, or IPv4 as IPv6.
  select regexp_replace(
    nullif(trim(v_addresses[cardinality(v_addresses) - s.sender_address_hop + 1]), ''),
    '^(?:\[(.*)\]|(?:::ffff:)?([0-9.]+))(?::[0-9]+)?$', '\1\2', 'i'
  )
  into v_address
  from widget_internal.settings s;
  begin
    -- A household has one /64 of IPv6, and could send from each address in it.
    v_address :=
      case family(v_address::inet) when 6 then network(set_masklen(v_address::inet, 64))::text else host(v_address::inet) end;
  exception
    when invalid_text_representation then
      null;  -- counted as it stands
  end;
  loop
    select s.salt into v_salt from widget_internal.sender_salts s where s.day = v_today;
    exit when found;
    insert into widget_internal.sender_salts (day) values (v_today) on conflict do nothing;
  end loop;
  return encode(substring(sha256(v_salt || convert_to(v_address, 'UTF8')) for 16), 'hex')::uuid;
end
$$;

comment on function widget_internal.sender() is
  'A keyed hash of the sender''s address (IPv6: without its last 64 bits), another one each day: the address itself is never '
  'stored. Null where no proxy names one. For service_role it is in X-Widget-Visitor: what the events relay received as '
  'X-Forwarded-For.';


create function widget_internal.count_towards_quota(subject uuid, span text, events bigint, quota bigint)
returns timestamptz
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_window_start constant timestamptz := date_trunc(count_towards_quota.span, clock_timestamp(), 'UTC');
  v_window_end constant timestamptz := v_window_start + ('1 ' || count_towards_quota.span)::interval;
  v_events bigint;
begin
  insert into widget_internal.event_counts as c (subject, window_start, events)
  values (count_towards_quota.subject, v_window_start, count_towards_quota.events)
  on conflict on constraint event_counts_are_one_row_a_window do update set events = c.events + excluded.events
  returning c.events into v_events;
  if v_events <= count_towards_quota.quota then
    return null;
  end if;

  insert into widget_internal.throttles as t (subject, until)
  values (count_towards_quota.subject, v_window_end)
  on conflict on constraint throttles_pkey do update set until = excluded.until;
  return v_window_end;
end
$$;

comment on function widget_internal.count_towards_quota(uuid, text, bigint, bigint) is
  'Adds events to a subject''s count of this day or minute (span). Where that is then over the quota: throttles the '
  'subject until the window''s end, and answers that moment.';


create function widget_internal.over_quota(widget_id uuid, events integer, draw float8 default random())
returns timestamptz
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_sender constant uuid := widget_internal.sender();
  v_quota record;
  v_until timestamptz;
begin
  select max(t.until) into v_until
  from widget_internal.throttles t
  where t.until > clock_timestamp() and t.subject in (over_quota.widget_id, v_sender);
  if v_until is not null then
    return v_until;
  end if;

  select
    s.events_per_sender_per_minute as per_minute, s.sender_sample,
    case when q.widget_id is null then s.events_per_widget_per_day else q.events_per_day end as per_day,
    coalesce(q.widget_sample, s.widget_sample) as widget_sample
  into v_quota
  from widget_internal.settings s
  left join public.widget_quotas q on q.widget_id = over_quota.widget_id;

  if over_quota.draw * v_quota.widget_sample < over_quota.events and v_quota.per_day is not null then
    v_until := widget_internal.count_towards_quota(
      over_quota.widget_id, 'day', greatest(over_quota.events, v_quota.widget_sample),
      -- An estimate from samples is four of its standard deviations off once in 30,000 times: ending so much
      -- earlier, what is stored stays within the quota.
      v_quota.per_day
        - case when v_quota.widget_sample > 1 then ceil(4 * sqrt(v_quota.widget_sample * v_quota.per_day))::bigint else 0 end
    );
  end if;
  if v_until is null and over_quota.draw * v_quota.sender_sample < over_quota.events
    and v_quota.per_minute is not null and v_sender is not null
  then
    v_until := widget_internal.count_towards_quota(
      v_sender, 'minute', greatest(over_quota.events, v_quota.sender_sample), v_quota.per_minute
    );
  end if;
  return v_until;
end
$$;

comment on function widget_internal.over_quota(uuid, integer, float8) is
  'Until when so many more events of a widget are refused by its quota or the sender''s; null where they may be stored. '
  'draw: from 0 to 1, whether these are of the sample that is counted.';


create function widget_internal.quota_refusal(widget_id uuid, until timestamptz, events integer)
returns jsonb
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_seconds constant integer := greatest(1, ceil(extract(epoch from quota_refusal.until - clock_timestamp())));
  v_detail text;
begin
  -- A flood must not make the database write at each refusal.
  if random() * 16 < quota_refusal.events then
    v_detail := case when exists (
      select from widget_internal.throttles t where t.subject = quota_refusal.widget_id and t.until > clock_timestamp()
    ) then 'widget' else 'sender' end;
    perform widget_internal.count_refusals(array_fill(
      (quota_refusal.widget_id, 'over_quota', v_detail)::widget_internal.refusal,
      array[greatest(16, quota_refusal.events)]
    ));
  end if;

  perform set_config('response.headers', jsonb_build_array(jsonb_build_object('Retry-After', v_seconds::text))::text, true);
  -- A page on another origin cannot read the header, so the body says it too.
  return widget_internal.refusal_answer(
    429, '53400', 'over quota: this widget, or this sender, has sent more events than are taken'
  ) || jsonb_build_object('retry_after', v_seconds);
end
$$;

comment on function widget_internal.quota_refusal(uuid, timestamptz, integer) is
  'Counts so many refused events, and makes the REST answer a 429 with Retry-After, in seconds, in header and body.';


create function widget_internal.lift_throttles()
returns trigger
language plpgsql volatile
-- definer because a person who may change a quota need have no right on who is over it
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  delete from widget_internal.throttles;
  return null;
end
$$;

comment on function widget_internal.lift_throttles() is
  'After a quota changed: whoever is over the new one is throttled again at the next event that is counted.';

create trigger lift_throttles_on_change
  after insert or update or delete on public.widget_quotas
  for each statement execute function widget_internal.lift_throttles();

create trigger lift_throttles_on_change
  after update of events_per_widget_per_day, events_per_sender_per_minute on widget_internal.settings
  for each statement execute function widget_internal.lift_throttles();


create function widget_internal.forget_senders()
returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
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
