-- pg_cron prunes what it and the cleanup note. A project whose Postgres has no pg_cron leaves this file out.

-- Fails here, by name, where pg_cron is missing or older than 1.3 and keeps no notes, or the role may not remove them.
do $$
begin
  if not has_table_privilege('cron.job_run_details', 'delete') then
    raise exception 'role % may not delete from cron.job_run_details', current_user
      using errcode = 'insufficient_privilege', hint = 'grant delete on cron.job_run_details to the role that migrates.';
  end if;
end
$$;

select cron.schedule('widget_prune', '17 3 * * *', 'select widget_internal.prune()');
