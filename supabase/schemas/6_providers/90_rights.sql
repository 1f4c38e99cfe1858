-- Who may do what with providers' records: the company alone. An owner learns from the bill that a call rests on one.

insert into widget_internal.rights (object, grantee, privileges) values
  ('table public.widget_provider_records', 'service_role', 'select'),
  ('table public.widget_provider_calls', 'service_role', 'select'),
  ('table public.widget_provider_agents', 'service_role', 'select, insert, update, delete'),
  (
    'function public.record_widget_provider_call(text, text, text, timestamp with time zone, timestamp with time zone, '
    'text, text, text, text, text, text, numeric, text)', 'service_role', 'execute'
  ),
  ('function public.match_widget_provider_records()', 'service_role', 'execute'),
  ('function public.widget_reconciliation(timestamp with time zone, timestamp with time zone)', 'service_role', 'execute'),
  ('function widget_internal.reconciled_calls(timestamp with time zone, timestamp with time zone)', 'service_role', 'execute'),
  ('function widget_internal.provider_widget(text, text)', 'service_role', 'execute');

select widget_internal.apply_rights();
