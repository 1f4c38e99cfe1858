-- Who may do what of billing. An owner reads the bills of the own widgets, and writes none of what they rest on.

insert into widget_internal.rights (object, grantee, privileges)
select 'table ' || t.name, g.grantee, g.privileges
from (values
  ('public.widget_plans', 'select, insert, update, delete'),
  ('public.widget_customers', 'select, insert, update, delete'),
  ('public.widget_billing_periods', 'select'),
  ('public.widget_statement_charges', 'select'),
  ('public.widget_statement_lines', 'select'),
  ('widget_internal.compared_calls', 'select')
) t (name, of_the_company)
cross join lateral (values ('authenticated', 'select'), ('service_role', t.of_the_company)) g (grantee, privileges);

insert into widget_internal.rights (object, grantee, privileges)
select 'function ' || f.name, g.grantee, 'execute'
from unnest(array[
  -- What bills are made of: these run with the rights of whoever asks, who sees the own widgets' rows alone.
  'public.widget_billing_period(text)',
  'public.widget_billing_calls(timestamp with time zone, timestamp with time zone, timestamp with time zone, uuid)',
  'public.widget_billing_calls_csv(timestamp with time zone, timestamp with time zone, timestamp with time zone, uuid[], text[], integer)',
  'public.widget_billing_usage(timestamp with time zone, timestamp with time zone, timestamp with time zone, uuid, jsonb)',
  'public.widget_statement_preview(text)',
  'public.widget_pending_adjustments(uuid, text)',
  'public.widget_directory()',
  'widget_internal.owner_email(uuid)',
  'widget_internal.widget_door(uuid)',
  'widget_internal.to_month(text)',
  'widget_internal.month_start(timestamp without time zone)',
  'widget_internal.month_of(timestamp with time zone)',
  'widget_internal.billing_months(timestamp with time zone, timestamp with time zone, boolean)',
  'widget_internal.plans_in(date, jsonb)',
  'widget_internal.currency_decimals(text)',
  'widget_internal.charge(numeric, public.widget_plans)',
  'widget_internal.priced_calls(date, timestamp with time zone, timestamp with time zone, timestamp with time zone, uuid, boolean, timestamp with time zone, jsonb)',
  'widget_internal.closed_months()',
  'widget_internal.billed_calls(date, timestamp with time zone, timestamp with time zone, uuid)',
  'widget_internal.changed_calls(date, uuid)',
  'widget_internal.late_changes(date, date, uuid, timestamp with time zone)',
  'widget_internal.statement_lines(date, timestamp with time zone)',
  'widget_internal.statement_charges(date, boolean)',
  'widget_internal.states_as_of(uuid, timestamp with time zone, timestamp with time zone, timestamp with time zone)',
  'widget_internal.states_of_widget(uuid, timestamp with time zone, timestamp with time zone, timestamp with time zone)',
  'widget_internal.matched_claims(uuid[], text[], timestamp with time zone, timestamp with time zone[], timestamp with time zone[])',
  'widget_internal.claim(text, text, timestamp with time zone, timestamp with time zone)',
  'widget_internal.call_facts(bigint[], timestamp with time zone, bigint[], timestamp with time zone)',
  'widget_internal.event_sources()'
]) f (name)
cross join unnest(array['authenticated', 'service_role']) g (grantee);

insert into widget_internal.rights (object, grantee, privileges)
select 'function ' || f.name, 'service_role', 'execute'
from unnest(array[
  'public.widget_user_ids(text)',
  'public.widget_months_to_close()',
  'public.close_widget_billing_period(text)',
  'public.schedule_widget_closing(interval)',
  'public.broken_widget_statements()',
  'public.record_widget_call_evidence(uuid, text, text, text, text, timestamp with time zone, timestamp with time zone, text)',
  'public.correct_widget_call(uuid, text, text, numeric, text, text)',
  'widget_internal.refuse_visitors()',
  'widget_internal.charge_hash(public.widget_statement_charges)',
  'widget_internal.period_hash(public.widget_billing_periods)'
]) f (name);

select widget_internal.apply_rights();
