-- Each chunk of 100 sessions was looked for in the whole ledger: the time to release a month grew by its square.

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
  using widget_internal.sessions_to_archive s
  -- "offset 0": session by session through their index. The planner would rather read the whole ledger for each chunk.
  cross join lateral (
    select a.id
    from public.widget_analytics a
    where a.widget_id = s.widget_id and a."timestamp" between s.first_at and s.last_at and a.session_id = s.session_id
    offset 0
  ) a
  where s.chunk = release_archived_chunk.chunk and e.id = a.id and e.widget_id = s.widget_id;
  get diagnostics v_deleted = row_count;
  if v_deleted <> release_archived_chunk.events then
    raise exception 'chunk % of % changed while it was released', release_archived_chunk.chunk,
      release_archived_chunk.month using errcode = 'data_corrupted';
  end if;
  delete from widget_internal.sessions_to_archive s where s.chunk = release_archived_chunk.chunk;
  return v_deleted;
end
$$;
