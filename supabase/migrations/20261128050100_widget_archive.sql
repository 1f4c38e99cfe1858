-- Made by scripts/baseline from schemas/5_archive/01_archives.sql, schemas/5_archive/02_moving.sql, schemas/5_archive/90_rights.sql.

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


-- A part moves in three steps, each of which can be repeated: next_archive_part() marks its calls, the command writes its
-- events to a file and reads them back, release_archive_part() deletes what the file was found to hold.

create function widget_internal.archive_stretch(month date, part integer)
returns setof public.widget_analytics
language plpgsql stable
set search_path = pg_catalog, pg_temp
-- How many rows lie between two pairs of an index, the planner cannot estimate.
set enable_seqscan = off
as $$
begin
  return query
  select e.*
  from widget_internal.archive_parts p
  join public.widget_archives a on a.month = p.month
  join public.widget_analytics e
    on (e.widget_id, e."timestamp") > (p.after_widget_id, p.after_at)
    and (e.widget_id, e."timestamp") <= (p.to_widget_id, p.to_at)
    and e."timestamp" < a.events_before
    and e.received_at <= a.as_of
  -- Who corrected a call and why is quoted by bills.
  where p.month = archive_stretch.month and p.part = archive_stretch.part and p.released_at is null
    and e.source <> 'operator';
end
$$;

comment on function widget_internal.archive_stretch(date, integer) is
  'The events of a part that may move, whether or not their calls do.';


create function widget_internal.archived_events(month date, part integer)
returns setof public.widget_analytics
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  perform widget_internal.hold_archive();
  return query
  select e.*
  from widget_internal.archive_stretch(archived_events.month, archived_events.part) e
  where e.event_type not like 'call\_%' or not exists (
    select from widget_internal.call_states c
    where c.widget_id = e.widget_id and c.session_id = e.session_id and c.archived_at is null
      and case when e.call_id is not null then c.call_id = e.call_id else c.matched_start_claim is not null end
  );
end
$$;

comment on function widget_internal.archived_events(date, integer) is 'The events of a part that move: all but those of calls that stay.';


create function widget_internal.mark_archived_calls(month date, part integer)
returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_archive public.widget_archives;
begin
  select a.* into strict v_archive from public.widget_archives a where a.month = mark_archived_calls.month;
  with sessions as materialized (
    -- A session's unnamed calls move together or not yet: matched afresh without the earlier ones, they would be others.
    select s.widget_id, s.session_id, not exists (
      select from public.widget_analytics e
      where e.widget_id = s.widget_id and e.session_id = s.session_id and e.call_id is null and e.event_type like 'call\_%'
        and (e."timestamp" >= v_archive.events_before or e.received_at > v_archive.as_of)
    ) and not exists (
      select from widget_internal.call_states c
      where c.widget_id = s.widget_id and c.session_id = s.session_id and c.matched_start_claim is not null
        and (c.ended_at is null or c.last_event_at >= v_archive.events_before)
    ) as is_whole
    from (
      select distinct e.widget_id, e.session_id::text collate "C" as session_id
      from widget_internal.archive_stretch(mark_archived_calls.month, mark_archived_calls.part) e
      where e.event_type like 'call\_%'
    ) s
  ),
  over as (
    select c.widget_id, c.session_id, c.call_id
    from sessions s
    join widget_internal.call_states c on c.widget_id = s.widget_id and c.session_id = s.session_id
    join public.widget_billing_periods p on c.started_at >= p.period_start and c.started_at < p.period_end
    where c.archived_at is null and c.ended_at is not null and c.last_event_at < v_archive.events_before
      and (c.matched_start_claim is null or s.is_whole)
    -- In the order of all writers of states, so that none waits in a circle.
    order by c.widget_id, c.session_id, c.call_id
    for no key update of c
  )
  update widget_internal.call_states c set archived_at = clock_timestamp()
  from over o
  where c.widget_id = o.widget_id and c.session_id = o.session_id and c.call_id = o.call_id;
end
$$;

comment on function widget_internal.mark_archived_calls(date, integer) is
  'Marks the calls of a part''s sessions that are over, are of a closed month, and have no event after the month: from now '
  'on neither a browser''s event nor the deletion of theirs changes them.';


create function widget_internal.next_archive_part(month date, max_events integer default 250000)
returns setof widget_internal.archive_parts
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
  v_archive public.widget_archives;
  v_part widget_internal.archive_parts;
begin
  perform widget_internal.hold_archive();
  select a.* into strict v_archive from public.widget_archives a where a.month = next_archive_part.month;
  select p.* into v_part from widget_internal.archive_parts p
  where p.month = next_archive_part.month order by p.part desc limit 1;
  if v_archive.finished_at is null and (v_part.part is null or v_part.released_at is not null) then
    insert into widget_internal.archive_parts as p (month, part, after_widget_id, after_at, to_widget_id, to_at)
    select next_archive_part.month, n.part, n.after_widget_id, n.after_at, s.widget_id, s."timestamp"
    from (
      select coalesce(v_part.part, 0) + 1, coalesce(v_part.to_widget_id, '00000000-0000-0000-0000-000000000000'),
        coalesce(v_part.to_at, '-infinity')
    ) n (part, after_widget_id, after_at)
    cross join lateral (
      select e.widget_id, e."timestamp"
      from public.widget_analytics e
      where (e.widget_id, e."timestamp") > (n.after_widget_id, n.after_at) and e."timestamp" < v_archive.events_before
      order by e.widget_id, e."timestamp"
      limit next_archive_part.max_events
    ) s
    order by s.widget_id desc, s."timestamp" desc
    limit 1
    returning p.* into v_part;
    if found then
      perform widget_internal.mark_archived_calls(v_part.month, v_part.part);
    else
      update public.widget_archives a set finished_at = clock_timestamp() where a.month = next_archive_part.month;
    end if;
  end if;
  return query
  select p.* from widget_internal.archive_parts p where p.month = next_archive_part.month and p.released_at is null;
end
$$;

comment on function widget_internal.next_archive_part(date, integer) is
  'The part that is not released yet, else the next stretch of the ledger, its calls marked; no row: the month is finished.';


create function widget_internal.release_archive_part(month date, part integer, events bigint, digest numeric)
returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_gone record;
begin
  with gone as (
    delete from public.widget_analytics e
    using widget_internal.archived_events(release_archive_part.month, release_archive_part.part) a
    where e.id = a.id and e.widget_id = a.widget_id
    -- Each text after its length, so that no two events read alike; times as integers, whatever DateStyle says.
    returning encode(sha256(convert_to(concat_ws('|',
      e.id, e.widget_id, e.event_type, e.source,
      (extract(epoch from e."timestamp") * 1000000)::bigint, (extract(epoch from e.received_at) * 1000000)::bigint,
      coalesce(e.seq, 0), octet_length(e.session_id), e.session_id, coalesce(octet_length(e.call_id), -1), e.call_id,
      widget_internal.billing_facts(e.source, e.properties)
    ), 'UTF8')), 'hex') as hash
  )
  select count(*) as events, coalesce(sum(('x' || left(g.hash, 15))::bit(60)::bigint), 0) as digest into v_gone from gone g;
  if (v_gone.events, v_gone.digest) is distinct from (release_archive_part.events, release_archive_part.digest) then
    raise exception 'part %: its file does not hold what the ledger holds; nothing was deleted', release_archive_part.part
      using errcode = 'data_corrupted';
  end if;
  update widget_internal.archive_parts p
  set events = v_gone.events, digest = v_gone.digest, released_at = clock_timestamp()
  where p.month = release_archive_part.month and p.part = release_archive_part.part;
end
$$;

comment on function widget_internal.release_archive_part(date, integer, bigint, numeric) is
  'Deletes the events of a part if their number and the digest of what the archive keeps of them are those that the command '
  'read in the file; else XX001. The digest is the sum of the first 60 bits of each event''s SHA-256.';


-- Only the tables' owner moves events: no role of the API has a right on a step of it.

insert into widget_internal.rights (object, grantee, privileges) values
  ('table public.widget_archives', 'service_role', 'select');

select widget_internal.apply_rights();
