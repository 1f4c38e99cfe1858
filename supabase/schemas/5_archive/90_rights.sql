-- Only the tables' owner moves events: no role of the API has a right on a step of it.

insert into widget_internal.rights (object, grantee, privileges) values
  ('table public.widget_archives', 'service_role', 'select');

select widget_internal.apply_rights();
