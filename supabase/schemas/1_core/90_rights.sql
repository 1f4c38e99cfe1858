-- Who may do what, in one list, and the two functions that apply it and compare it with the database. Default grants,
-- which a restore or a copied schema brings back, are taken away by select widget_internal.apply_rights().

insert into widget_internal.rights (object, grantee, privileges)
select o.object, g.grantee, o.privileges
from (values
  ('schema widget_internal', 'anon, authenticated, service_role', 'usage'),

  -- Events in: everybody, and nothing else for a visitor.
  (
    'function public.track_event(uuid, text, text, text, uuid, text, integer, bigint, jsonb)',
    'anon, authenticated, service_role', 'execute'
  ),
  ('function public.track_events(jsonb)', 'anon, authenticated, service_role', 'execute'),
  ('function widget_internal.record_events(jsonb, boolean)', 'anon, authenticated, service_role', 'execute'),

  -- An owner reads and erases the rows of the own widgets, which row level security names; the company's backend all.
  ('function widget_internal.owned_widget_ids()', 'authenticated', 'execute'),
  ('table public.widget_analytics', 'authenticated, service_role', 'select'),
  ('table widget_internal.call_states', 'authenticated, service_role', 'select'),
  ('table public.widget_calls', 'authenticated, service_role', 'select'),
  ('table public.widget_erasures', 'authenticated, service_role', 'select'),
  ('table public.widget_refusals', 'authenticated, service_role', 'select'),
  ('table widget_internal.refusal_counts', 'authenticated, service_role', 'select'),
  ('table widget_internal.settings', 'authenticated, service_role', 'select'),
  ('function public.erase_widget_session(uuid, text)', 'authenticated, service_role', 'execute'),
  ('function widget_internal.erase_session(uuid, text)', 'authenticated, service_role', 'execute'),

  -- Quotas are the company's to set; it runs the cleanup.
  ('table public.widget_quotas', 'authenticated', 'select'),
  ('table public.widget_quotas', 'service_role', 'select, insert, update, delete'),
  ('table public.widget_cleanup_runs', 'service_role', 'select'),
  ('function public.complete_stale_sessions(interval)', 'service_role', 'execute'),
  ('function public.widget_migrations()', 'service_role', 'execute')
) o (object, grantees, privileges)
cross join lateral string_to_table(o.grantees, ', ') g (grantee);


create function widget_internal.rights_in_force()
returns table (object text, grantee text, privilege text)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  with objects (name, kind, acl, owner) as (
    select format('schema %I', n.nspname), 'n', n.nspacl, n.nspowner from pg_namespace n where n.nspname = 'widget_internal'
    union all
    select format('function %I.%I(%s)', n.nspname, p.proname, oidvectortypes(p.proargtypes)), 'f', p.proacl, p.proowner
    from pg_proc p join pg_namespace n on n.oid = p.pronamespace
    where n.nspname = 'widget_internal'
      or n.nspname = 'public' and exists (
        select from widget_internal.rights r where r.object like format('function public.%I(%%', p.proname)
      )
    union all
    select
      case c.relkind when 'S' then 'sequence ' else 'table ' end || c.oid::regclass,
      case c.relkind when 'S' then 's' else 'r' end, c.relacl, c.relowner
    from pg_class c
    join pg_namespace n on n.oid = c.relnamespace
    -- A sequence goes with the table that it numbers.
    left join pg_depend d on c.relkind = 'S' and d.classid = 'pg_class'::regclass and d.objid = c.oid
      and d.refclassid = 'pg_class'::regclass
    where c.relkind in ('r', 'v', 'm', 'p', 'S') and (
      n.nspname = 'widget_internal'
      or n.nspname = 'public' and exists (
        select from widget_internal.rights r where r.object = 'table ' || coalesce(d.refobjid, c.oid)::regclass
      )
    )
  )
  select o.name, coalesce(a.rolname::text, case when x.grantee = 0 then 'public' end), lower(x.privilege_type)
  from objects o
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
#variable_conflict use_column
begin
  return query
  select object, grantee, privilege, case when l.is_listed then 'missing' else 'too wide' end
  from (
    select l.object, l.grantee, lower(trim(p)) as privilege, true as is_listed
    from widget_internal.rights l cross join lateral string_to_table(l.privileges, ',') p
  ) l
  full join (select f.*, true as is_in_force from widget_internal.rights_in_force() f where f.privilege is not null) f
    using (object, grantee, privilege)
  where l.is_listed is null or f.is_in_force is null
  order by 1, 2, 3;
end
$$;

comment on function widget_internal.rights_differences() is
  'Rights in force that the list does not have (too wide), and rights of the list that are not in force (missing). Good: '
  'no rows. select widget_internal.apply_rights() corrects both.';

select widget_internal.apply_rights();
