-- Events of months that are closed and long over leave the ledger for Parquet files; their calls stay. Here: which months
-- moved, in which parts, and the lock that keeps two runs apart.

create table public.widget_archives (
  month date primary key,
  place text not null,
  events_before timestamptz not null,
  as_of timestamptz not null,
  started_at timestamptz not null default clock_timestamp(),
  finished_at timestamptz,
  billed_to date,
  constraint archived_months_are_closed foreign key (month) references public.widget_billing_periods (period)
);

comment on table public.widget_archives is 'The months whose events `widget-analytics archive` moved, or is moving.';
comment on column public.widget_archives.place is 'The folder or URL that the month''s files are in.';
comment on column public.widget_archives.events_before is 'The end of the month: what happened before it moves.';
comment on column public.widget_archives.as_of is
  'The latest statement''s, when the archive of the month began. What was received later is on no statement yet, and stays.';
comment on column public.widget_archives.finished_at is 'When the last event had moved; null: run the command again.';
comment on column public.widget_archives.billed_to is 'The latest statement that the month''s files of calls and charges include.';

create table widget_internal.archive_parts (
  month date not null,
  part integer not null,
  after_widget_id uuid not null,
  after_at timestamptz not null,
  to_widget_id uuid not null,
  to_at timestamptz not null,
  events bigint,
  digest numeric,
  released_at timestamptz,
  constraint parts_are_one_file_each primary key (month, part),
  constraint parts_belong_to_an_archive foreign key (month) references public.widget_archives (month),
  constraint released_parts_say_what_they_hold check (num_nulls(events, digest, released_at) in (0, 3))
);

comment on table widget_internal.archive_parts is
  'The files of events: each a stretch of the ledger''s index by widget and time, from the first pair, exclusive, to the '
  'second, inclusive; once its events are deleted, their number and the digest that release_archive_part() compares.';

alter table public.widget_archives enable row level security;
alter table widget_internal.archive_parts enable row level security;


create function widget_internal.hold_archive(take boolean default false)
returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_key constant bigint := hashtextextended('widget_internal: archive', 0);
  v_is_held constant boolean := exists (
    select from pg_locks l join pg_database d on d.oid = l.database
    where l.locktype = 'advisory' and l.pid = pg_backend_pid() and d.datname = current_database() and l.objsubid = 1
      and (l.classid::bigint << 32) + l.objid::bigint = v_key
  );
begin
  perform widget_internal.refuse_visitors();
  -- A transaction pooler may lend one server process to two runs: the second would get the lock that the first holds.
  if hold_archive.take and (v_is_held or not pg_try_advisory_lock(v_key)) then
    raise exception 'another archive is running on this database' using errcode = 'lock_not_available',
      hint = 'Wait for its end. If there is none, a pooler keeps its connection open: connect directly.';
  elsif not hold_archive.take and not v_is_held then
    raise exception 'this server process does not hold the archive''s lock'
      using errcode = 'object_not_in_prerequisite_state',
        hint = 'A transaction pooler changes the process between statements: connect directly, or to a session pooler.';
  end if;
end
$$;

comment on function widget_internal.hold_archive(boolean) is
  'take: takes the archive''s lock until the connection ends; 55P03 if another run has it. Each step calls it without: '
  '55000 unless the very server process that runs the step holds the lock.';


create function widget_internal.start_archive(month date, place text)
returns public.widget_archives
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_end constant timestamptz :=
    (select p.period_end from public.widget_billing_periods p where p.period = start_archive.month);
  v_archive public.widget_archives;
  v_problem text;
begin
  perform widget_internal.hold_archive();
  select a.* into v_archive from public.widget_archives a where a.month = start_archive.month;
  v_problem := case
    when v_archive.place <> start_archive.place then 'is archived at ' || v_archive.place
    when v_archive.month is not null then null
    when v_end is null then 'is not closed'
    when v_end > now() - interval '35 days' then 'has not been over for 35 days'
    else (
      select 'has to wait: the archive of ' || to_char(a.month, 'YYYY-MM') || ' is not finished'
      from public.widget_archives a where a.finished_at is null
    )
  end;
  if v_problem is not null then
    raise exception 'month: % %', to_char(start_archive.month, 'YYYY-MM'), v_problem
      using errcode = 'invalid_parameter_value';
  end if;

  if v_archive.month is null then
    insert into public.widget_archives (month, place, events_before, as_of)
    select start_archive.month, start_archive.place, v_end, max(p.as_of) from public.widget_billing_periods p
    returning * into v_archive;
  end if;
  return v_archive;
end
$$;

comment on function widget_internal.start_archive(date, text) is
  'Begins the archive of a month, or finds it begun. 22023 unless the month is closed, has been over for 35 days, and no '
  'other is under way.';
