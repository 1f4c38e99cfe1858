-- Removes widget analytics from a project: every event, call, bill and statement, and the jobs. Nothing brings them back but
-- a backup. The table public.widgets stays, without the policy and the constraint that need our functions.
-- One statement, so that it is done whole or not at all, also by `supabase db query`.
do $$
declare
  v_object record;
begin
  if to_regclass('cron.job') is not null then
    perform cron.unschedule(j.jobid) from cron.job j where j.jobname like 'widget\_%';
  end if;

  -- What is in public stands in the list of rights.
  for v_object in
    select distinct substring(r.object from '^function (public\..*)$') as function_name
    from widget_internal.rights r where r.object like 'function public.%'
  loop
    execute format('drop function if exists %s cascade', v_object.function_name);
  end loop;
  for v_object in
    select format('public.%I', c.relname) as name, case c.relkind when 'v' then 'view' else 'table' end as kind
    from pg_class c
    where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p', 'v') and c.relname <> 'widgets'
      and exists (
        select from widget_internal.rights r where r.object = format('table public.%I', c.relname)
      )
    order by c.relkind desc
  loop
    execute format('drop %s if exists %s cascade', v_object.kind, v_object.name);
  end loop;

  drop schema widget_internal cascade;
  -- So that a later push applies them again.
  delete from supabase_migrations.schema_migrations
  where version like '202611280%' and name like 'widget%' or name like 'widget\_analytics\_%';
end
$$;
