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
