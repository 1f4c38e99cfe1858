-- pg_cron forgets past days' senders. A project whose Postgres has no pg_cron leaves this file out and calls
-- widget_internal.forget_senders() by other means, once an hour.

select cron.schedule('widget_forget_senders', '7 * * * *', 'select widget_internal.forget_senders()');
