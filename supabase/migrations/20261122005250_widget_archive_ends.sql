-- When a month has left, and how a session comes back from the archive.

create function widget_internal.finish_archive(month date)
returns void
language plpgsql volatile
set search_path = ''
as $$
#variable_conflict use_column
begin
  if exists (select from widget_internal.sessions_to_archive s where s.chunk > 0) then
    raise exception 'sessions of % are still to be released', finish_archive.month
      using errcode = 'object_not_in_prerequisite_state', hint = 'Run `widget-analytics archive` again.';
  end if;
  delete from widget_internal.sessions_to_archive;
  update public.widget_archives a set released_at = clock_timestamp()
  where a.month = finish_archive.month and a.released_at is null;
  perform widget_internal.return_late_events();
end
$$;

comment on function widget_internal.finish_archive(date) is 'The last step: nothing of the month is left to release.';


create function widget_internal.restore_archived_session(widget_id uuid, session_id text, events jsonb)
returns bigint
language plpgsql volatile
set search_path = ''
as $$
#variable_conflict use_column
declare
  v_key constant uuid := widget_internal.archived_session_key(
    restore_archived_session.widget_id, restore_archived_session.session_id
  );
  v_restored bigint;
begin
  if exists (select from public.widget_archives a where a.released_at is null) then
    raise exception 'a month is being archived' using errcode = 'object_not_in_prerequisite_state',
      hint = 'Let `widget-analytics archive` end first.';
  end if;
  delete from widget_internal.archived_sessions a where a.session_key = v_key;
  if not found then
    return 0;
  end if;
  insert into public.widget_analytics
  select e.* from jsonb_populate_recordset(null::public.widget_analytics, restore_archived_session.events) e
  on conflict do nothing;
  get diagnostics v_restored = row_count;
  perform widget_internal.return_late_events();
  return v_restored;
end
$$;

comment on function widget_internal.restore_archived_session(uuid, text, jsonb) is
  'Puts a session''s events from the archive back into the ledger, and then those that came late. Again: changes nothing.';

revoke all on function widget_internal.finish_archive(date) from public, anon, authenticated, service_role;
revoke all on function widget_internal.restore_archived_session(uuid, text, jsonb)
  from public, anon, authenticated, service_role;
