-- Who may do what, in one list, and the two functions that apply it and compare it with the database. Default grants,
-- which a restore or a copied schema brings back, are taken away by select widget_internal.apply_rights().

insert into widget_internal.rights (object, grantee, privileges) values
  ('schema widget_internal', 'anon', 'usage'),
  ('schema widget_internal', 'authenticated', 'usage'),
  ('schema widget_internal', 'service_role', 'usage'),

  -- Events in: everybody, and nothing else for a visitor.
  ('function public.track_event(uuid, text, text, text, uuid, text, integer, bigint, jsonb)', 'anon', 'execute'),
  ('function public.track_event(uuid, text, text, text, uuid, text, integer, bigint, jsonb)', 'authenticated', 'execute'),
  ('function public.track_event(uuid, text, text, text, uuid, text, integer, bigint, jsonb)', 'service_role', 'execute'),
  ('function public.track_events(jsonb)', 'anon', 'execute'),
  ('function public.track_events(jsonb)', 'authenticated', 'execute'),
  ('function public.track_events(jsonb)', 'service_role', 'execute'),
  ('function widget_internal.record_event(jsonb)', 'anon', 'execute'),
  ('function widget_internal.record_event(jsonb)', 'authenticated', 'execute'),
  ('function widget_internal.record_event(jsonb)', 'service_role', 'execute'),
  ('function widget_internal.record_events(jsonb)', 'anon', 'execute'),
  ('function widget_internal.record_events(jsonb)', 'authenticated', 'execute'),
  ('function widget_internal.record_events(jsonb)', 'service_role', 'execute'),

  -- An owner reads the rows of the own widgets; row level security says which these are.
  ('function widget_internal.owned_widget_ids()', 'authenticated', 'execute'),
  ('table public.widget_analytics', 'authenticated', 'select'),
  ('table widget_internal.call_states', 'authenticated', 'select'),
  ('table public.widget_calls', 'authenticated', 'select'),
  ('table public.widget_erasures', 'authenticated', 'select'),
  ('table public.widget_quotas', 'authenticated', 'select'),
  ('table public.widget_refusals', 'authenticated', 'select'),
  ('table widget_internal.refusal_counts', 'authenticated', 'select'),
  ('table widget_internal.settings', 'authenticated', 'select'),
  ('function public.erase_widget_session(uuid, text)', 'authenticated', 'execute'),
  ('function widget_internal.erase_session(uuid, text)', 'authenticated', 'execute'),

  -- The company's own backend: reads everything, writes what is not the ledger, runs the cleanup.
  ('table public.widget_analytics', 'service_role', 'select'),
  ('table widget_internal.call_states', 'service_role', 'select'),
  ('table public.widget_calls', 'service_role', 'select'),
  ('table public.widget_cleanup_runs', 'service_role', 'select'),
  ('table public.widget_erasures', 'service_role', 'select'),
  ('table public.widget_quotas', 'service_role', 'select, insert, update, delete'),
  ('table public.widget_refusals', 'service_role', 'select'),
  ('table widget_internal.refusal_counts', 'service_role', 'select'),
  ('table widget_internal.settings', 'service_role', 'select'),
  ('function public.complete_stale_sessions(interval)', 'service_role', 'execute'),
  ('function public.widget_migrations()', 'service_role', 'execute'),
  ('function public.erase_widget_session(uuid, text)', 'service_role', 'execute'),
  ('function widget_internal.erase_session(uuid, text)', 'service_role', 'execute');


create function widget_internal.rights_in_force()
returns table (object text, grantee text, privilege text)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  with objects (name, kind, class, id, acl, owner) as (
    select format('schema %I', n.nspname), 'n', 'pg_namespace'::regclass, n.oid, n.nspacl, n.nspowner
    from pg_namespace n where n.nspname = 'widget_internal'
    union all
    select format('table %I.%I', n.nspname, c.relname), 'r', 'pg_class'::regclass, c.oid, c.relacl, c.relowner
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where c.relkind in ('r', 'v', 'm', 'p') and (
      n.nspname = 'widget_internal'
      or n.nspname = 'public' and exists (
        select from widget_internal.rights r where r.object = format('table public.%I', c.relname)
      )
    )
    union all
    select format('function %I.%I(%s)', n.nspname, p.proname, oidvectortypes(p.proargtypes)),
      'f', 'pg_proc'::regclass, p.oid, p.proacl, p.proowner
    from pg_proc p join pg_namespace n on n.oid = p.pronamespace
    where n.nspname = 'widget_internal'
      or n.nspname = 'public' and exists (
        select from widget_internal.rights r where r.object like format('function public.%I(%%', p.proname)
      )
  ),
  with_sequences as (
    select o.* from objects o
    union all
    select format('sequence %I.%I', n.nspname, c.relname), 's', 'pg_class'::regclass, c.oid, c.relacl, c.relowner
    from objects o
    join pg_depend d on d.refclassid = o.class and d.refobjid = o.id and d.classid = 'pg_class'::regclass
    join pg_class c on c.oid = d.objid and c.relkind = 'S'
    join pg_namespace n on n.oid = c.relnamespace
    where o.kind = 'r'
  )
  select o.name, coalesce(a.rolname::text, case when x.grantee = 0 then 'public' end), lower(x.privilege_type)
  from with_sequences o
  left join lateral aclexplode(coalesce(o.acl, acldefault(o.kind::"char", o.owner))) x on x.grantee <> o.owner
  left join pg_roles a on a.oid = x.grantee
  where x.grantee is null or x.grantee = 0 or a.rolname in ('anon', 'authenticated', 'service_role');
end
$$;

comment on function widget_internal.rights_in_force() is
  'What public, anon, authenticated and service_role may do with our objects now: one row a right, and at least one with '
  'null an object. Ours is what stands in widget_internal, and of public what is in the list, with its sequences.';


create function widget_internal.apply_rights()
returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_right record;
begin
  for v_right in select distinct f.object from widget_internal.rights_in_force() f order by 1 loop
    execute format('revoke all on %s from public, anon, authenticated, service_role', v_right.object);
  end loop;
  for v_right in select r.* from widget_internal.rights r where r.privileges <> '' order by r.object, r.grantee loop
    execute format('grant %s on %s to %I', v_right.privileges, v_right.object, v_right.grantee);
  end loop;
end
$$;

comment on function widget_internal.apply_rights() is
  'Takes all rights on our objects away and grants those of widget_internal.rights. Migrations call it last; call it after '
  'a restore.';


create function widget_internal.rights_differences()
returns table (object text, grantee text, privilege text, problem text)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  with listed as (
    select r.object, r.grantee, lower(trim(p)) as privilege
    from widget_internal.rights r cross join lateral string_to_table(r.privileges, ',') p
  ),
  in_force as (
    select f.object, f.grantee, f.privilege from widget_internal.rights_in_force() f where f.privilege is not null
  )
  select d.object, d.grantee, d.privilege, d.problem
  from (
    select f.*, 'too wide' from in_force f where not exists (
      select from listed l where (l.object, l.grantee, l.privilege) = (f.object, f.grantee, f.privilege)
    )
    union all
    select l.*, 'missing' from listed l where not exists (
      select from in_force f where (l.object, l.grantee, l.privilege) = (f.object, f.grantee, f.privilege)
    )
  ) d (object, grantee, privilege, problem)
  order by 1, 2, 3;
end
$$;

comment on function widget_internal.rights_differences() is
  'Rights in force that the list does not have (too wide), and rights of the list that are not in force (missing). Good: '
  'no rows. select widget_internal.apply_rights() corrects both.';

select widget_internal.apply_rights();
