-- Made by scripts/baseline from schemas/1_core/01_internals.sql, schemas/1_core/02_receipts.sql.

-- The schema of internals, and what every later file builds on: settings, rights, time-ordered ids.

create schema widget_internal;

comment on schema widget_internal is
  'Internals of widget analytics. Never expose it through the API: what callers may use is in public.';


create table widget_internal.settings (
  only_row boolean primary key default true,
  max_call_duration interval not null default '4 hours',
  assumed_call_duration interval not null default '30 minutes',
  constraint settings_are_one_row check (only_row),
  constraint max_call_duration_is_positive check (max_call_duration > interval '0'),
  constraint assumed_call_duration_is_not_negative check (assumed_call_duration >= interval '0'),
  constraint call_durations_are_at_most_168_hours
    check (greatest(max_call_duration, assumed_call_duration) <= interval '168 hours'),
  -- A day has 23 to 25 hours, as the session's time zone has it: a bill must not depend on that.
  constraint call_durations_are_in_hours_not_days
    check (date_trunc('day', max_call_duration) = interval '0' and date_trunc('day', assumed_call_duration) = interval '0')
);

comment on table widget_internal.settings is
  'Settings, in exactly one row. Each set of the schema adds its own columns.';
comment on column widget_internal.settings.max_call_duration is
  'No call ends later than this after its start. In hours, 168 at most.';
comment on column widget_internal.settings.assumed_call_duration is
  'The assumed length of a call that has a start, and neither an end nor a heartbeat. In hours, 168 at most.';

alter table widget_internal.settings enable row level security;

create policy "whoever reads calls sees the settings" on widget_internal.settings
  for select to authenticated
  using (true);

insert into widget_internal.settings default values;


create table widget_internal.rights (
  object text not null,
  grantee text not null,
  privileges text not null,
  constraint rights_are_one_row_an_object_and_role primary key (object, grantee)
);

comment on table widget_internal.rights is
  'The rights of each role on the objects of widget analytics: the only list. apply_rights() grants exactly this, '
  'rights_differences() compares it with the database. Each set of the schema adds its own rows.';
comment on column widget_internal.rights.object is 'As GRANT names it: "table public.widgets", "function public.track_events(jsonb)".';
comment on column widget_internal.rights.privileges is 'As GRANT lists them: "select", "execute", "select, insert"; empty: none.';

alter table widget_internal.rights enable row level security;


create function widget_internal.uuid_v7()
returns uuid
language plpgsql volatile parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  v_milliseconds constant bigint := date_part('epoch', clock_timestamp()) * 1000;
begin
  -- 12 hexadecimal digits of time and the version, over a random UUID, which brings the variant.
  return overlay(gen_random_uuid()::text placing lpad(to_hex(v_milliseconds), 12, '0') || '7' from 1 for 15)::uuid;
end
$$;

comment on function widget_internal.uuid_v7() is
  'A UUID version 7 (RFC 9562): milliseconds first, so that new keys land at the right edge of an index.';


create function widget_internal.refuse_visitors()
returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  if current_setting('role') in ('anon', 'authenticated') then
    raise exception 'only the company itself may do this' using errcode = 'insufficient_privilege',
      hint = 'Call it with a secret key, or in the SQL editor.';
  end if;
end
$$;

comment on function widget_internal.refuse_visitors() is
  'Raises 42501 where the request runs as anon or authenticated. A function that only the company may call runs this '
  'in its body, so that it stays closed where a restore brings the platform''s default grants back.';


create function widget_internal.refuse_change()
returns trigger
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  raise exception '%', tg_argv[0] using errcode = 'object_not_in_prerequisite_state', hint = tg_argv[1];
end
$$;

comment on function widget_internal.refuse_change() is
  'Refuses what its trigger is on, also to the owner, with the trigger''s two arguments as message and hint.';

create trigger settings_stay before delete or truncate on widget_internal.settings
  for each statement execute function widget_internal.refuse_change(
    'the settings are one row, without which there is no bill', 'Update it. A column''s default: set … = default.'
  );


-- The moment of receipt is read under a lock that the writer holds until it commits. A cut-off takes that lock alone,
-- so nothing received before the cut-off can be committed after it: a bill as of a past moment never changes.

create function widget_internal.receipts_key()
returns bigint
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
  return hashtextextended('widget_internal: receipts', 0);
end
$$;

comment on function widget_internal.receipts_key() is
  'The key of the advisory lock that writers share until they commit, and that cut_off() takes alone.';


create function widget_internal.receipt_time()
returns timestamptz
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_microseconds bigint := nullif(current_setting('widget_internal.receipt_time', true), '')::bigint;
begin
  -- One moment for the whole transaction: the ages in a batch count from the same receipt.
  if v_microseconds is null then
    perform pg_advisory_xact_lock_shared(widget_internal.receipts_key());
    v_microseconds := date_part('epoch', clock_timestamp()) * 1000000;
    perform set_config('widget_internal.receipt_time', v_microseconds::text, true);
  end if;
  return timestamptz 'epoch' + v_microseconds * interval '1 microsecond';
end
$$;

comment on function widget_internal.receipt_time() is
  'When the database takes this transaction''s events in. Holds the receipt lock until commit, so that a cut-off taken '
  'later includes these events.';


create function widget_internal.cut_off()
returns timestamptz
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_cut_off timestamptz;
begin
  begin
    -- A session that waits for a lock holds up those behind it: hence briefly, or not at all.
    perform set_config('lock_timeout', '2s', true);
    perform pg_advisory_xact_lock(widget_internal.receipts_key());
    v_cut_off := clock_timestamp();
    -- Undoing this block releases the lock at once, and the setting too; the variable keeps its value.
    raise exception using errcode = 'WA001';
  exception
    when sqlstate 'WA001' then
      -- What this transaction takes in from now on is received later.
      perform set_config('widget_internal.receipt_time', '', true);
      return v_cut_off;
    when lock_not_available then
      raise exception 'a transaction that writes events has been running for more than 2 seconds; nothing was changed'
        using errcode = 'lock_not_available', hint = 'Try again when it is over.';
  end;
end
$$;

comment on function widget_internal.cut_off() is
  'A moment by which all that was received is committed: a bill as of it, asked for in a later statement, is final. '
  'Raises 55P03 where a writer''s transaction stays open for more than 2 seconds.';
