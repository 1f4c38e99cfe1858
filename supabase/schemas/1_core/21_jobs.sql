-- What pg_cron runs. A job is a row here, beside the function that it calls; a set's 91_schedule.sql has the rows scheduled.

alter table widget_internal.settings add column jobs_elsewhere text[] not null default '{}';

comment on column widget_internal.settings.jobs_elsewhere is
  'Jobs that something other than pg_cron runs, by name, such as widget_complete_stale_sessions: no alarm where pg_cron '
  'has none.';


create table widget_internal.scheduled_jobs (
  name text primary key,
  schedule text not null,
  command text not null
);

comment on table widget_internal.scheduled_jobs is
  'The jobs that the migrations schedule, and that of alerts where they are on, as cron.schedule() takes them; each set of '
  'the schema adds its own rows.';

alter table widget_internal.scheduled_jobs enable row level security;

insert into widget_internal.scheduled_jobs (name, schedule, command) values
  ('widget_complete_stale_sessions', '*/30 * * * *', 'select public.complete_stale_sessions()'),
  -- Salts of past days go soon after midnight: without them no hash can be traced to an address.
  ('widget_forget_senders', '7 * * * *', 'select widget_internal.forget_senders()'),
  ('widget_prune', '17 3 * * *', 'select widget_internal.prune()');


create function widget_internal.schedule_jobs(only_job text default null)
returns bigint
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select count(cron.schedule(j.name, j.schedule, j.command))
    from widget_internal.scheduled_jobs j
    cross join widget_internal.settings s
    where (schedule_jobs.only_job is null or j.name = schedule_jobs.only_job) and j.name <> all (s.jobs_elsewhere)
  );
end
$$;

comment on function widget_internal.schedule_jobs(text) is
  'Has pg_cron run the jobs, or one, and returns how many; those of jobs_elsewhere are left out. A schedule that was changed '
  'becomes that of the migrations again.';
