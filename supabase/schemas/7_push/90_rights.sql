-- Only the company's backend pushes bills.

insert into widget_internal.rights (object, grantee, privileges) values
  ('table public.widget_charges_to_push', 'service_role', 'select'),
  ('table public.widget_pushes', 'service_role', 'select'),
  ('function public.plan_widget_pushes(text, text, text, jsonb)', 'service_role', 'execute'),
  ('function public.claim_widget_pushes(text, text, text, integer, interval)', 'service_role', 'execute'),
  ('function public.settle_widget_pushes(text, text, text, jsonb)', 'service_role', 'execute');

select widget_internal.apply_rights();
