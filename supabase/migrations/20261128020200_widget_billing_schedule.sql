-- Made by scripts/baseline from schemas/2_billing/91_schedule.sql.

-- What pg_cron runs of billing. A project whose Postgres has no pg_cron leaves this file out.

-- Every day, and with nothing to do unless settings.close_months_after is set.
select cron.schedule('widget_close_months', '47 4 * * *', 'select widget_internal.close_due_months()');
