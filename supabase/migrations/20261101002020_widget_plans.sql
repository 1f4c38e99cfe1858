-- What a widget's calls cost. A plan holds for whole months, from one until the widget's next plan: by its key alone,
-- no two plans of a widget can hold at once, and every month has one set of terms.

create table public.widget_plans (
  widget_id uuid not null references public.widgets (id),
  valid_from date not null,
  name text not null,
  increment_seconds integer not null default 0,
  minimum_seconds integer not null default 0,
  included_seconds integer not null default 0,
  price_per_minute numeric not null,
  currency text not null,
  bills_failed_calls boolean not null default false,
  assumed_calls text not null default 'full',
  constraint widgets_have_one_plan_a_month primary key (widget_id, valid_from),
  constraint plans_start_with_a_month check (extract(day from valid_from) = 1),
  constraint plan_names_are_one_line check (name ~ '^[^\n\r]{1,100}$'),
  constraint increment_is_not_negative check (increment_seconds >= 0),
  constraint minimum_is_not_negative check (minimum_seconds >= 0),
  constraint included_seconds_are_not_negative check (included_seconds >= 0),
  constraint price_is_a_number_of_zero_or_more check (price_per_minute >= 0 and price_per_minute < 'Infinity'),
  constraint currency_has_three_letters check (currency ~ '^[A-Z]{3}$'),
  constraint assumed_calls_are_billed_in_full_or_not check (assumed_calls in ('full', 'none'))
);

comment on table public.widget_plans is
  'What a widget''s calls cost, by month. A widget without a plan has its completed calls counted to the exact second, '
  'and no amount. A plan by which a closed month was billed cannot be changed: add one from a later month.';
comment on column public.widget_plans.valid_from is
  'The first day of the month, in the billing time zone, from which it holds: until the widget''s next plan.';
comment on column public.widget_plans.increment_seconds is 'A billed call is rounded up to a multiple of this; 0: exact.';
comment on column public.widget_plans.minimum_seconds is 'A billed call counts at least this, before it is rounded up.';
comment on column public.widget_plans.included_seconds is 'So many of a month''s billable seconds cost nothing.';
comment on column public.widget_plans.currency is 'ISO 4217, such as EUR; it says how many decimals an amount has.';
comment on column public.widget_plans.bills_failed_calls is 'Whether calls that ended by call_error are billed like completed ones.';
comment on column public.widget_plans.assumed_calls is
  'Calls whose end nothing tells (evidence assumed): billed in "full" or "none" of them.';

alter table public.widget_plans enable row level security;
revoke all on table public.widget_plans from public, anon, authenticated, service_role;
grant select on table public.widget_plans to authenticated;
grant select, insert, update, delete on table public.widget_plans to service_role;

create policy "owners see their widgets' plans" on public.widget_plans
  for select to authenticated
  using (widget_id = any (array(select widget_internal.owned_widget_ids())));


create view widget_internal.plan_validity with (security_invoker = true) as
  select p.widget_id, p.valid_from,
    lead(p.valid_from, 1, 'infinity') over (partition by p.widget_id order by p.valid_from) as valid_until,
    p as plan
  from public.widget_plans p;

comment on view widget_internal.plan_validity is 'Each plan with the months that it holds for: [valid_from, valid_until).';

revoke all on table widget_internal.plan_validity from public, anon, authenticated, service_role;
grant select on table widget_internal.plan_validity to authenticated, service_role;


create function widget_internal.currency_decimals(currency text)
returns integer
language plpgsql immutable
set search_path = ''
as $$
begin
  return case
    when currency_decimals.currency in (
      'BIF', 'CLP', 'DJF', 'GNF', 'ISK', 'JPY', 'KMF', 'KRW', 'PYG', 'RWF', 'UGX', 'UYI', 'VND', 'VUV', 'XAF', 'XOF',
      'XPF'
    ) then 0
    when currency_decimals.currency in ('BHD', 'IQD', 'JOD', 'KWD', 'LYD', 'OMR', 'TND') then 3
    when currency_decimals.currency in ('CLF', 'UYW') then 4
    else 2
  end;
end
$$;

comment on function widget_internal.currency_decimals(text) is 'The decimals of an amount, by ISO 4217.';


create function widget_internal.charge(billable_seconds numeric, plan public.widget_plans)
returns numeric
language plpgsql immutable
set search_path = ''
as $$
begin
  return round(
    greatest(charge.billable_seconds - plan.included_seconds, 0) * plan.price_per_minute / 60,
    widget_internal.currency_decimals(plan.currency)
  );
end
$$;

comment on function widget_internal.charge(numeric, public.widget_plans) is
  'What a widget''s billable seconds of a month cost, less the included ones; null without a plan. Here money is rounded '
  '(half up, to the currency''s decimals), and nowhere else.';

revoke all on function widget_internal.currency_decimals(text) from public, anon, authenticated, service_role;
revoke all on function widget_internal.charge(numeric, public.widget_plans) from public, anon, authenticated, service_role;
grant execute on function widget_internal.currency_decimals(text) to authenticated, service_role;
grant execute on function widget_internal.charge(numeric, public.widget_plans) to authenticated, service_role;
