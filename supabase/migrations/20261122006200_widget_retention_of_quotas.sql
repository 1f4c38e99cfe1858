-- The quotas brought one more job, and its notes would grow for ever too.

create or replace function widget_internal.scheduled_jobs()
returns text[]
language plpgsql immutable
set search_path = ''
as $$
begin
  return array[
    'widget_complete_stale_sessions', 'widget_refresh_health', 'widget_send_alerts', 'widget_forget_senders',
    'widget_prune'
  ];
end
$$;
