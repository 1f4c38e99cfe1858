-- pg_cron runs the cleanup. A project whose Postgres has no pg_cron leaves this file out and calls the Edge Function.

create extension if not exists pg_cron with schema pg_catalog;

select cron.schedule('widget_complete_stale_sessions', '*/30 * * * *', 'select public.complete_stale_sessions()');
