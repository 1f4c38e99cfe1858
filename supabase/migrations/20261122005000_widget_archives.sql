-- Old months leave for an archive of Parquet files. What stays here: which months, and which sessions, so that an event
-- of one of these that comes later is neither counted twice nor lost.

create table public.widget_archives (
  month date primary key,
  place text not null,
  as_of timestamptz,
  manifest_hash text,
  released_at timestamptz,
  constraint archives_are_of_months check (extract(day from month) = 1),
  constraint places_are_named check (place <> ''),
  constraint a_manifest_tells_of_settled_sessions check (manifest_hash is null or as_of is not null),
  constraint nothing_is_released_without_a_manifest check (released_at is null or manifest_hash is not null)
);

comment on table public.widget_archives is
  'The months whose sessions were moved to an archive by `widget-analytics archive`, in order and without gaps.';
comment on column public.widget_archives.place is 'Where the archive is: a folder, or a URL such as s3://bucket/folder.';
comment on column public.widget_archives.as_of is 'What was received by then is in the archive; null as long as that is not settled.';
comment on column public.widget_archives.manifest_hash is
  'SHA-256 of the archive''s manifest of the month: all its files were read back and are equal to the ledger.';
comment on column public.widget_archives.released_at is 'When the last of these sessions left the ledger; null before.';

alter table public.widget_archives enable row level security;
revoke all on table public.widget_archives from public, anon, authenticated, service_role;
grant select on table public.widget_archives to service_role;


create table public.widget_late_events (
  id uuid not null,
  widget_id uuid not null,
  session_id text collate "C" not null,
  event jsonb not null,
  constraint widget_late_events_pkey primary key (id, widget_id)
);

comment on table public.widget_late_events is
  'Events that came for sessions in the archive: repeats, or news. `widget-analytics restore` brings their sessions back '
  'and puts them into the ledger, where repeats vanish and news become adjustments. Good: no rows.';
comment on column public.widget_late_events.event is 'The row that the ledger would have had.';

alter table public.widget_late_events enable row level security;
revoke all on table public.widget_late_events from public, anon, authenticated, service_role;
grant select on table public.widget_late_events to service_role;


create table widget_internal.archived_sessions (
  session_key uuid primary key,
  month date not null
);

comment on table widget_internal.archived_sessions is
  'The sessions that are in the archive and not in the ledger, by archived_session_key(): 76 bytes each, index and all.';
comment on column widget_internal.archived_sessions.month is 'The month whose files hold the session.';

alter table widget_internal.archived_sessions enable row level security;
revoke all on table widget_internal.archived_sessions from public, anon, authenticated, service_role;


create function widget_internal.archived_session_key(widget_id uuid, session_id text)
returns uuid
language plpgsql immutable parallel safe
set search_path = ''
as $$
begin
  return substr(
    sha256(uuid_send(archived_session_key.widget_id) || convert_to(archived_session_key.session_id, 'UTF8'))::text, 3, 32
  )::uuid;
end
$$;

comment on function widget_internal.archived_session_key(uuid, text) is
  'The first half of a SHA-256: short, and no two sessions share it.';


create function widget_internal.is_young_session(session_id text, born_after timestamptz)
returns boolean
language plpgsql immutable parallel safe
set search_path = ''
as $$
begin
  return substr(is_young_session.session_id, 15, 1) = '7' and length(is_young_session.session_id) = 36
    and translate(left(is_young_session.session_id, 13), '-', '')
      >= lpad(to_hex((extract(epoch from is_young_session.born_after) * 1000)::bigint), 12, '0');
end
$$;

comment on function widget_internal.is_young_session(text, timestamptz) is
  'Whether a session id is a UUIDv7 that says that it was made after a moment. Such a session is not archived, whoever made its id.';


create function widget_internal.divert_archived_event()
returns trigger
language plpgsql volatile
-- definer because who may add an event need have no right on what is archived
security definer
set search_path = ''
as $$
begin
  -- Such a transaction cannot see what was archived since it began.
  if current_setting('transaction_isolation') in ('repeatable read', 'serializable') then
    raise exception 'events of sessions as old as this cannot be added in a % transaction',
      current_setting('transaction_isolation')
      using errcode = 'feature_not_supported', hint = 'Use read committed.';
  end if;
  -- Held until the transaction ends: who archives waits for those that have looked before it began.
  perform widget_internal.receipt_time();
  if not exists (
    select from widget_internal.archived_sessions a
    where a.session_key = widget_internal.archived_session_key(new.widget_id, new.session_id)
  ) then
    return new;
  elsif new.source in ('server', 'provider', 'operator') then
    raise exception 'session_id: this session is in the archive' using errcode = 'invalid_parameter_value',
      hint = 'Bring it back with `widget-analytics restore`, then send this again.';
  end if;
  insert into public.widget_late_events (id, widget_id, session_id, event)
  values (new.id, new.widget_id, new.session_id, to_jsonb(new))
  on conflict do nothing;
  return null;
end
$$;

comment on function widget_internal.divert_archived_event() is
  'Before an event of a session that is not young is added: one of an archived session goes to widget_late_events; what '
  'the company''s own backend sends of it is refused.';

-- Off until something is archived, so that until then it costs nothing; seal_archive() switches it on.
create trigger divert_archived_events before insert on public.widget_analytics
  for each row when (not widget_internal.is_young_session(new.session_id, now() - interval '34 days'))
  execute function widget_internal.divert_archived_event();
alter table public.widget_analytics disable trigger divert_archived_events;


revoke all on function widget_internal.archived_session_key(uuid, text) from public, anon, authenticated, service_role;
revoke all on function widget_internal.is_young_session(text, timestamptz) from public, anon, authenticated, service_role;
revoke all on function widget_internal.divert_archived_event() from public, anon, authenticated, service_role;
