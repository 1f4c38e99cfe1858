-- Made by scripts/baseline from schemas/3_health/01_health_tables.sql, schemas/3_health/02_counting.sql, schemas/3_health/03_refreshing.sql, schemas/3_health/04_computing.sql, schemas/3_health/05_erasures.sql, schemas/3_health/06_widget_health.sql, schemas/3_health/07_rates.sql, schemas/3_health/08_alarms.sql, schemas/3_health/09_widget_alarms.sql, schemas/3_health/10_alerts.sql, schemas/3_health/90_rights.sql.

-- Counts behind health, which must be quick to read however large the ledger is: what widget_calls does not hold is counted once.

-- No block ranges: small rows fill gaps in pages long past, and each makes such a range wider.
create index widget_analytics_received_at_idx on public.widget_analytics (received_at);
comment on index public.widget_analytics_received_at_idx is 'Serves refresh_widget_health(): what came in since.';


create table widget_internal.health_state (
  only_row boolean primary key default true,
  installed_at timestamptz not null default now(),
  counted_to timestamptz not null default '2000-01-01',
  counted_to_id uuid not null default 'ffffffff-ffff-ffff-ffff-ffffffffffff',
  constraint health_state_is_one_row check (only_row)
);

comment on table widget_internal.health_state is 'How far refresh_widget_health() has come: exactly one row.';
comment on column widget_internal.health_state.counted_to is
  'Every event received before this moment is counted, and none received after it.';
comment on column widget_internal.health_state.counted_to_id is
  'Of the events received at this very moment, those up to this id are counted.';

insert into widget_internal.health_state default values;

alter table widget_internal.health_state enable row level security;

create policy "whoever reads health sees as of when it is" on widget_internal.health_state
  for select to authenticated
  using (true);


create table widget_internal.health_hours (
  widget_id uuid not null,
  hour timestamptz not null,
  events_received bigint not null default 0,
  loads bigint not null default 0,
  opens bigint not null default 0,
  sessions bigint not null default 0,
  events_numbered bigint not null default 0,
  events_expected bigint not null default 0,
  constraint health_hours_pkey primary key (widget_id, hour)
);

comment on table widget_internal.health_hours is
  'Events and sessions by widget and hour; read them through the view widget_health.';

create index health_hours_hour_idx on widget_internal.health_hours
  using brin (hour) with (pages_per_range = 32, autosummarize = on);
comment on index widget_internal.health_hours_hour_idx is 'Serves widget_health: the latest hours of all widgets.';

alter table widget_internal.health_hours enable row level security;

create policy "owners see their widgets' hours" on widget_internal.health_hours
  for select to authenticated
  using (widget_id = any (array(select widget_internal.owned_widget_ids())));


create table widget_internal.health_sessions (
  widget_id uuid not null,
  session_id text collate "C" not null,
  first_at timestamptz not null,
  first_received_at timestamptz not null,
  last_received_at timestamptz not null,
  seqs int4multirange not null,
  page_at timestamptz,
  page_url text collate "C" not null,
  loads bigint not null,
  opens bigint not null,
  calls bigint not null,
  constraint health_sessions_pkey primary key (widget_id, session_id)
);

comment on table widget_internal.health_sessions is
  'What each session of a browser has added to the counts of its hour and its page. Deleted seven days after its last '
  'event was received: a session that goes on after that counts as a new one.';
comment on column widget_internal.health_sessions.first_at is
  'Its earliest event; says in which hour and on which day it is counted.';
comment on column widget_internal.health_sessions.seqs is
  'Which of the sender''s running numbers have arrived; the gaps are lost events.';
comment on column widget_internal.health_sessions.page_url is
  'The page that its earliest event with a page names, the first 512 characters; empty where none does.';

alter table widget_internal.health_sessions enable row level security;


create table widget_internal.health_pages (
  widget_id uuid not null,
  day date not null,
  page_url text collate "C" not null,
  host text not null,
  sessions bigint not null,
  loads bigint not null,
  opens bigint not null,
  calls bigint not null,
  constraint health_pages_pkey primary key (widget_id, day, page_url)
);

comment on table widget_internal.health_pages is 'Sessions by widget, day and page; read them through the view widget_pages.';

alter table widget_internal.health_pages enable row level security;

create policy "owners see their widgets' pages" on widget_internal.health_pages
  for select to authenticated
  using (widget_id = any (array(select widget_internal.owned_widget_ids())));


create table widget_internal.health_response_times (
  widget_id uuid not null,
  hour timestamptz not null,
  bucket smallint not null,
  answers bigint not null,
  constraint health_response_times_pkey primary key (widget_id, hour, bucket)
);

comment on table widget_internal.health_response_times is
  'How long senders waited for their answers, in steps of a tenth; read them through the view widget_response_times.';
comment on column widget_internal.health_response_times.bucket is
  'More than 1.1 ^ (bucket - 1) milliseconds, and at most 1.1 ^ bucket.';

create index health_response_times_hour_idx on widget_internal.health_response_times
  using brin (hour) with (pages_per_range = 32, autosummarize = on);
comment on index widget_internal.health_response_times_hour_idx is 'Serves widget_rates(): the latest hours of all widgets.';

alter table widget_internal.health_response_times enable row level security;

create policy "owners see their widgets' response times" on widget_internal.health_response_times
  for select to authenticated
  using (widget_id = any (array(select widget_internal.owned_widget_ids())));


-- Events are counted in the order of their receipt, in parts: each event once, and each session by the difference between
-- what it was before and what it is now. A call counts as many parts as its time allows; the next call resumes there.

create function widget_internal.counted_hours(since widget_internal.health_state, until widget_internal.health_state)
returns table (widget_id uuid, hour timestamptz, bucket smallint, events bigint, loads bigint, opens bigint)
language plpgsql stable
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_custom_plan
as $$
begin
  return query
  select
    e.widget_id, date_trunc('hour', e."timestamp", 'UTC'),
    -- Ten minutes: no sender waits longer; a larger value is invented.
    case when r.milliseconds between 0 and 600000
      then ceil(ln(greatest(r.milliseconds, 1)::float8) / ln(1.1::float8))::smallint
    end,
    count(*), count(*) filter (where e.event_type = 'widget_load'), count(*) filter (where e.event_type = 'widget_open')
  from public.widget_analytics e
  cross join lateral (
    select case when e.source = 'browser' and jsonb_typeof(e.properties -> 'rtt_ms') = 'number'
      then (e.properties ->> 'rtt_ms')::numeric end as milliseconds
  ) r
  where e.received_at between since.counted_to and until.counted_to
    and (e.received_at, e.id) > (since.counted_to, since.counted_to_id)
    and (e.received_at, e.id) <= (until.counted_to, until.counted_to_id)
  group by 1, 2, 3;
end
$$;

comment on function widget_internal.counted_hours(widget_internal.health_state, widget_internal.health_state) is
  'The events that are counted in one state and not yet in the other, by the hour in which they happened and the bucket of '
  'health_response_times; null where their sender names no response time.';


create function widget_internal.counted_sessions(
  since widget_internal.health_state, until widget_internal.health_state, with_kept boolean default false,
  only_widget_id uuid default null, only_session_ids text[] default null
)
returns setof widget_internal.health_sessions
language plpgsql stable
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_custom_plan
as $$
begin
  return query
  with events as materialized (
    -- Each as the session that it would be alone.
    select
      e.widget_id, e.session_id::text collate "C" as session_id, e."timestamp"::timestamptz as first_at,
      e.received_at as first_received_at, e.received_at as last_received_at,
      -- Above ten thousand a number is a fault or a forgery, and would drown the rate of its hour.
      case when e.seq <= 10000 then int4multirange(int4range(e.seq, e.seq, '[]')) end as seqs,
      case when e.page_url <> '' then e."timestamp"::timestamptz end as page_at,
      left(e.page_url, 512) collate "C" as page_url, (e.event_type = 'widget_load')::integer::bigint as loads,
      (e.event_type = 'widget_open')::integer::bigint as opens, (e.event_type = 'call_start')::integer::bigint as calls
    from public.widget_analytics e
    where e.source = 'browser' and e.received_at between since.counted_to and until.counted_to
      and (e.received_at, e.id) > (since.counted_to, since.counted_to_id)
      and (e.received_at, e.id) <= (until.counted_to, until.counted_to_id)
      and (counted_sessions.only_widget_id is null or e.widget_id = counted_sessions.only_widget_id)
      and (counted_sessions.only_session_ids is null or e.session_id = any (counted_sessions.only_session_ids))
  ),
  parts as (
    select e.* from events e
    union all
    select s.*
    from (select e.widget_id, e.session_id, min(e.first_received_at) as at from events e group by 1, 2) f
    join widget_internal.health_sessions s on s.widget_id = f.widget_id and s.session_id = f.session_id
      and s.last_received_at >= f.at - interval '7 days'
    where counted_sessions.with_kept
  ),
  visits as (
    select m.*, count(*) filter (where m.is_new) over (
      partition by m.widget_id, m.session_id order by m.last_received_at
    ) as visit
    from (
      select p.*, p.first_received_at > interval '7 days' + lag(p.last_received_at) over (
        partition by p.widget_id, p.session_id order by p.last_received_at
      ) as is_new
      from parts p
    ) m
  )
  select
    v.widget_id, v.session_id, min(v.first_at), min(v.first_received_at), max(v.last_received_at),
    coalesce(range_agg(v.seqs), '{}'), min(v.page_at),
    coalesce((array_agg(v.page_url order by v.page_at, v.page_url) filter (where v.page_at is not null))[1], ''),
    sum(v.loads)::bigint, sum(v.opens)::bigint, sum(v.calls)::bigint
  from visits v
  group by v.widget_id, v.session_id, v.visit;
end
$$;

comment on function widget_internal.counted_sessions(
  widget_internal.health_state, widget_internal.health_state, boolean, uuid, text[]
) is
  'The sessions of browsers in the events that are counted in one state and not yet in the other: of a widget, or of all. '
  'One that was silent for over seven days is two. with_kept: together with what health_sessions holds of them.';


create function widget_internal.count_health_part(cut_off timestamptz)
returns bigint
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_custom_plan
as $$
declare
  v_most constant integer := 10000;
  v_since widget_internal.health_state;
  v_until widget_internal.health_state;
  v_first_at timestamptz;
  v_events bigint;
begin
  select s.* into v_since from widget_internal.health_state s;
  v_until := v_since;
  select min(p.received_at), max(p.received_at), (array_agg(p.id order by p.received_at desc, p.id desc))[1], count(*)
  into v_first_at, v_until.counted_to, v_until.counted_to_id, v_events
  from (
    select e.received_at, e.id
    from public.widget_analytics e
    where e.received_at between v_since.counted_to and count_health_part.cut_off
      and (e.received_at, e.id) > (v_since.counted_to, v_since.counted_to_id)
    order by e.received_at, e.id
    limit v_most
  ) p;
  -- Within seven days no session is silent for longer than that: so each part adds to one row a session.
  if v_events < v_most or v_until.counted_to > v_first_at + interval '7 days' then
    v_until.counted_to := least(count_health_part.cut_off, v_first_at + interval '7 days');
    v_until.counted_to_id := 'ffffffff-ffff-ffff-ffff-ffffffffffff';
  end if;

  with new as materialized (
    select h.* from widget_internal.counted_hours(v_since, v_until) h
  ),
  after as materialized (
    select s.* from widget_internal.counted_sessions(v_since, v_until, true) s
  ),
  changes as materialized (
    select 1 as sign, a.* from after a
    union all
    select -1, s.*
    from after a
    join widget_internal.health_sessions s on s.widget_id = a.widget_id and s.session_id = a.session_id
      -- Else it was silent for over seven days, and is replaced.
      and s.last_received_at >= a.first_received_at
  ),
  kept as (
    insert into widget_internal.health_sessions as s select a.* from after a
    on conflict (widget_id, session_id) do update set
      first_at = excluded.first_at, first_received_at = excluded.first_received_at,
      last_received_at = excluded.last_received_at, seqs = excluded.seqs,
      page_at = excluded.page_at, page_url = excluded.page_url,
      loads = excluded.loads, opens = excluded.opens, calls = excluded.calls
  ),
  pages as (
    insert into widget_internal.health_pages as p (widget_id, day, page_url, host, sessions, loads, opens, calls)
    select
      c.widget_id, (c.first_at at time zone 'UTC')::date, c.page_url, coalesce(widget_internal.url_host(c.page_url), ''),
      sum(c.sign), sum(c.sign * c.loads), sum(c.sign * c.opens), sum(c.sign * c.calls)
    from changes c
    group by 1, 2, 3
    on conflict (widget_id, day, page_url) do update set
      sessions = p.sessions + excluded.sessions, loads = p.loads + excluded.loads,
      opens = p.opens + excluded.opens, calls = p.calls + excluded.calls
  ),
  response_times as (
    insert into widget_internal.health_response_times as r (widget_id, hour, bucket, answers)
    select n.widget_id, n.hour, n.bucket, n.events from new n where n.bucket is not null
    on conflict (widget_id, hour, bucket) do update set answers = r.answers + excluded.answers
  ),
  hours as (
    insert into widget_internal.health_hours as h (
      widget_id, hour, events_received, loads, opens, sessions, events_numbered, events_expected
    )
    select u.widget_id, u.hour, sum(u.events), sum(u.loads), sum(u.opens), sum(u.sessions), sum(u.numbered), sum(u.expected)
    from (
      select n.widget_id, n.hour, n.events, n.loads, n.opens, 0 as sessions, 0 as numbered, 0 as expected from new n
      union all
      select
        c.widget_id, date_trunc('hour', c.first_at, 'UTC'), 0, 0, 0, c.sign,
        c.sign * (select coalesce(sum(upper(r) - lower(r)), 0) from unnest(c.seqs) r), c.sign * coalesce(upper(c.seqs) - 1, 0)
      from changes c
    ) u
    group by u.widget_id, u.hour
    on conflict (widget_id, hour) do update set
      events_received = h.events_received + excluded.events_received, loads = h.loads + excluded.loads,
      opens = h.opens + excluded.opens, sessions = h.sessions + excluded.sessions,
      events_numbered = h.events_numbered + excluded.events_numbered,
      events_expected = h.events_expected + excluded.events_expected
  )
  update widget_internal.health_state s
  set counted_to = v_until.counted_to, counted_to_id = v_until.counted_to_id
  returning (select coalesce(sum(n.events), 0) from new n) into v_events;
  return v_events;
end
$$;

comment on function widget_internal.count_health_part(timestamptz) is
  'Counts the next 10,000 events; or those up to the cut-off, or within seven days of the first, if these are fewer. Says '
  'how many these were.';


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


-- What is kept against the counts by their definition, computed from the whole ledger.

create function widget_internal.health_differences()
returns table (counted text, widget_id uuid, at text, kept bigint[], computed bigint[])
language plpgsql stable
set search_path = pg_catalog, pg_temp
set work_mem = '64MB'
set jit = off
as $$
declare
  -- Hours before this have lost events to the archive, which takes whole months. A day for months of other zones.
  v_since constant timestamptz := (
    select coalesce(date_trunc('month', max(c.started_at)) + interval '1 month 1 day', '-infinity')
    from widget_internal.call_states c where c.archived_at is not null
  );
  v_none constant widget_internal.health_state := (true, now(), '-infinity', null);
  v_state constant widget_internal.health_state := (select s from widget_internal.health_state s);
begin
  return query
  with sessions as materialized (select s.* from widget_internal.counted_sessions(v_none, v_state) s),
  counts as (
    select 'events' as counted, h.widget_id, h.hour::text as at, true as is_kept, array[
      h.events_received, h.loads, h.opens, coalesce((
        select sum(r.answers) from widget_internal.health_response_times r where r.widget_id = h.widget_id and r.hour = h.hour
      ), 0)::bigint
    ] as numbers
    from widget_internal.health_hours h
    union all
    select 'events', e.widget_id, e.hour::text, false,
      array[sum(e.events), sum(e.loads), sum(e.opens), coalesce(sum(e.events) filter (where e.bucket is not null), 0)]::bigint[]
    from widget_internal.counted_hours(v_none, v_state) e
    group by e.widget_id, e.hour
    union all
    select 'sessions', h.widget_id, h.hour::text, true, array[h.sessions, h.events_numbered, h.events_expected]
    from widget_internal.health_hours h
    union all
    select 'sessions', s.widget_id, date_trunc('hour', s.first_at, 'UTC')::text, false, array[
      count(*), sum((select coalesce(sum(upper(r) - lower(r)), 0) from unnest(s.seqs) r)), sum(coalesce(upper(s.seqs) - 1, 0))
    ]::bigint[]
    from sessions s
    group by 2, 3
    union all
    select 'pages', p.widget_id, p.day || ' ' || p.page_url, true, array[p.sessions, p.loads, p.opens, p.calls]
    from widget_internal.health_pages p
    union all
    select 'pages', s.widget_id, (s.first_at at time zone 'UTC')::date || ' ' || s.page_url, false,
      array[count(*), sum(s.loads), sum(s.opens), sum(s.calls)]::bigint[]
    from sessions s
    group by 2, 3
  )
  select k.* from (
    select n.counted, n.widget_id, n.at, max(n.numbers) filter (where n.is_kept) as kept,
      max(n.numbers) filter (where not n.is_kept) as computed
    from counts n
    -- Counts that fell to zero stay as such.
    where 0 < any (n.numbers) and left(n.at, 10)::date >= v_since
    group by n.counted, n.widget_id, n.at
  ) k
  where k.kept is distinct from k.computed;
end
$$;

comment on function widget_internal.health_differences() is
  'Where the counts behind widget_health and widget_pages are not what the ledger gives of the events counted so far. Good: '
  'no rows. Reads the whole ledger, and leaves archived months out. If there are rows: '
  'select widget_internal.rebuild_health().';


-- What was erased from the ledger must not live on in the counts: a session that is erased is counted under no page.

create function widget_internal.forget_erased_pages()
returns trigger
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  if not exists (
    select from old_events o join new_events n using (id, widget_id) where o.page_url <> '' and n.page_url is null
  ) then
    return null;
  end if;

  -- No refresh may read a session before the erasure and write it back after it.
  perform from widget_internal.health_state for update;
  with erased as materialized (
    select o.widget_id, o.session_id::text as session_id, o."timestamp" as at, o.received_at,
      left(o.page_url, 512) collate "C" as page_url
    from old_events o join new_events n using (id, widget_id)
    where o.page_url <> '' and n.page_url is null and o.source = 'browser'
  ),
  sessions as materialized (
    select distinct on (s.widget_id, s.session_id, s.first_received_at) s.*, e.page_url as old_page_url
    from (select e.widget_id, array_agg(distinct e.session_id) as session_ids from erased e group by e.widget_id) w
    cross join widget_internal.health_state h
    cross join lateral widget_internal.counted_sessions(
      (true, now(), '-infinity', null), h, false, w.widget_id, w.session_ids
    ) s
    join erased e on e.widget_id = s.widget_id and e.session_id = s.session_id
      and e.received_at between s.first_received_at and s.last_received_at
    order by s.widget_id, s.session_id, s.first_received_at, e.at, e.page_url
  ),
  in_flight as (
    update widget_internal.health_sessions h set page_at = null, page_url = ''
    from erased e
    where h.widget_id = e.widget_id and h.session_id = e.session_id
  )
  insert into widget_internal.health_pages as p (widget_id, day, page_url, host, sessions, loads, opens, calls)
  select
    s.widget_id, (s.first_at at time zone 'UTC')::date, m.page_url, '',
    sum(m.sign), sum(m.sign * s.loads), sum(m.sign * s.opens), sum(m.sign * s.calls)
  from sessions s
  cross join lateral (values (1, ''), (-1, s.old_page_url)) m (sign, page_url)
  group by 1, 2, 3
  on conflict (widget_id, day, page_url) do update set
    sessions = p.sessions + excluded.sessions, loads = p.loads + excluded.loads,
    opens = p.opens + excluded.opens, calls = p.calls + excluded.calls;

  delete from widget_internal.health_pages p
  where p.sessions <= 0 and p.widget_id in (select o.widget_id from old_events o);
  return null;
end
$$;

comment on function widget_internal.forget_erased_pages() is
  'After erase_widget_session(): counts that session under no page, and drops a page that no other session names.';

create trigger forget_erased_pages_on_update
  after update on public.widget_analytics
  referencing old table as old_events new table as new_events
  for each statement execute function widget_internal.forget_erased_pages();


-- What owners, the SQL editor and monitors read, each column with what good looks like.

create view public.widget_response_times with (security_invoker = true) as
  select r.widget_id, r.hour, round(power(1.1::float8, r.bucket - 0.5))::integer as milliseconds, r.answers
  from widget_internal.health_response_times r;

comment on view public.widget_response_times is
  'How long widgets waited for the answers to their requests, by their own clocks: by widget and hour, how many answers '
  'took about that many milliseconds (within 5 %). Sum up answers to get the median of any period. Good: most below 200.';


create view public.widget_health with (security_invoker = true) as
  select
    h.widget_id, h.hour, h.events_received, h.sessions, h.events_numbered, h.events_expected,
    round(h.events_numbered::numeric / nullif(h.events_expected, 0), 6) as delivery_rate,
    h.loads, h.opens, c.calls_started, c.calls_open, c.calls_observed, c.calls_provider, c.calls_operator,
    c.calls_heartbeat, c.calls_assumed, c.calls_failed,
    round((c.calls_observed + c.calls_provider + c.calls_operator)::numeric / nullif(c.calls_started, 0), 6)
      as completion_rate,
    h.orphan_ends, h.refusals, t.response_ms_median, t.response_ms_p95, s.counted_to as as_of
  from (
    select
      u.widget_id, u.hour, u.hour + interval '1 hour' as hour_end,
      sum(u.events_received)::bigint as events_received, sum(u.sessions)::bigint as sessions,
      sum(u.events_numbered)::bigint as events_numbered, sum(u.events_expected)::bigint as events_expected,
      sum(u.loads)::bigint as loads, sum(u.opens)::bigint as opens, sum(u.orphan_ends)::bigint as orphan_ends,
      sum(u.refusals)::bigint as refusals
    from (
      select
        k.widget_id, k.hour, k.events_received, k.sessions, k.events_numbered, k.events_expected, k.loads, k.opens,
        0::bigint as orphan_ends, 0::bigint as refusals
      from widget_internal.health_hours k
      union all
      select r.widget_id, r.hour, 0, 0, 0, 0, 0, 0, 0, r.refusals from widget_internal.refusal_counts r
      where r.widget_id <> '00000000-0000-0000-0000-000000000000'
      union all
      select o.widget_id, date_trunc('hour', o.last_event_at, 'UTC'), 0, 0, 0, 0, 0, 0, 1, 0
      from widget_internal.call_states o
      where o.started_at is null and o.end_claim is not null
    ) u
    group by u.widget_id, u.hour
  ) h
  cross join widget_internal.health_state s
  cross join lateral (
    select
      count(*) as calls_started, count(*) filter (where k.outcome = 'open') as calls_open,
      count(*) filter (where k.evidence = 'observed') as calls_observed,
      count(*) filter (where k.evidence = 'provider') as calls_provider,
      count(*) filter (where k.evidence = 'operator') as calls_operator,
      count(*) filter (where k.evidence = 'heartbeat') as calls_heartbeat,
      count(*) filter (where k.evidence = 'assumed') as calls_assumed,
      count(*) filter (where k.outcome = 'failed') as calls_failed
    from widget_internal.call_states k
    where k.widget_id = h.widget_id and k.started_at >= h.hour and k.started_at < h.hour_end
  ) c
  cross join lateral (
    select
      min(b.milliseconds) filter (where b.up_to >= 0.5 * b.answers) as response_ms_median,
      min(b.milliseconds) filter (where b.up_to >= 0.95 * b.answers) as response_ms_p95
    from (
      select
        r.milliseconds, sum(r.answers) over (order by r.milliseconds) as up_to, sum(r.answers) over () as answers
      from public.widget_response_times r
      where r.widget_id = h.widget_id and r.hour = h.hour
    ) b
  ) t
  -- A session that turns out to have begun earlier may leave nothing behind.
  where h.events_received + h.sessions + h.refusals + h.orphan_ends > 0;

comment on view public.widget_health is
  'How well tracking works, by widget and hour. Events and sessions are counted every five minutes, up to as_of; calls are '
  'read from widget_calls. An event sent twice is one event. To get a rate of several hours divide the sums.';
comment on column public.widget_health.hour is
  'Events by when they happened, calls by when they started, sessions by their first event.';
comment on column public.widget_health.events_received is
  'Events that happened in this hour. Good: as in the same hour of last week.';
comment on column public.widget_health.sessions is
  'Sessions of browsers that began in this hour: one a page view with the widget. One that was silent for over seven days '
  'counts again.';
comment on column public.widget_health.events_numbered is
  'Of the sessions that began in this hour: events that arrived with a running number (seq), each number once.';
comment on column public.widget_health.events_expected is
  'Of these sessions: the sum of the highest numbers seen. Exact for gaps; does not see events lost at the very end '
  'of a session. Numbers above 10,000 are left out.';
comment on column public.widget_health.delivery_rate is
  'events_numbered / events_expected. Good: above 0.99, a little lower in the current hour. Null: no numbered events. '
  'A lost end shows in completion_rate, not here.';
comment on column public.widget_health.loads is 'widget_load events of this hour: the widget stood on a page.';
comment on column public.widget_health.opens is 'widget_open events of this hour: somebody opened it.';
comment on column public.widget_health.calls_started is 'Calls that started in this hour, as widget_calls has them.';
comment on column public.widget_health.calls_open is
  'Of these, calls with no end yet. Good: none that started hours ago; else the cleanup does not run.';
comment on column public.widget_health.calls_observed is
  'Of these, calls whose end the browser or your server reported. Good: nearly all.';
comment on column public.widget_health.calls_provider is 'Of these, calls that end as the call provider''s record says.';
comment on column public.widget_health.calls_operator is 'Of these, calls that end as a person corrected them. Good: few.';
comment on column public.widget_health.calls_heartbeat is
  'Of these, calls that broke off and end at their last sign of life. Good: below 5 in 100.';
comment on column public.widget_health.calls_assumed is
  'Of these, calls that broke off without any sign of life and are assumed to have lasted 30 minutes. Good: none.';
comment on column public.widget_health.calls_failed is
  'Of these, calls that ended by call_error; they have evidence like all others. Good: few.';
comment on column public.widget_health.completion_rate is
  'Calls whose end somebody observed (browser, server, provider or operator) over calls started. Good: above 0.95; '
  'calls that are still open count as not completed, so the last hours are lower. Null: no calls.';
comment on column public.widget_health.orphan_ends is
  'Calls that ended in this hour and whose start was lost or never sent; known for two weeks, those of a server for as long as they wait. Good: none. Ends that name no '
  'call are not among them.';
comment on column public.widget_health.refusals is
  'Events refused in this hour, by when they came. Good: none; widget_refusals says why.';
comment on column public.widget_health.response_ms_median is
  'Half of the senders'' requests were answered within this many milliseconds, by their own clocks (properties.rtt_ms), '
  'within 5 %. Good: below 200. Null: no sender said.';
comment on column public.widget_health.response_ms_p95 is
  'Nineteen of twenty were answered within this many milliseconds. Good: below 1000.';
comment on column public.widget_health.as_of is 'What was received by then is counted. Good: less than 10 minutes ago.';


create view public.widget_pages with (security_invoker = true) as
  with ranked as (
    select p.*, row_number() over (
      partition by p.widget_id, p.day, p.host order by p.sessions desc, p.calls desc, p.page_url
    ) as rank
    from widget_internal.health_pages p
    where p.sessions > 0
  )
  select
    r.widget_id, r.day, nullif(r.host, '') as host,
    case when r.rank > 50 then '(others)' else nullif(r.page_url, '') end as page_url,
    sum(r.sessions)::bigint as sessions, sum(r.loads)::bigint as loads, sum(r.opens)::bigint as opens,
    sum(r.calls)::bigint as calls
  from ranked r
  group by r.widget_id, r.day, r.host, case when r.rank > 50 then '(others)' else nullif(r.page_url, '') end;

comment on view public.widget_pages is
  'Where each widget is used: sessions of browsers, their loads, opens and call_start events by UTC day, host and page. All '
  'of a session counts on the day of its first event, and for the page that it names first. Of each host and day the 50 '
  'busiest pages stand alone, the rest together as (others). Pages are told apart by their first 512 characters; null: none '
  'was named.';


-- Health summed up over a period: what the command, monitors and alarms judge by.

create function public.widget_rates(since timestamptz)
returns table (
  widget_id uuid, events_received bigint, events_numbered bigint, events_expected bigint, delivery_rate numeric,
  calls_started bigint, calls_open bigint, calls_observed bigint, completion_rate numeric,
  orphan_ends bigint, refusals bigint, response_ms_median integer, response_ms_p95 integer
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_custom_plan
as $$
#variable_conflict use_column
declare
  v_since constant timestamptz := date_trunc('hour', widget_rates.since, 'UTC');
begin
  return query
  with counts as (
    select h.widget_id, h.events_received, h.events_numbered, h.events_expected, 0::bigint as calls_started,
      0::bigint as calls_open, 0::bigint as calls_observed, 0::bigint as orphan_ends, 0::bigint as refusals
    from widget_internal.health_hours h where h.hour >= v_since
    union all
    select c.widget_id, 0, 0, 0, count(*), count(*) filter (where c.outcome = 'open'),
      count(*) filter (where c.evidence in ('observed', 'provider', 'operator')), 0, 0
    from widget_internal.call_states c where c.started_at >= v_since
    group by c.widget_id
    union all
    select o.widget_id, 0, 0, 0, 0, 0, 0, 1, 0
    from widget_internal.call_states o
    where o.started_at is null and o.end_claim is not null and o.last_event_at >= v_since
    union all
    select r.widget_id, 0, 0, 0, 0, 0, 0, 0, r.refusals
    from widget_internal.refusal_counts r
    where r.hour >= v_since and r.widget_id <> '00000000-0000-0000-0000-000000000000'
  ),
  rates as (
    select
      c.widget_id, coalesce(sum(c.events_received), 0)::bigint as events_received,
      coalesce(sum(c.events_numbered), 0)::bigint as events_numbered,
      coalesce(sum(c.events_expected), 0)::bigint as events_expected,
      coalesce(sum(c.calls_started), 0)::bigint as calls_started, coalesce(sum(c.calls_open), 0)::bigint as calls_open,
      coalesce(sum(c.calls_observed), 0)::bigint as calls_observed,
      coalesce(sum(c.orphan_ends), 0)::bigint as orphan_ends, coalesce(sum(c.refusals), 0)::bigint as refusals
    from counts c
    group by grouping sets ((), (c.widget_id))
  ),
  answers as (
    select
      r.widget_id, r.bucket, sum(sum(r.answers)) over (partition by r.widget_id order by r.bucket) as up_to,
      sum(sum(r.answers)) over (partition by r.widget_id) as all_of_them
    from widget_internal.health_response_times r
    where r.hour >= v_since
    group by grouping sets ((r.bucket), (r.widget_id, r.bucket))
  ),
  response_times as (
    select
      a.widget_id, min(a.bucket) filter (where a.up_to >= 0.5 * a.all_of_them) as median,
      min(a.bucket) filter (where a.up_to >= 0.95 * a.all_of_them) as p95
    from answers a
    group by a.widget_id
  )
  select
    r.widget_id, r.events_received, r.events_numbered, r.events_expected,
    round(r.events_numbered::numeric / nullif(r.events_expected, 0), 6),
    r.calls_started, r.calls_open, r.calls_observed,
    round(r.calls_observed::numeric / nullif(r.calls_started - r.calls_open, 0), 6), r.orphan_ends, r.refusals,
    round(power(1.1::float8, t.median - 0.5))::integer, round(power(1.1::float8, t.p95 - 0.5))::integer
  from rates r
  -- No widget: all of them.
  left join response_times t on coalesce(t.widget_id::text, '') = coalesce(r.widget_id::text, '');
end
$$;

comment on function public.widget_rates(timestamptz) is
  'widget_health summed up from the hour of that moment on: a row for each widget, and one with no widget_id for all of '
  'them. completion_rate leaves calls out that are still open, unlike widget_health; calls_observed counts ends that '
  'browser, server, provider or operator reported. Good: delivery_rate above 0.99, completion_rate above 0.95.';


-- When a widget's refusals or its silence are an alarm; each message says what to do.

create function widget_internal.refusal_alarms(min_cases integer, since timestamptz)
returns table (alarm text, widget_id uuid, message text)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  -- The hour that is running may be a minute old.
  v_recent constant timestamptz := date_trunc('hour', now(), 'UTC') - interval '1 hour';
begin
  return query
  with refused as (
    select r.widget_id, r.reason, r.detail, sum(r.refusals) as refusals, min(r.hour) as first_hour,
      coalesce(sum(r.refusals) filter (where r.hour >= v_recent), 0) as recent
    from public.widget_refusals r
    where r.hour >= refusal_alarms.since
    group by r.widget_id, r.reason, r.detail
  )
  select 'over_quota', f.widget_id, format(
    'widget %s: about %s events were refused over quota since %s UTC: %s', f.widget_id, sum(f.refusals),
    to_char(min(f.first_hour) at time zone 'UTC', 'YYYY-MM-DD HH24:MI'),
    case when bool_or(f.detail = 'widget')
      then format(
        'allow more with insert into widget_quotas (widget_id, events_per_day) values (%L, …), or find what sends so many',
        f.widget_id
      )
      else 'one network address sent too many; if that is right, raise events_per_sender_per_minute in widget_internal.settings'
    end
  )
  from refused f
  where f.reason = 'over_quota'
  group by f.widget_id
  union all
  select 'refusals_high', s.widget_id, format(
    '%s: %s events were refused and %s taken since %s UTC, mostly %s: %s',
    coalesce('widget ' || s.widget_id, 'unknown widgets'), s.refusals, t.received,
    to_char(refusal_alarms.since at time zone 'UTC', 'YYYY-MM-DD HH24:MI'), concat_ws(' ', s.reason, nullif(s.detail, '')),
    case s.reason
      when 'domain_not_allowed' then format(
        'if this is your page, add its host to allowed_domains in widgets, or name all hosts: widget-analytics widget set %s '
        '--domain …', s.widget_id
      )
      when 'widget_inactive' then format(
        'set is_active in widgets (widget-analytics widget set %s --active), or take the widget off its page', s.widget_id
      )
      when 'unknown_widget' then 'correct the widget_id on the page'
      else 'correct this field in what the page sends'
    end
  )
  from (
    select f.widget_id, sum(f.refusals) as refusals, sum(f.recent) as recent,
      (array_agg(f.reason order by f.recent desc, f.refusals desc))[1] as reason,
      (array_agg(f.detail order by f.recent desc, f.refusals desc))[1] as detail
    from refused f
    where f.reason <> 'over_quota'
    group by f.widget_id
  ) s
  cross join lateral (
    select coalesce(sum(h.events_received), 0) as received,
      coalesce(sum(h.events_received) filter (where h.hour >= v_recent), 0) as recent
    from widget_internal.health_hours h
    where h.hour >= refusal_alarms.since and (s.widget_id is null or h.widget_id = s.widget_id)
  ) t
  where s.recent > t.recent
    and (s.recent >= refusal_alarms.min_cases or s.refusals >= refusal_alarms.min_cases and s.refusals > t.received);
end
$$;

comment on function widget_internal.refusal_alarms(integer, timestamptz) is
  'over_quota: events of a widget were refused because there were too many. refusals_high: of a widget''s recent events more '
  'were refused than taken.';


create function widget_internal.silence_alarms(min_cases integer, period interval)
returns table (widget_id uuid, message text)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_now constant timestamptz := date_trunc('hour', now(), 'UTC');
begin
  return query
  with silent as materialized (
    select h.widget_id, min(h.hour) as first_hour, max(h.hour) as last_hour
    from widget_internal.health_hours h
    where h.hour >= v_now - interval '36 days' and h.events_received > 0
    group by h.widget_id
    having max(h.hour) < v_now - interval '6 hours'
  ),
  weeks as (
    select s.widget_id, s.last_hour, p.span, w.week, (
      select coalesce(sum(h.events_received), 0)
      from widget_internal.health_hours h
      where h.widget_id = s.widget_id
        -- An hour less at each end, as clocks are put forward and back.
        and h.hour >= v_now - p.span + interval '1 hour' - w.week * interval '7 days'
        and h.hour < v_now - interval '1 hour' - w.week * interval '7 days'
    ) as events
    from silent s
    cross join (values (interval '6 hours'), (silence_alarms.period)) p (span)
    cross join generate_series(1, 4) w (week)
    -- Weeks before its first say nothing.
    where s.last_hour < v_now - p.span and s.first_hour < v_now - p.span - w.week * interval '7 days'
  )
  select distinct on (k.widget_id) k.widget_id, format(
    'widget %1$s: no event since %2$s UTC, where in past weeks there were %3$s at least in the same %4$s: look at its page, '
    'and at why_is_my_widget_not_tracking.sql; if it is no longer used, set is_active to false in widgets '
    '(widget-analytics widget set %1$s --inactive)',
    k.widget_id, to_char(k.last_hour at time zone 'UTC', 'YYYY-MM-DD HH24:MI'), min(k.events),
    round(extract(epoch from k.span) / 3600) || ' hours'
  )
  from weeks k
  cross join lateral widget_internal.widget_door(k.widget_id) d
  where d.is_active and not d.is_demo
  group by k.widget_id, k.last_hour, k.span
  having min(k.events) >= silence_alarms.min_cases
  order by k.widget_id, k.span;
end
$$;

comment on function widget_internal.silence_alarms(integer, interval) is
  'Active widgets with no event in the last six hours, or in the period, that had min_cases events at least at the same time '
  'of each of the last four weeks. A shop that is closed on Sundays is none of them.';


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


-- Who may do what with health. Owners see their widgets' rows; no API role reads or sets where alerts go.

insert into widget_internal.rights (object, grantee, privileges)
select o.object, r.grantee, o.privileges
from (values
  ('table widget_internal.health_state', 'select'),
  ('table widget_internal.health_hours', 'select'),
  ('table widget_internal.health_pages', 'select'),
  ('table widget_internal.health_response_times', 'select'),
  ('table public.widget_response_times', 'select'),
  ('table public.widget_health', 'select'),
  ('table public.widget_pages', 'select'),
  ('function public.widget_rates(timestamp with time zone)', 'execute')
) o (object, privileges)
cross join (values ('authenticated'), ('service_role')) r (grantee);

insert into widget_internal.rights (object, grantee, privileges) values
  ('function public.refresh_widget_health()', 'service_role', 'execute'),
  ('function public.widget_alarms(numeric, numeric, integer, interval)', 'service_role', 'execute'),
  ('function public.enable_widget_alerts(text, numeric, numeric, integer, interval)', 'service_role', ''),
  ('function public.disable_widget_alerts()', 'service_role', '');

select widget_internal.apply_rights();
