-- Which migrations a project has: the API shows nothing of the schema that the CLI keeps them in.

create function public.widget_migrations()
returns text[]
language plpgsql volatile
-- definer because service_role may not read the history
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform widget_internal.refuse_visitors();
  if to_regclass('supabase_migrations.schema_migrations') is null then
    return '{}'::text[];
  end if;
  return array(select concat_ws('_', m.version, m.name) from supabase_migrations.schema_migrations m order by 1);
end
$$;

comment on function public.widget_migrations() is
  'The migrations that the project''s history names, its own included, as version_name. Empty where they were not applied '
  'by the Supabase CLI. widget-analytics doctor compares them with those of its release.';
