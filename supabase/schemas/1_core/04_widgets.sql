-- The widgets that a company embeds. A project that already has its own widgets table leaves this file out.

create function widget_internal.are_bare_hosts(hosts text[])
returns boolean
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return not exists (
    select from unnest(are_bare_hosts.hosts) host
    where host is null
      or host !~* '^(\*|(\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*\.?|\[[0-9a-f:.]+\])$'
  );
end
$$;

comment on function widget_internal.are_bare_hosts(text[]) is
  'Whether each of these is a host, "*." and a host, or "*": what could match a page''s host.';


create table public.widgets (
  id uuid primary key default gen_random_uuid(),
  owner_id uuid references auth.users (id),
  name text not null default '',
  allowed_domains text[] not null default '{}',
  is_active boolean not null default true,
  is_demo boolean not null default false,
  created_at timestamptz not null default now(),
  constraint allowed_domains_are_bare_hosts check (widget_internal.are_bare_hosts(allowed_domains))
);

comment on table public.widgets is 'The call widgets that a company embeds on its customers'' sites, each with the owner who pays.';
comment on column public.widgets.owner_id is 'Who sees this widget''s rows and pays its bill; null: the company itself.';
comment on column public.widgets.allowed_domains is
  'Hosts whose pages may send events: "shop.example" is that host alone, "*.shop.example" its subdomains, '
  '"*" any host; {} none. No scheme, port or path; international names in punycode.';
comment on column public.widgets.is_active is 'Events of an inactive widget are refused.';
comment on column public.widgets.is_demo is 'Events of a demo widget are answered with success and not stored.';

create index widgets_owner_id_idx on public.widgets (owner_id);
comment on index public.widgets_owner_id_idx is 'Serves widget_internal.owned_widget_ids(): which widgets are mine?';

alter table public.widgets enable row level security;

create policy "owners see their widgets" on public.widgets
  for select to authenticated
  using (id = any (array(select widget_internal.owned_widget_ids())));


-- Owners only read: switching a widget off, or making it a demo, would switch off their own bill.
insert into widget_internal.rights (object, grantee, privileges) values
  ('table public.widgets', 'authenticated', 'select'),
  ('table public.widgets', 'service_role', 'select, insert, update, delete'),
  ('function widget_internal.are_bare_hosts(text[])', 'service_role', 'execute');
