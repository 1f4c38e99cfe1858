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
  monthly_fee numeric not null default 0,
  constraint widgets_have_one_plan_a_month primary key (widget_id, valid_from),
  constraint plans_start_with_a_month check (
    extract(day from valid_from) = 1 and valid_from between '1000-01-01' and '9999-12-01'
  ),
  constraint plan_names_are_one_line check (name ~ '^[^\n\r]{1,100}$'),
  constraint increment_is_not_negative check (increment_seconds >= 0),
  constraint minimum_is_not_negative check (minimum_seconds >= 0),
  constraint included_seconds_are_not_negative check (included_seconds >= 0),
  constraint price_is_a_number_of_zero_or_more check (price_per_minute >= 0 and price_per_minute < 'Infinity'),
  constraint currency_has_three_letters check (currency ~ '^[A-Z]{3}$'),
  constraint assumed_calls_are_full_none_or_seconds check (assumed_calls ~ '^(full|none|[1-9][0-9]{0,6})$'),
  constraint fee_is_a_number_of_zero_or_more check (monthly_fee >= 0 and monthly_fee < 'Infinity')
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
  'Calls whose end nothing tells (evidence assumed): billed in "full", "none" of them, or at most so many seconds each.';
comment on column public.widget_plans.monthly_fee is
  'What the widget costs in each month for which the plan holds, with calls or without.';

alter table public.widget_plans enable row level security;

create policy "owners see their widgets' plans" on public.widget_plans
  for select to authenticated
  using (widget_id = any (array(select widget_internal.owned_widget_ids())));


create function widget_internal.plans_in(month date, what_if jsonb default null)
returns setof public.widget_plans
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if plans_in.what_if is null then
    return query
    select distinct on (p.widget_id) p.*
    from public.widget_plans p
    where p.valid_from <= plans_in.month
    order by p.widget_id, p.valid_from desc;
  else
    return query
    select d.*
    from public.widgets w
    cross join lateral jsonb_populate_record(
      null::public.widget_plans,
      jsonb_build_object(
        'name', 'what if', 'increment_seconds', 0, 'minimum_seconds', 0, 'included_seconds', 0, 'bills_failed_calls', false,
        'assumed_calls', 'full', 'monthly_fee', 0
      ) || plans_in.what_if || jsonb_build_object('widget_id', w.id, 'valid_from', plans_in.month)
    ) d;
  end if;
end
$$;

comment on function widget_internal.plans_in(date, jsonb) is
  'The plans that hold in a month, one a widget at most. what_if: that draft for each widget instead, an object with '
  'columns of widget_plans.';


create function widget_internal.currency_decimals(currency text)
returns integer
language plpgsql immutable strict
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
as $$
declare
  v_decimals constant integer := widget_internal.currency_decimals(plan.currency);
begin
  return round(plan.monthly_fee, v_decimals) + round(
    greatest(charge.billable_seconds - plan.included_seconds, 0) * plan.price_per_minute / 60, v_decimals
  );
end
$$;

comment on function widget_internal.charge(numeric, public.widget_plans) is
  'What a widget''s month costs: the fee, and its billable seconds less the included ones; null without a plan. Here money '
  'is rounded (half up, to the currency''s decimals), and nowhere else.';


create table public.widget_customers (
  widget_id uuid not null references public.widgets (id),
  reference text not null,
  constraint widgets_have_one_customer primary key (widget_id),
  constraint references_are_one_line check (reference ~ '^[^\n\r]{1,100}$')
);

comment on table public.widget_customers is
  'Which of the company''s customers a widget is billed to. Several widgets may name the same one.';
comment on column public.widget_customers.reference is 'The customer''s number or name in the company''s own books.';

create index widget_customers_reference_idx on public.widget_customers (reference);
comment on index public.widget_customers_reference_idx is 'Serves "which widgets are this customer''s?"';

alter table public.widget_customers enable row level security;

create policy "owners see their widgets' customers" on public.widget_customers
  for select to authenticated
  using (widget_id = any (array(select widget_internal.owned_widget_ids())));
