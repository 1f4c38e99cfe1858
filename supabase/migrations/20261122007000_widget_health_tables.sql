-- Health must be quick however large the ledger is, so it is counted once, as events come in, into these tables.

create index widget_analytics_received_at_idx on public.widget_analytics
  using brin (received_at) with (pages_per_range = 32, autosummarize = on);
comment on index public.widget_analytics_received_at_idx is 'Serves refresh_widget_health(): what came in since.';


create table widget_internal.health_state (
  only_row boolean primary key default true,
  counted_to timestamptz not null default '-infinity',
  constraint health_state_is_one_row check (only_row)
);

comment on table widget_internal.health_state is 'How far refresh_widget_health() has come: exactly one row.';
comment on column widget_internal.health_state.counted_to is 'Every event received by then is counted, and none that came later.';

insert into widget_internal.health_state default values;

alter table widget_internal.health_state enable row level security;
revoke all on table widget_internal.health_state from public, anon, authenticated, service_role;
grant select on table widget_internal.health_state to authenticated, service_role;

create policy "whoever reads health sees as of when it is" on widget_internal.health_state
  for select to authenticated
  using (true);


create table widget_internal.health_sessions (
  widget_id uuid not null,
  session_id text collate "C" not null,
  first_at timestamptz not null,
  seqs int4multirange not null,
  page_at timestamptz,
  page_url text not null,
  loads integer not null,
  opens integer not null,
  calls integer not null,
  orphan_ends integer not null,
  constraint health_sessions_pkey primary key (widget_id, session_id)
);

comment on table widget_internal.health_sessions is
  'What is known of each session: what it adds to the counts of its hour, its day and its page is taken from here.';
comment on column widget_internal.health_sessions.first_at is 'Its earliest event; says in which hour and on which day it is counted.';
comment on column widget_internal.health_sessions.seqs is 'Which of the sender''s running numbers have arrived; the holes are lost events.';
comment on column widget_internal.health_sessions.page_at is 'The earliest event that names a page; null where none does.';
comment on column widget_internal.health_sessions.page_url is 'That page, its first 512 characters; empty where none is named.';

alter table widget_internal.health_sessions enable row level security;
revoke all on table widget_internal.health_sessions from public, anon, authenticated, service_role;


create table widget_internal.health_hours (
  widget_id uuid not null,
  hour timestamptz not null,
  events_received bigint not null default 0,
  loads bigint not null default 0,
  opens bigint not null default 0,
  sessions bigint not null default 0,
  events_numbered bigint not null default 0,
  events_expected bigint not null default 0,
  orphan_ends bigint not null default 0,
  response_ms_median integer,
  response_ms_p95 integer,
  constraint health_hours_pkey primary key (widget_id, hour)
);

comment on table widget_internal.health_hours is 'Events and sessions by widget and hour; read them through the view widget_health.';
comment on column widget_internal.health_hours.response_ms_median is
  'Kept beside health_response_times, as ranking these for each hour that is read takes long.';

create index health_hours_hour_idx on widget_internal.health_hours
  using brin (hour) with (pages_per_range = 32, autosummarize = on);
comment on index widget_internal.health_hours_hour_idx is 'Serves widget_health: the latest hours of all widgets. Rows stand roughly in the order of hours.';

alter table widget_internal.health_hours enable row level security;
revoke all on table widget_internal.health_hours from public, anon, authenticated, service_role;
grant select on table widget_internal.health_hours to authenticated, service_role;

create policy "owners see their widgets' hours" on widget_internal.health_hours
  for select to authenticated
  using (widget_id = any (array(select widget_internal.owned_widget_ids())));


create table widget_internal.health_calls (
  widget_id uuid not null,
  hour timestamptz not null,
  calls_started bigint not null,
  calls_open bigint not null,
  calls_observed bigint not null,
  calls_provider bigint not null,
  calls_operator bigint not null,
  calls_heartbeat bigint not null,
  calls_assumed bigint not null,
  calls_failed bigint not null,
  constraint health_calls_pkey primary key (widget_id, hour)
);

comment on table widget_internal.health_calls is
  'Calls by widget and the hour in which they started; read them through the view widget_health.';

create index health_calls_hour_idx on widget_internal.health_calls
  using brin (hour) with (pages_per_range = 32, autosummarize = on);
comment on index widget_internal.health_calls_hour_idx is 'Serves widget_health: the latest hours of all widgets. Rows stand roughly in the order of hours.';

alter table widget_internal.health_calls enable row level security;
revoke all on table widget_internal.health_calls from public, anon, authenticated, service_role;
grant select on table widget_internal.health_calls to authenticated, service_role;

create policy "owners see their widgets' calls by hour" on widget_internal.health_calls
  for select to authenticated
  using (widget_id = any (array(select widget_internal.owned_widget_ids())));


create table widget_internal.health_response_times (
  widget_id uuid not null,
  hour timestamptz not null,
  -- Answers that took more than 1.1 ^ (bucket - 1) and at most 1.1 ^ bucket milliseconds.
  bucket smallint not null,
  answers bigint not null,
  constraint health_response_times_pkey primary key (widget_id, hour, bucket)
);

comment on table widget_internal.health_response_times is
  'How long senders waited for their answers, in steps of a tenth; read them through the view widget_response_times.';

create index health_response_times_hour_idx on widget_internal.health_response_times
  using brin (hour) with (pages_per_range = 32, autosummarize = on);
comment on index widget_internal.health_response_times_hour_idx is 'Serves widget_rates(): the latest hours of all widgets. Rows stand roughly in the order of hours.';

alter table widget_internal.health_response_times enable row level security;
revoke all on table widget_internal.health_response_times from public, anon, authenticated, service_role;
grant select on table widget_internal.health_response_times to authenticated, service_role;

create policy "owners see their widgets' response times" on widget_internal.health_response_times
  for select to authenticated
  using (widget_id = any (array(select widget_internal.owned_widget_ids())));


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
revoke all on table widget_internal.health_pages from public, anon, authenticated, service_role;
grant select on table widget_internal.health_pages to authenticated, service_role;

create policy "owners see their widgets' pages" on widget_internal.health_pages
  for select to authenticated
  using (widget_id = any (array(select widget_internal.owned_widget_ids())));
