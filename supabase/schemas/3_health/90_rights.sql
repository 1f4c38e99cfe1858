-- Who may do what with health. Owners see their widgets' rows; no API role reads or sets where alerts go.

insert into widget_internal.rights (object, grantee, privileges)
select o.object, r.grantee, o.privileges
from (values
  ('table widget_internal.health_state', 'select'),
  ('table widget_internal.health_hours', 'select'),
  ('table widget_internal.health_pages', 'select'),
  ('table widget_internal.health_response_times', 'select'),
  ('table public.widget_response_times', 'select'),
  ('table public.widget_health', 'select'),
  ('table public.widget_pages', 'select'),
  ('function public.widget_rates(timestamp with time zone)', 'execute')
) o (object, privileges)
cross join (values ('authenticated'), ('service_role')) r (grantee);

insert into widget_internal.rights (object, grantee, privileges) values
  ('function public.refresh_widget_health()', 'service_role', 'execute'),
  ('function public.widget_alarms(numeric, numeric, integer, interval)', 'service_role', 'execute'),
  ('function public.enable_widget_alerts(text, numeric, numeric, integer, interval)', 'service_role', ''),
  ('function public.disable_widget_alerts()', 'service_role', '');

select widget_internal.apply_rights();
