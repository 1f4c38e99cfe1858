-- Removes the rows that the migrations made (settings, rights, states), and those of jobs that ran since, so that the data of
-- a backup takes their place.
-- Refuses where there is anything that a backup could not bring back. A list of tables would age: all internals are emptied.
do $$
declare
  v_table regclass;
begin
  if exists (select from public.widget_analytics) or exists (select from public.widget_billing_periods) then
    raise exception 'this project has events or closed months: restore into one that has none'
      using errcode = 'object_not_in_prerequisite_state';
  end if;
  alter table widget_internal.settings disable trigger settings_stay;
  for v_table in
    select c.oid from pg_catalog.pg_class c where c.relnamespace = 'widget_internal'::regnamespace and c.relkind in ('r', 'p')
  loop
    execute format('delete from %s', v_table);
  end loop;
  alter table widget_internal.settings enable trigger settings_stay;
  delete from public.widget_cleanup_runs;
end
$$;
