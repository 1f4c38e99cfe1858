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
