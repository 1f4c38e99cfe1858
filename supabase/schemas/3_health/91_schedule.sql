-- pg_cron keeps the counts fresh. A project whose Postgres has no pg_cron leaves this file out and calls
-- refresh_widget_health() every few minutes by other means.

select widget_internal.schedule_jobs('widget_refresh_health');
