-- Internals live in a schema that the API never exposes, so that nothing in it is reachable by name from outside.

create schema widget_internal;

comment on schema widget_internal is
  'Internals of widget analytics. Never expose it through the API: what callers may use is in public.';

revoke all on schema widget_internal from public, anon, authenticated, service_role;
-- Policies and the thin wrappers in public name functions here; each of those is granted one by one.
grant usage on schema widget_internal to anon, authenticated, service_role;


create function widget_internal.uuid_v7()
returns uuid
language plpgsql volatile parallel safe
set search_path = ''
as $$
declare
  v_milliseconds bytea := substring(int8send(floor(extract(epoch from clock_timestamp()) * 1000)::bigint) from 3);
  v_bytes bytea := overlay(uuid_send(gen_random_uuid()) placing v_milliseconds from 1 for 6);
begin
  -- A random UUID is version 4 (0100); setting these two bits makes it version 7 (0111).
  return encode(set_bit(set_bit(v_bytes, 52, 1), 53, 1), 'hex')::uuid;
end
$$;

comment on function widget_internal.uuid_v7() is
  'A UUID version 7 (RFC 9562): milliseconds first, so that new keys land at the right edge of an index.';

revoke all on function widget_internal.uuid_v7() from public, anon, authenticated, service_role;


create table widget_internal.settings (
  only_row boolean primary key default true,
  max_call_duration interval not null default '4 hours',
  constraint settings_are_one_row check (only_row),
  constraint max_call_duration_is_positive check (max_call_duration > interval '0')
);

comment on table widget_internal.settings is 'The settings of widget analytics: exactly one row.';
comment on column widget_internal.settings.max_call_duration is
  'No call ends later than this after its start (R5). A change recomputes the calls that it concerns.';

alter table widget_internal.settings enable row level security;
revoke all on table widget_internal.settings from public, anon, authenticated, service_role;
grant select on table widget_internal.settings to authenticated, service_role;

create policy "whoever computes a call sees the settings" on widget_internal.settings
  for select to authenticated
  using (true);

insert into widget_internal.settings default values;
