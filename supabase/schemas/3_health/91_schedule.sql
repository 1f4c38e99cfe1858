-- pg_cron keeps the counts fresh. A project whose Postgres has no pg_cron leaves this file out and calls
-- refresh_widget_health() every few minutes by other means.

select cron.schedule('widget_refresh_health', '*/5 * * * *', 'select public.refresh_widget_health()');
