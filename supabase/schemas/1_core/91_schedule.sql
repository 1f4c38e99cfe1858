-- What pg_cron runs of the core. A project whose Postgres has no pg_cron leaves this file out: it calls the Edge Function
-- for the cleanup, and widget_internal.prune() and forget_senders() by other means.

create extension if not exists pg_cron with schema pg_catalog;

-- Fails here, by name, where pg_cron is missing or older than 1.3, which keeps no records, or the role may not delete them.
do $$
begin
  if not has_table_privilege('cron.job_run_details', 'delete') then
    raise exception 'role % may not delete from cron.job_run_details', current_user
      using errcode = 'insufficient_privilege', hint = 'grant delete on cron.job_run_details to the role that migrates.';
  end if;
end
$$;

select widget_internal.schedule_jobs();
