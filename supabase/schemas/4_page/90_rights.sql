-- The page's functions run with the rights of the signed-in owner, who sees the own widgets' rows alone.

insert into widget_internal.rights (object, grantee, privileges)
select 'function ' || f.name, 'authenticated', 'execute'
from unnest(array[
  'public.widget_daily_usage(timestamp with time zone, timestamp with time zone, uuid)',
  'public.widget_month_to_date(uuid)',
  'public.widget_call_list(timestamp with time zone, timestamp with time zone, uuid, text, text, integer)',
  'public.widget_call_story(uuid, text, text)',
  'public.widget_traffic(timestamp with time zone, timestamp with time zone, uuid)',
  'public.widget_busiest_places(timestamp with time zone, timestamp with time zone, uuid, text, integer)',
  'public.widget_refusal_totals(timestamp with time zone, timestamp with time zone, uuid, integer)',
  'public.widget_plan_usage(uuid)',
  'public.widget_statement_totals(uuid, text)',
  'widget_internal.listed_calls(timestamp with time zone, timestamp with time zone, uuid, text, jsonb, integer)'
]) f (name);

select widget_internal.apply_rights();
