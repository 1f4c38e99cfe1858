-- pg_cron matches what waits. A project whose Postgres has no pg_cron leaves this file out and calls
-- match_widget_provider_records() every few minutes by other means.

select widget_internal.schedule_jobs('widget_match_provider_records');
