-- Each chunk of 100 sessions was looked for in the whole ledger, as soon as that was large: the time to archive a month grew
-- by its square. Now no plan can do so.

create or replace view widget_internal.events_to_archive with (security_invoker = true) as
  with rows_of_files as (
    select
      s.chunk, e.id, e.widget_id, e.event_type, e.session_id, e.page_url, e.user_agent, e."timestamp", e.call_id,
      e.seq, e.source, e.received_at, e.properties::text as properties,
      (extract(epoch from e."timestamp") * 1000000)::bigint as happened_us,
      (extract(epoch from e.received_at) * 1000000)::bigint as received_us,
      -- What an end says of its call's length (R5), decided here once: whoever reads the files needs no JSON.
      case when e.event_type in ('call_end', 'call_error') and e.source in ('operator', 'provider', 'server')
        and jsonb_typeof(e.properties -> 'duration_seconds') = 'number'
        then (extract(epoch from
          least(greatest((e.properties ->> 'duration_seconds')::numeric, 0), 1000000000) * interval '1 second'
        ) * 1000000)::bigint
      end as stated_us,
      case when e.source = 'operator'
        then '; set by ' || (e.properties ->> 'corrected_by') || ': ' || (e.properties ->> 'reason')
      end as note
    from widget_internal.sessions_to_archive s
    -- "offset 0": session by session through their index, whatever the planner knows of this month.
    cross join lateral (
      select a.*
      from public.widget_analytics a
      where a.widget_id = s.widget_id and a."timestamp" between s.first_at and s.last_at and a.session_id = s.session_id
      offset 0
    ) e
  )
  select r.*, encode(sha256(convert_to(
    concat_ws(
      '|', r.id, r.widget_id, r.event_type, r.source, r.happened_us, r.received_us, coalesce(r.seq, 0),
      coalesce(r.stated_us, -1), octet_length(r.session_id), r.session_id,
      -- Each text after its length, so that no two rows read the same.
      coalesce(octet_length(r.call_id), -1), r.call_id, coalesce(octet_length(r.page_url), -1), r.page_url,
      coalesce(octet_length(r.user_agent), -1), r.user_agent, coalesce(octet_length(r.properties), -1), r.properties,
      coalesce(octet_length(r.note), -1), r.note
    ), 'UTF8'
  )), 'hex') as digest
  from rows_of_files r;


create or replace function widget_internal.archive_sums(
  first_chunk integer, last_chunk integer, as_of timestamptz
)
returns table (chunk integer, events bigint, digest_sum text)
language plpgsql stable
set search_path = ''
as $$
begin
  return query
  select e.chunk, count(*),
    -- The sums of two numbers of 60 bits each: the same rows in any order, and no others, give them.
    concat_ws(
      '-', sum(('x0' || substr(e.digest, 1, 15))::bit(64)::bigint), sum(('x0' || substr(e.digest, 16, 15))::bit(64)::bigint)
    )
  from widget_internal.events_to_archive e
  where e.chunk between archive_sums.first_chunk and archive_sums.last_chunk
    and e.received_at <= archive_sums.as_of
  group by e.chunk;
end
$$;


create or replace function widget_internal.release_archived_chunk(month date, chunk integer, events bigint, digest_sum text)
returns bigint
language plpgsql volatile
set search_path = ''
as $$
#variable_conflict use_column
declare
  v_archive public.widget_archives;
  v_deleted bigint;
begin
  select a.* into v_archive from public.widget_archives a where a.month = release_archived_chunk.month for share;
  if v_archive.manifest_hash is null or release_archived_chunk.chunk < 1 then
    raise exception 'chunk % of % is not to be released', release_archived_chunk.chunk, release_archived_chunk.month
      using errcode = 'object_not_in_prerequisite_state', hint = 'Run `widget-analytics archive` from its start.';
  end if;
  -- Whoever closes a month reads the ledger several times, and must see the same.
  perform pg_advisory_xact_lock_shared(widget_internal.closing_key());
  if not exists (
    select from widget_internal.sessions_to_archive s where s.chunk = release_archived_chunk.chunk
  ) then
    return 0;
  end if;
  if not exists (
    select from widget_internal.archive_sums(release_archived_chunk.chunk, release_archived_chunk.chunk, 'infinity') s
    where s.events = release_archived_chunk.events and s.digest_sum = release_archived_chunk.digest_sum
  ) then
    raise exception 'the archive does not hold what the ledger holds of chunk % of %; nothing of it was released',
      release_archived_chunk.chunk, release_archived_chunk.month using errcode = 'data_corrupted';
  end if;

  delete from public.widget_analytics e
  using widget_internal.events_to_archive a
  where a.chunk = release_archived_chunk.chunk and e.id = a.id and e.widget_id = a.widget_id;
  get diagnostics v_deleted = row_count;
  if v_deleted <> release_archived_chunk.events then
    raise exception 'chunk % of % changed while it was released', release_archived_chunk.chunk,
      release_archived_chunk.month using errcode = 'data_corrupted';
  end if;
  delete from widget_internal.sessions_to_archive s where s.chunk = release_archived_chunk.chunk;
  return v_deleted;
end
$$;
