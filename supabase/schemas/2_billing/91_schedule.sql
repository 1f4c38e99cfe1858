-- What pg_cron runs of billing. A project whose Postgres has no pg_cron leaves this file out.

-- Every day, and with nothing to do unless settings.close_months_after is set.
select widget_internal.schedule_jobs('widget_close_months');
