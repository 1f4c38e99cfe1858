-- Made by scripts/baseline from schemas/2_billing/01_months.sql, schemas/2_billing/02_plans.sql, schemas/2_billing/03_pricing.sql, schemas/2_billing/04_statements.sql, schemas/2_billing/05_guards.sql, schemas/2_billing/06_hashes.sql, schemas/2_billing/07_billed_calls.sql, schemas/2_billing/08_bills.sql, schemas/2_billing/09_usage.sql, schemas/2_billing/10_statement_content.sql, schemas/2_billing/11_closing.sql, schemas/2_billing/12_evidence.sql, schemas/2_billing/13_closing_schedule.sql, schemas/2_billing/14_directory.sql, schemas/2_billing/90_rights.sql.

-- A bill covers a calendar month where the company does its books: it begins when the clocks there first show its 1st.

alter table widget_internal.settings
  add column billing_time_zone text not null default 'UTC',
  add constraint billing_time_zone_is_known check (timestamptz 'epoch' at time zone billing_time_zone is not null);

comment on column widget_internal.settings.billing_time_zone is
  'The time zone whose months are billed, such as Europe/Vienna. Fixed once a month has been closed.';


create function widget_internal.to_month(period text)
returns date
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  if to_month.period ~ '^[1-9][0-9]{3}-(0[1-9]|1[0-2])(-01)?$' then
    return to_date(left(to_month.period, 7), 'YYYY-MM');
  end if;
  raise exception 'period: must be a month, such as 2026-10' using errcode = 'invalid_parameter_value';
end
$$;

comment on function widget_internal.to_month(text) is 'The first day of a month written as 2026-10 or 2026-10-01.';


create function widget_internal.month_start(month timestamp)
returns timestamptz
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_zone constant text := (select s.billing_time_zone from widget_internal.settings s);
  v_midnight constant timestamptz := month_start.month at time zone v_zone;
  -- In hours: a day is as long as the session's time zone has it.
  v_day_before constant timestamptz := v_midnight - interval '24 hours';
begin
  -- Clocks that are put back at midnight show it twice, and PostgreSQL takes the later one; by the offset of the day
  -- before it is the earlier one.
  return (
    select min(c.at)
    from (values
      (v_midnight),
      (v_day_before + make_interval(secs => extract(epoch from month_start.month - v_day_before at time zone v_zone)::float8))
    ) c (at)
    where c.at at time zone v_zone >= month_start.month
  );
end
$$;

comment on function widget_internal.month_start(timestamp) is
  'The first instant at which clocks in the billing time zone show the first day of a month.';


create function widget_internal.month_of(moment timestamptz)
returns date
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_shown constant date := (
    select date_trunc('month', month_of.moment at time zone s.billing_time_zone) from widget_internal.settings s
  );
  v_next constant date := v_shown + interval '1 month';
begin
  -- Clocks that are put back across midnight show the old month again: it is over nevertheless.
  return case when month_of.moment >= widget_internal.month_start(v_next) then v_next else v_shown end;
end
$$;

comment on function widget_internal.month_of(timestamptz) is 'The billing month, by its first day, in which a moment lies.';


create function widget_internal.billing_months(
  period_start timestamptz, period_end timestamptz, as_charged boolean default true
)
returns table (
  month date, month_start timestamptz, month_end timestamptz, from_at timestamptz, to_at timestamptz, is_closed boolean
)
language plpgsql stable rows 1
set search_path = pg_catalog, pg_temp
as $$
declare
  v_start timestamptz := billing_months.period_start;
  v_end timestamptz := billing_months.period_end;
begin
  if v_start is null or v_end is null or v_end <= v_start then
    raise exception 'period_end: must be after period_start' using errcode = 'invalid_parameter_value';
  end if;
  if v_start = '-infinity' then
    v_start := least(
      (select min(c.started_at) from public.widget_calls c),
      (select widget_internal.month_start(min(p.valid_from)) from public.widget_plans p), now()
    );
  end if;
  if v_end = 'infinity' then
    v_end := greatest((select max(c.started_at) from public.widget_calls c), now()) + interval '1 microsecond';
  end if;

  return query
  select s.month::date, b.start_at, b.end_at, greatest(b.start_at, v_start), least(b.end_at, v_end),
    billing_months.as_charged and s.month in (select c.month from widget_internal.closed_months() c)
  from generate_series(
    widget_internal.month_of(v_start)::timestamp,
    widget_internal.month_of(v_end - interval '1 microsecond')::timestamp, interval '1 month'
  ) s (month)
  cross join lateral (
    select widget_internal.month_start(s.month), widget_internal.month_start(s.month + interval '1 month')
  ) b (start_at, end_at)
  where v_start < v_end;
end
$$;

comment on function widget_internal.billing_months(timestamptz, timestamptz, boolean) is
  'The months that a period touches, each with the part of it that lies in the period: [from_at, to_at), and whether it is '
  'closed. as_charged: false where a closed month is billed like an open one, as of a moment or by a draft of a plan.';


create function public.widget_billing_period(
  period text, out period_start timestamptz, out period_end timestamptz, out time_zone text
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_month constant date := widget_internal.to_month(widget_billing_period.period);
begin
  widget_billing_period.period_start := widget_internal.month_start(v_month);
  widget_billing_period.period_end := widget_internal.month_start(v_month + interval '1 month');
  widget_billing_period.time_zone := (select s.billing_time_zone from widget_internal.settings s);
end
$$;

comment on function public.widget_billing_period(text) is
  'The bounds of a billing month (2026-10), as widget_billing_calls() and widget_billing_usage() take them.';


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


-- What a plan makes of calls: of each, or of many at once where they are priced alike.

create function widget_internal.priced_calls(
  month date, from_at timestamptz default null, to_at timestamptz default null, as_of timestamptz default null,
  only_widget uuid default null, in_sums boolean default false, split_at timestamptz default null, what_if jsonb default null
)
returns table (
  widget_id uuid, session_id text, call_id text, started_at timestamptz, ended_at timestamptz, outcome text,
  evidence text, duration_seconds numeric, billable_seconds numeric, rule text, is_before boolean, calls bigint
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
-- A plan for any period takes each for so short that it reads everybody's calls in it for a bill of one widget.
set plan_cache_mode = force_custom_plan
as $$
declare
  v_from constant timestamptz := coalesce(priced_calls.from_at, widget_internal.month_start(priced_calls.month));
  v_to constant timestamptz :=
    coalesce(priced_calls.to_at, widget_internal.month_start(priced_calls.month + interval '1 month'));
  -- As of now is all that there is to see: also what this very transaction has added since it began.
  v_as_of constant timestamptz := case when priced_calls.as_of >= now() then 'infinity' else priced_calls.as_of end;
  v_rounding constant uuid[] := array(
    select p.widget_id from widget_internal.plans_in(priced_calls.month, priced_calls.what_if) p
    where p.increment_seconds > 0 or p.minimum_seconds > 0 or p.assumed_calls not in ('full', 'none')
  );
begin
  -- One statement for calls and sums, kept and as of: what a call costs is said once. Whatever is not asked for is not run.
  return query
  with kept as not materialized (
    select c.*, c.ended_at - c.started_at as length, coalesce(c.started_at < priced_calls.split_at, false) as is_before
    from widget_internal.call_states c
    where v_as_of is null and c.started_at >= v_from and c.started_at < v_to
      and (priced_calls.only_widget is null or c.widget_id = priced_calls.only_widget)
  ),
  parts as (
    select
      c.widget_id, c.session_id, c.call_id, c.started_at, c.ended_at, c.outcome, c.evidence, c.is_before, c.length,
      1::bigint as calls, 1::bigint as times,
      case when c.evidence = 'operator' and not priced_calls.in_sums then (
        select '; set by ' || (e.properties ->> 'corrected_by') || ': ' || (e.properties ->> 'reason')
        from public.widget_analytics e
        where e.widget_id = c.widget_id and e."timestamp" between c.first_event_at and c.last_event_at
          and e.session_id = c.session_id and e.call_id = c.call_id
          and e.source = 'operator' and e.event_type = 'call_end' and e.received_at <= coalesce(v_as_of, 'infinity')
        order by e.received_at desc
        limit 1
      ) end as note
    from (
      select k.* from kept k where not priced_calls.in_sums
      union all
      select s.*, s.ended_at - s.started_at, coalesce(s.started_at < priced_calls.split_at, false)
      from widget_internal.states_as_of(priced_calls.only_widget, v_from, v_to, v_as_of) s
      where v_as_of is not null
    ) c
    union all
    -- Calls of one outcome and evidence are all billed to the exact second or not at all, so their sum is priced as one.
    select k.widget_id, null, null, null, null, k.outcome, k.evidence, k.is_before, sum(k.length), count(*), 1, null
    from kept k
    where priced_calls.in_sums and k.widget_id <> all (v_rounding)
    group by k.widget_id, k.outcome, k.evidence, k.is_before
    union all
    -- Where a plan rounds, only calls of equal length cost the same.
    select k.widget_id, null, null, null, null, k.outcome, k.evidence, k.is_before, k.length, count(*), count(*), null
    from kept k
    where priced_calls.in_sums and k.widget_id = any (v_rounding)
    group by k.widget_id, k.outcome, k.evidence, k.is_before, k.length
  ),
  planned as (
    select
      c.*, p.name as plan_name, p.valid_from, extract(epoch from c.length) as duration,
      coalesce(p.minimum_seconds, 0) as minimum, coalesce(p.increment_seconds, 0) as increment,
      case when c.evidence = 'assumed' then nullif(nullif(p.assumed_calls, 'full'), 'none')::numeric end as limit_seconds,
      case
        when c.outcome = 'open' then 'open calls are not billed yet'
        -- Before any minimum: an operator who sets a call to nothing means that it costs nothing, and so does a provider
        -- that carried nothing.
        when c.evidence in ('operator', 'provider') and c.length = interval '0' then 'void'
        when c.outcome = 'failed' and p.bills_failed_calls is not true then 'failed calls are not billed'
        when c.evidence = 'assumed' and p.assumed_calls = 'none' then 'assumed ends are not billed'
      end as why_not
    from parts c
    left join widget_internal.plans_in(priced_calls.month, priced_calls.what_if) p on p.widget_id = c.widget_id
  )
  select
    p.widget_id, p.session_id, p.call_id, p.started_at, p.ended_at, p.outcome, p.evidence, p.duration,
    p.times * case
      when p.why_not is not null then 0
      when p.increment > 0 then ceil(greatest(least(p.duration, p.limit_seconds), p.minimum) / p.increment) * p.increment
      else greatest(least(p.duration, p.limit_seconds), p.minimum)
    end,
    case when not priced_calls.in_sums then
      coalesce(p.why_not, nullif(concat_ws(
        ', ', 'an assumed end, at most ' || p.limit_seconds || ' s', 'at least ' || nullif(p.minimum, 0) || ' s',
        'in steps of ' || nullif(p.increment, 0) || ' s'
      ), ''), 'exact duration')
      || coalesce(' (plan "' || p.plan_name || '" from ' || to_char(p.valid_from, 'YYYY-MM') || ')', '')
      || coalesce(p.note, '')
    end,
    p.is_before, p.calls
  from planned p;
end
$$;

comment on function widget_internal.priced_calls(date, timestamptz, timestamptz, timestamptz, uuid, boolean, timestamptz, jsonb) is
  'The calls of one month, or those that started in [from_at, to_at) of it, kept or as of a moment, with what the plan of '
  'that month makes of each, and why: its rule, with who decided last how long a call was, where the ledger says. '
  'in_sums: instead, one row for those that are priced alike, with the seconds of all of them. is_before: they started '
  'before split_at.';


-- A closed month is a statement that nothing changes: what comes later is a line of a later statement.

create table public.widget_billing_periods (
  period date primary key,
  period_start timestamptz not null,
  period_end timestamptz not null,
  as_of timestamptz not null,
  closed_at timestamptz not null,
  closed_by text not null,
  content_hash text not null,
  constraint periods_are_months check (extract(day from period) = 1),
  constraint periods_end_after_they_start check (period_end > period_start),
  constraint months_are_over_when_they_are_closed check (as_of >= period_end)
);

comment on table public.widget_billing_periods is
  'The closed months. Each stays as it is for ever; see close_widget_billing_period().';
comment on column public.widget_billing_periods.period is 'The first day of the month, in the billing time zone.';
comment on column public.widget_billing_periods.as_of is 'What was received by then is in the statement, and nothing else.';
comment on column public.widget_billing_periods.closed_by is 'The database login, with the role and the user of the request if there was one.';
comment on column public.widget_billing_periods.content_hash is 'SHA-256 of the month and of the hashes of its charges (docs/billing.md).';

create table public.widget_statement_charges (
  period date not null references public.widget_billing_periods (period) deferrable initially deferred,
  widget_id uuid not null,
  usage_period date not null,
  plan_valid_from date,
  monthly_fee numeric,
  included_seconds integer not null,
  price_per_minute numeric,
  currency text,
  old_seconds numeric not null,
  new_seconds numeric not null,
  difference_seconds numeric not null,
  old_amount numeric,
  new_amount numeric,
  difference_amount numeric,
  content_hash text not null,
  constraint widgets_are_charged_once_for_a_month primary key (period, widget_id, usage_period),
  constraint charges_are_the_difference_of_seconds check (difference_seconds = new_seconds - old_seconds),
  constraint charges_are_the_difference_of_amounts check (difference_amount is not distinct from new_amount - old_amount),
  constraint nothing_is_charged_before_its_month check (usage_period <= period)
);

comment on table public.widget_statement_charges is
  'The money on a closed month''s statement, by widget: one row for the month itself, and one for each earlier month '
  'that late arrivals changed (usage_period before period). What is to be paid is the sum of difference_amount.';
comment on column public.widget_statement_charges.usage_period is 'The month in which the calls started.';
comment on column public.widget_statement_charges.plan_valid_from is 'The plan of that month; null: none, and so no amounts.';
comment on column public.widget_statement_charges.monthly_fee is 'That plan''s fee for a month, which is part of the amounts.';
comment on column public.widget_statement_charges.old_seconds is 'That month''s billable seconds on all statements before.';
comment on column public.widget_statement_charges.new_seconds is 'They are now.';
comment on column public.widget_statement_charges.difference_seconds is 'new_seconds less old_seconds.';
comment on column public.widget_statement_charges.old_amount is 'That month''s amount on all statements before.';
comment on column public.widget_statement_charges.new_amount is 'The fee, and the price of the seconds beyond the included ones, rounded once.';
comment on column public.widget_statement_charges.difference_amount is 'new_amount less old_amount: what this statement charges or, below zero, credits.';
comment on column public.widget_statement_charges.content_hash is 'SHA-256 of the charge and its lines (docs/billing.md).';

create index widget_statement_charges_usage_period_idx on public.widget_statement_charges (usage_period, widget_id);
comment on index public.widget_statement_charges_usage_period_idx is 'Serves "all that was charged for a month".';

create table public.widget_statement_lines (
  period date not null,
  widget_id uuid not null,
  usage_period date not null,
  session_id text collate "C" not null,
  call_id text collate "C" not null,
  started_at timestamptz not null,
  ended_at timestamptz,
  outcome text,
  evidence text,
  duration_seconds numeric,
  old_seconds numeric not null,
  new_seconds numeric not null,
  difference_seconds numeric not null,
  rule text not null,
  event_ids uuid[] not null,
  constraint widget_calls_have_one_line_a_statement primary key (period, widget_id, usage_period, session_id, call_id),
  constraint lines_belong_to_a_charge foreign key (period, widget_id, usage_period)
    references public.widget_statement_charges deferrable initially deferred,
  constraint lines_are_the_difference_of_seconds check (difference_seconds = new_seconds - old_seconds),
  constraint adjustments_change_something check (usage_period = period or new_seconds <> old_seconds)
);

comment on table public.widget_statement_lines is
  'The calls on a closed month''s statement: each call of the month, and as an adjustment (usage_period before period) '
  'each call of an earlier month whose billable seconds late arrivals changed.';
comment on column public.widget_statement_lines.usage_period is 'The month in which the call started.';
comment on column public.widget_statement_lines.outcome is 'Null where the call is no longer one of that month.';
comment on column public.widget_statement_lines.old_seconds is 'Billable seconds on all statements before; 0 where there are none.';
comment on column public.widget_statement_lines.new_seconds is 'Billable seconds now.';
comment on column public.widget_statement_lines.difference_seconds is 'new_seconds less old_seconds.';
comment on column public.widget_statement_lines.event_ids is
  'Of an adjustment: the call''s events received since it was last billed. None: a setting was changed.';

create index widget_statement_lines_adjustments_idx
  on public.widget_statement_lines (usage_period, widget_id, session_id, call_id) where usage_period < period;
comment on index public.widget_statement_lines_adjustments_idx is 'Serves billed_calls(): was this call adjusted later?';

create index widget_statement_lines_started_at_idx on public.widget_statement_lines (started_at);
comment on index public.widget_statement_lines_started_at_idx is 'Serves billed_calls(): a closed month''s calls, part by part.';

alter table public.widget_billing_periods enable row level security;
alter table public.widget_statement_charges enable row level security;
alter table public.widget_statement_lines enable row level security;

create policy "owners see their widgets' charges" on public.widget_statement_charges
  for select to authenticated
  using (widget_id = any (array(select widget_internal.owned_widget_ids())));

create policy "owners see their widgets' lines" on public.widget_statement_lines
  for select to authenticated
  using (widget_id = any (array(select widget_internal.owned_widget_ids())));

create policy "owners see the months that they have charges in" on public.widget_billing_periods
  for select to authenticated
  using (period in (select c.period from public.widget_statement_charges c));


-- What a closed month rests on stays as it was, even under its owner's hands.

create function widget_internal.guard_statements()
returns trigger
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  if tg_op = 'INSERT' and current_setting('widget_internal.is_closing', true) = 'on' then
    return null;
  end if;
  raise exception 'closed statements never change' using errcode = 'object_not_in_prerequisite_state',
    hint = 'What arrives late appears as an adjustment in the next month that is closed.';
end
$$;

comment on function widget_internal.guard_statements() is
  'Refuses any update, delete or truncate of a statement, and whatever close_widget_billing_period() does not insert itself.';

create trigger periods_never_change before insert or update or delete or truncate on public.widget_billing_periods
  for each statement execute function widget_internal.guard_statements();
create trigger charges_never_change before insert or update or delete or truncate on public.widget_statement_charges
  for each statement execute function widget_internal.guard_statements();
create trigger lines_never_change before insert or update or delete or truncate on public.widget_statement_lines
  for each statement execute function widget_internal.guard_statements();


create function widget_internal.keep_billed_plans()
returns trigger
language plpgsql volatile
-- definer because who may change a plan need not see statements
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_plan public.widget_plans;
  v_billed date;
begin
  -- A month that is being closed right now is waited for.
  lock table public.widget_billing_periods in row share mode;
  foreach v_plan in array case tg_op when 'INSERT' then array[new] when 'DELETE' then array[old] else array[old, new] end
  loop
    -- A fee is due without calls: it cannot begin in a month whose statement does not have it.
    select max(b.month) into v_billed
    from (
      select c.usage_period from public.widget_statement_charges c where c.widget_id = v_plan.widget_id
      union all
      select b.period from public.widget_billing_periods b
      where v_plan.monthly_fee > 0 or exists (
        select from public.widget_plans p where p.widget_id = v_plan.widget_id and p.monthly_fee > 0
      )
    ) b (month)
    where b.month >= v_plan.valid_from
      and b.month < coalesce((
        select min(p.valid_from) from public.widget_plans p
        where p.widget_id = v_plan.widget_id and p.valid_from > v_plan.valid_from
      ), 'infinity');
    if v_billed is not null then
      raise exception 'valid_from: this plan would hold, or holds, for %, which is closed', to_char(v_billed, 'YYYY-MM')
        using errcode = 'invalid_parameter_value', hint = 'Add a plan that holds from a later month.';
    end if;
  end loop;
  return null;
end
$$;

comment on function widget_internal.keep_billed_plans() is
  'After a plan was added, changed or deleted: refuses that for the months of its widget that are closed.';

create trigger billed_plans_stay after insert or update or delete on public.widget_plans
  for each row execute function widget_internal.keep_billed_plans();

create trigger plans_are_not_truncated before truncate on public.widget_plans
  for each statement execute function widget_internal.refuse_change(
    'plans are what closed months were billed by', 'Delete those that no closed month needs.'
  );


create function widget_internal.keep_billing_time_zone()
returns trigger
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  lock table public.widget_billing_periods in row share mode;
  if exists (select from public.widget_billing_periods) then
    raise exception 'billing_time_zone: a month has been closed in %', old.billing_time_zone
      using errcode = 'object_not_in_prerequisite_state', hint = 'The months of closed statements stay what they were.';
  end if;
  return null;
end
$$;

comment on function widget_internal.keep_billing_time_zone() is
  'After billing_time_zone changed: refuses that once a month has been closed.';

create trigger billing_time_zone_stays after update of billing_time_zone on widget_internal.settings
  for each row when (old.billing_time_zone <> new.billing_time_zone)
  execute function widget_internal.keep_billing_time_zone();


-- Each statement carries a hash that anyone can compute again from its rows: of a text that no setting of a session or
-- a database changes, as every value in it is formatted here, and not by the output of its type.

create function widget_internal.charge_hash(charge public.widget_statement_charges)
returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_moment constant text := 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"';
begin
  return encode(sha256(convert_to(
    jsonb_build_array(
      to_char(charge.period, 'YYYY-MM-DD'), charge.widget_id::text, to_char(charge.usage_period, 'YYYY-MM-DD'),
      to_char(charge.plan_valid_from, 'YYYY-MM-DD'), trim_scale(charge.monthly_fee)::text, charge.included_seconds::text,
      trim_scale(charge.price_per_minute)::text, charge.currency,
      trim_scale(charge.old_seconds)::text, trim_scale(charge.new_seconds)::text,
      trim_scale(charge.old_amount)::text, trim_scale(charge.new_amount)::text
    )::text || coalesce((
      select string_agg(
        chr(10) || jsonb_build_array(
          l.session_id, l.call_id, to_char(l.started_at at time zone 'UTC', v_moment),
          to_char(l.ended_at at time zone 'UTC', v_moment), l.outcome, l.evidence, trim_scale(l.duration_seconds)::text,
          trim_scale(l.old_seconds)::text, trim_scale(l.new_seconds)::text, l.rule, to_jsonb(l.event_ids)
        )::text, '' order by l.session_id, l.call_id
      )
      from public.widget_statement_lines l
      where l.period = charge.period and l.widget_id = charge.widget_id and l.usage_period = charge.usage_period
    ), ''), 'UTF8'
  )), 'hex');
end
$$;

comment on function widget_internal.charge_hash(public.widget_statement_charges) is
  'The SHA-256 of a line of JSON for the charge, then one for each of its calls (docs/billing.md).';


create function widget_internal.period_hash(period public.widget_billing_periods)
returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_moment constant text := 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"';
begin
  return encode(sha256(convert_to(
    jsonb_build_array(
      to_char(period.period, 'YYYY-MM-DD'), to_char(period.period_start at time zone 'UTC', v_moment),
      to_char(period.period_end at time zone 'UTC', v_moment), to_char(period.as_of at time zone 'UTC', v_moment)
    )::text || coalesce((
      select string_agg(chr(10) || c.content_hash, '' order by c.widget_id, c.usage_period)
      from public.widget_statement_charges c
      where c.period = period.period
    ), ''), 'UTF8'
  )), 'hex');
end
$$;

comment on function widget_internal.period_hash(public.widget_billing_periods) is
  'The SHA-256 of a line of JSON for the month, then the hash of each of its charges (docs/billing.md).';


create function public.broken_widget_statements()
returns table (period date, widget_id uuid, usage_period date)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  perform widget_internal.refuse_visitors();
  return query
  select c.period, c.widget_id, c.usage_period
  from public.widget_statement_charges c
  where c.content_hash <> widget_internal.charge_hash(c)
  union all
  select p.period, null, null
  from public.widget_billing_periods p
  where p.content_hash <> widget_internal.period_hash(p);
end
$$;

comment on function public.broken_widget_statements() is
  'Charges, and months (without widget_id), that are not what was closed, by their hashes. Good: no rows.';


-- What was billed so far, and what arrived since: the difference is pending until the next month that is closed.

create function widget_internal.closed_months()
returns table (month date, as_of timestamptz)
language plpgsql stable rows 10
-- definer because a month is closed for an owner without a charge in it, too
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  return query select p.period, p.as_of from public.widget_billing_periods p;
end
$$;

comment on function widget_internal.closed_months() is 'The closed months, with what they count.';


create function widget_internal.billed_calls(
  month date, from_at timestamptz default '-infinity', to_at timestamptz default 'infinity', only_widget uuid default null
)
returns setof public.widget_statement_lines
language plpgsql stable
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_custom_plan
as $$
declare
  -- In the order in which they were closed: a month without calls may be left out, and closed after a later one.
  v_closed constant date[] := array(select c.month from widget_internal.closed_months() c order by c.as_of);
begin
  return query
  select l.*
  from public.widget_statement_lines l
  where l.usage_period = billed_calls.month
    -- The month's own lines by their key, the later ones by the index of adjustments.
    and (l.period = billed_calls.month or l.usage_period < l.period)
    and l.started_at >= billed_calls.from_at and l.started_at < billed_calls.to_at
    and (billed_calls.only_widget is null or l.widget_id = billed_calls.only_widget)
    and not exists (
      select from public.widget_statement_lines a
      where a.usage_period = l.usage_period and a.widget_id = l.widget_id
        and a.session_id = l.session_id and a.call_id = l.call_id
        and a.usage_period < a.period and array_position(v_closed, a.period) > array_position(v_closed, l.period)
    );
end
$$;

comment on function widget_internal.billed_calls(date, timestamptz, timestamptz, uuid) is
  'The calls of a closed month that started in [from_at, to_at), as they were billed last: the latest line of each. Those '
  'without an outcome are no longer calls of the month.';


create table widget_internal.compared_calls (
  widget_id uuid not null,
  month date not null,
  fingerprint numeric not null,
  constraint calls_are_compared_by_widget_and_month primary key (widget_id, month)
);

comment on table widget_internal.compared_calls is
  'What a widget''s calls of a closed month were when a closing last compared them with what is billed. As long as they '
  'are the same, nothing of them is pending.';

alter table widget_internal.compared_calls enable row level security;

create policy "owners see their widgets' fingerprints" on widget_internal.compared_calls
  for select to authenticated
  using (widget_id = any (array(select widget_internal.owned_widget_ids())));


create function widget_internal.changed_calls(month date, only_widget uuid default null)
returns setof widget_internal.compared_calls
language plpgsql stable
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_custom_plan
as $$
declare
  v_start constant timestamptz := widget_internal.month_start(changed_calls.month);
  v_end constant timestamptz := widget_internal.month_start(changed_calls.month + interval '1 month');
begin
  return query
  select widget_id, changed_calls.month, coalesce(k.fingerprint, 0)
  from (
    -- Without ids, so that the index alone is read.
    select c.widget_id, sum(hash_record_extended((c.started_at, c.ended_at, c.outcome, c.evidence), 0)) as fingerprint
    from widget_internal.call_states c
    where c.started_at >= v_start and c.started_at < v_end
      and (changed_calls.only_widget is null or c.widget_id = changed_calls.only_widget)
    group by c.widget_id
  ) k
  full join (
    select d.widget_id, d.fingerprint from widget_internal.compared_calls d
    where d.month = changed_calls.month
      and (changed_calls.only_widget is null or d.widget_id = changed_calls.only_widget)
  ) f using (widget_id)
  where coalesce(k.fingerprint, 0) <> coalesce(f.fingerprint, 0);
end
$$;

comment on function widget_internal.changed_calls(date, uuid) is
  'The widgets whose calls of a month are not what was compared last, with what they are now.';


create function widget_internal.late_changes(
  before date default null, only_month date default null, only_widget uuid default null,
  events_until timestamptz default null
)
returns setof public.widget_statement_lines
language plpgsql stable
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_custom_plan
as $$
begin
  return query
  select
    late_changes.before, d.widget_id, m.month, d.session_id, d.call_id, d.started_at, d.ended_at, d.outcome, d.evidence,
    d.duration_seconds, d.old_seconds, d.new_seconds, d.new_seconds - d.old_seconds, d.rule,
    array(
      select e.id
      from (
        select a.*
        from widget_internal.call_states c
        join public.widget_analytics a
          on a.widget_id = c.widget_id and a."timestamp" between c.first_event_at and c.last_event_at
        where c.widget_id = d.widget_id and c.session_id = d.session_id and c.call_id = d.call_id
          and a.session_id = c.session_id and a.event_type like 'call\_%'
          -- Events that name a call are its own; those that name none may part the session's unnamed calls anew.
          and (a.call_id = c.call_id or a.call_id is null and c.matched_start_claim is not null)
        offset 0  -- by the call's times, as an index by receipt would read all that came late for each call
      ) e
      where e.received_at > coalesce(p.as_of, m.as_of) and e.received_at <= late_changes.events_until
      order by e.received_at, e.id
    )
  from widget_internal.closed_months() m
  cross join lateral widget_internal.changed_calls(m.month, late_changes.only_widget) w
  cross join lateral (
    select
      widget_id, session_id, call_id, coalesce(k.started_at, b.started_at) as started_at, k.ended_at, k.outcome, k.evidence,
      k.duration_seconds, coalesce(b.new_seconds, 0) as old_seconds, coalesce(k.billable_seconds, 0) as new_seconds,
      coalesce(k.rule, 'no longer a call of this month') as rule, b.period
    from widget_internal.priced_calls(m.month, only_widget => w.widget_id) k
    full join widget_internal.billed_calls(m.month, only_widget => w.widget_id) b using (widget_id, session_id, call_id)
  ) d
  left join widget_internal.closed_months() p on p.month = d.period
  where (late_changes.before is null or m.month < late_changes.before)
    and (late_changes.only_month is null or m.month = late_changes.only_month)
    and d.new_seconds <> d.old_seconds;
end
$$;

comment on function widget_internal.late_changes(date, date, uuid, timestamptz) is
  'The calls of closed months before one whose billable seconds are no longer those of their latest line, as lines of a '
  'statement. event_ids: what was received since that line and by events_until, and may have changed them.';


create function public.widget_pending_adjustments(only_widget uuid default null, period text default null)
returns setof public.widget_statement_lines
language plpgsql volatile
set search_path = pg_catalog, pg_temp
-- Set-returning functions are estimated at many times their rows, and compiling the plan takes a second.
set jit = off
as $$
begin
  return query
  select c.*
  from widget_internal.late_changes(
    case when widget_pending_adjustments.period is not null
      then widget_internal.to_month(widget_pending_adjustments.period) end,
    only_widget => widget_pending_adjustments.only_widget, events_until => 'infinity'
  ) c;
end
$$;

comment on function public.widget_pending_adjustments(uuid, text) is
  'What late arrivals have changed in closed months, and what no statement shows yet: the adjustments that the next '
  'closed months will have, as lines of a statement. period: those that the statement of that month, still open, would '
  'have; left out, it is not known yet, and null. Owners see their widgets'', service_role all.';


-- What finance asks: the calls of a period, each with its bill, and their sums. Of an open month they say what the ledger
-- says now, of a closed one what was charged for it.

create function public.widget_billing_calls(
  period_start timestamptz, period_end timestamptz, as_of timestamptz default null, only_widget uuid default null
)
returns table (
  widget_id uuid, session_id text, call_id text, started_at timestamptz, ended_at timestamptz, outcome text,
  evidence text, duration_seconds numeric, billable_seconds numeric, rule text, amount numeric, currency text,
  is_closed boolean
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
-- Set-returning functions are estimated at many times their rows, and compiling the plan takes a second.
set jit = off
as $$
begin
  return query
  with months as materialized (
    select m.* from widget_internal.billing_months(
      widget_billing_calls.period_start, widget_billing_calls.period_end, widget_billing_calls.as_of is null
    ) m
  ),
  plans as (
    select m.month, p.* from months m cross join lateral widget_internal.plans_in(m.month) p
  )
  select
    c.widget_id, c.session_id, c.call_id, c.started_at, c.ended_at, c.outcome, c.evidence, c.duration_seconds,
    c.billable_seconds, c.rule, round(c.billable_seconds * p.price_per_minute / 60, 6), p.currency, m.is_closed
  from months m
  cross join lateral (
    select r.widget_id, r.session_id, r.call_id, r.started_at, r.ended_at, r.outcome, r.evidence, r.duration_seconds,
      r.billable_seconds, r.rule
    from widget_internal.priced_calls(
      m.month, m.from_at, m.to_at, widget_billing_calls.as_of, widget_billing_calls.only_widget
    ) r
    where not m.is_closed
    union all
    select l.widget_id, l.session_id, l.call_id, l.started_at, l.ended_at, l.outcome, l.evidence, l.duration_seconds,
      l.new_seconds, l.rule
    from widget_internal.billed_calls(m.month, m.from_at, m.to_at, widget_billing_calls.only_widget) l
    where m.is_closed and l.outcome is not null
  ) c
  left join plans p on p.month = m.month and p.widget_id = c.widget_id;
end
$$;

comment on function public.widget_billing_calls(timestamptz, timestamptz, timestamptz, uuid) is
  'The calls that started in [period_start, period_end), one row each: billable_seconds, and rule, which says why. '
  'amount: these seconds at the plan''s price, to six decimals; fees, included seconds and the rounding of money come in '
  'where a month is summed up, in widget_billing_usage(). as_of counts only events received by then, so that a past bill '
  'can be made again. Left out: all events, but of a closed month what was charged (is_closed). Owners see their '
  'widgets'' calls, service_role all.';


create function public.widget_billing_calls_csv(
  period_start timestamptz, period_end timestamptz, as_of timestamptz default null, widgets uuid[] default null,
  after text[] default null, most integer default 10000
)
returns json
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_time constant text := 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"';
begin
  return (
    select
      coalesce(json_agg(
        -- No other cell can need quotes.
        case when concat(c.session_id, c.call_id, c.rule) !~ '[",\r\n]'
          then array_to_string(l.cells, ',')
          else (
            select string_agg(case when u.cell ~ '[",\r\n]' then '"' || replace(u.cell, '"', '""') || '"' else u.cell end, ',')
            from unnest(l.cells) u (cell)
          )
        end
      ), '[]')
    from (
      select b.*
      from public.widget_billing_calls(
        widget_billing_calls_csv.period_start, widget_billing_calls_csv.period_end, widget_billing_calls_csv.as_of,
        case when cardinality(widget_billing_calls_csv.widgets) = 1 then widget_billing_calls_csv.widgets[1] end
      ) b
      where (widget_billing_calls_csv.widgets is null or b.widget_id = any (widget_billing_calls_csv.widgets))
        and (
          widget_billing_calls_csv.after is null
          or (b.started_at, b.widget_id, b.session_id, b.call_id) > (
            widget_billing_calls_csv.after[1]::timestamptz, widget_billing_calls_csv.after[2]::uuid,
            widget_billing_calls_csv.after[3], widget_billing_calls_csv.after[4]
          )
        )
      order by b.started_at, b.widget_id, b.session_id, b.call_id
      limit widget_billing_calls_csv.most
    ) c
    cross join lateral (
      select array[
        c.widget_id::text, c.session_id, c.call_id,
        to_char(c.started_at at time zone 'UTC', v_time), coalesce(to_char(c.ended_at at time zone 'UTC', v_time), ''),
        c.outcome, coalesce(c.evidence, ''), coalesce(c.duration_seconds::text, ''), c.billable_seconds::text, c.rule,
        coalesce(c.amount::text, ''), coalesce(c.currency, ''), c.is_closed::text
      ]
    ) l (cells)
  );
end
$$;

comment on function public.widget_billing_calls_csv(timestamptz, timestamptz, timestamptz, uuid[], text[], integer) is
  'The same for exports, as one value, which no limit of rows cuts short: an array of lines of CSV, without a header, whose '
  'cells are the columns above in their order, times in UTC. The first calls by started_at, widget_id, session_id and '
  'call_id; after: only those behind the call with these four. Fewer than most: there are no more.';


-- A bill's sums by widget. Amounts of a part of a month are the month to date at its end less the month to date at its
-- start, so that parts add up to the month.

create function public.widget_billing_usage(
  period_start timestamptz, period_end timestamptz, as_of timestamptz default null, only_widget uuid default null,
  what_if jsonb default null
)
returns table (
  widget_id uuid, calls bigint, billable_seconds numeric,
  observed_calls bigint, observed_seconds numeric, provider_calls bigint, provider_seconds numeric,
  operator_calls bigint, operator_seconds numeric, heartbeat_calls bigint, heartbeat_seconds numeric,
  assumed_calls bigint, assumed_seconds numeric, open_calls bigint, failed_calls bigint,
  charged_seconds numeric, amount numeric, currency text, fees numeric,
  months bigint, closed_months bigint, pending_calls bigint, pending_seconds numeric, pending_amount numeric,
  is_closed boolean
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
-- Set-returning functions are estimated at many times their rows, and compiling the plan takes a second.
set jit = off
as $$
declare
  v_unknown constant text := (
    select string_agg(k.key, ', ' order by k.key)
    from jsonb_object_keys(widget_billing_usage.what_if) k (key)
    where k.key not in (select a.attname from pg_attribute a where a.attrelid = 'public.widget_plans'::regclass)
  );
begin
  if v_unknown is not null then
    raise exception 'what_if: widget_plans has no column %', v_unknown using errcode = 'invalid_parameter_value';
  end if;
  return query
  with months as materialized (
    select m.* from widget_internal.billing_months(
      widget_billing_usage.period_start, widget_billing_usage.period_end,
      widget_billing_usage.as_of is null and widget_billing_usage.what_if is null
    ) m
  ),
  -- The calls from the first instant of each month that the period touches to the end of the period. is_before: those
  -- before the period, which its amounts rest on.
  parts (month, widget_id, outcome, evidence, is_before, calls, seconds, pending_calls, pending_seconds) as materialized (
    select m.month, r.widget_id, r.outcome, r.evidence, r.is_before, r.calls, r.billable_seconds, 0::bigint, 0::numeric
    from months m
    cross join lateral widget_internal.priced_calls(
      m.month, m.month_start, m.to_at, widget_billing_usage.as_of, widget_billing_usage.only_widget, true, m.from_at,
      widget_billing_usage.what_if
    ) r
    where not m.is_closed
    union all
    select m.month, l.widget_id, l.outcome, l.evidence, l.started_at < m.from_at, count(*), sum(l.new_seconds), 0, 0
    from months m
    cross join lateral widget_internal.billed_calls(m.month, m.month_start, m.to_at, widget_billing_usage.only_widget) l
    where m.is_closed and l.outcome is not null
    group by m.month, l.widget_id, l.outcome, l.evidence, l.started_at < m.from_at
    union all
    -- Pending: what was charged of a closed month less what its calls come to now.
    select m.month, c.widget_id, null, null, c.started_at < m.from_at, 0, 0, count(*), sum(c.new_seconds - c.old_seconds)
    from months m
    cross join lateral widget_internal.late_changes(only_month => m.month, only_widget => widget_billing_usage.only_widget) c
    where m.is_closed and c.started_at < m.to_at
    group by m.month, c.widget_id, c.started_at < m.from_at
    union all
    -- A fee is due in each month that has begun, with calls or without.
    select m.month, p.widget_id, null, null, false, 0, 0, 0, 0
    from months m
    cross join lateral widget_internal.plans_in(m.month, widget_billing_usage.what_if) p
    where p.monthly_fee > 0 and m.month_start <= least(widget_billing_usage.as_of, now())
      and (widget_billing_usage.only_widget is null or p.widget_id = widget_billing_usage.only_widget)
  ),
  plans as (
    select m.month, p.*, p as plan
    from months m
    cross join lateral widget_internal.plans_in(m.month, widget_billing_usage.what_if) p
  ),
  to_date as (
    -- At the period's end and, to be taken off, at its start: nothing at a month's first instant.
    select
      m.month, p.widget_id, e.sign, m.is_closed, m.is_closed and m.to_at = m.month_end and e.sign = 1 as is_charged,
      coalesce(sum(p.seconds) filter (where e.sign = 1 or p.is_before), 0) as seconds,
      coalesce(sum(p.seconds + p.pending_seconds) filter (where e.sign = 1 or p.is_before), 0) as with_pending
    from months m
    join parts p on p.month = m.month
    join (values (1), (-1)) e (sign) on e.sign = 1 or m.from_at > m.month_start
    group by m.month, m.is_closed, m.to_at, m.month_end, p.widget_id, e.sign
    having not bool_and(p.is_before)
  ),
  charges as (
    select
      t.widget_id, min(p.currency) as currency,
      sum(t.sign * greatest(t.seconds - coalesce(p.included_seconds, 0), 0)) as charged_seconds,
      sum(t.sign * coalesce(b.amount, widget_internal.charge(t.seconds, p.plan))) as amount,
      sum(t.sign * widget_internal.charge(t.with_pending, p.plan)) as amount_with_pending,
      sum(t.sign * round(p.monthly_fee, widget_internal.currency_decimals(p.currency))) as fees,
      -- A month without a plan has no amount, and euros are not added to dollars.
      count(p.currency) = count(*) and min(p.currency) = max(p.currency) as has_amount,
      count(*) filter (where t.sign = 1) as months, count(*) filter (where t.sign = 1 and t.is_closed) as closed_months
    from to_date t
    left join plans p on p.month = t.month and p.widget_id = t.widget_id
    left join lateral (
      select sum(s.difference_amount) as amount
      from public.widget_statement_charges s
      where t.is_charged and s.usage_period = t.month and s.widget_id = t.widget_id
    ) b on true
    group by t.widget_id
  )
  select
    r.widget_id, sum(r.calls)::bigint, sum(r.seconds),
    coalesce(sum(r.calls) filter (where r.evidence = 'observed'), 0)::bigint,
    coalesce(sum(r.seconds) filter (where r.evidence = 'observed'), 0),
    coalesce(sum(r.calls) filter (where r.evidence = 'provider'), 0)::bigint,
    coalesce(sum(r.seconds) filter (where r.evidence = 'provider'), 0),
    coalesce(sum(r.calls) filter (where r.evidence = 'operator'), 0)::bigint,
    coalesce(sum(r.seconds) filter (where r.evidence = 'operator'), 0),
    coalesce(sum(r.calls) filter (where r.evidence = 'heartbeat'), 0)::bigint,
    coalesce(sum(r.seconds) filter (where r.evidence = 'heartbeat'), 0),
    coalesce(sum(r.calls) filter (where r.evidence = 'assumed'), 0)::bigint,
    coalesce(sum(r.seconds) filter (where r.evidence = 'assumed'), 0),
    coalesce(sum(r.calls) filter (where r.outcome = 'open'), 0)::bigint,
    coalesce(sum(r.calls) filter (where r.outcome = 'failed'), 0)::bigint,
    c.charged_seconds, a.amount, a.currency, a.fees, c.months, c.closed_months,
    sum(r.pending_calls)::bigint, sum(r.pending_seconds), a.pending_amount, c.closed_months = c.months
  from parts r
  join charges c on c.widget_id = r.widget_id
  left join lateral (
    select c.amount, c.currency, c.fees, c.amount_with_pending - c.amount as pending_amount where c.has_amount
  ) a on true
  where not r.is_before
  group by r.widget_id, c.charged_seconds, a.amount, a.currency, a.fees, c.months, c.closed_months, a.pending_amount;
end
$$;

comment on function public.widget_billing_usage(timestamptz, timestamptz, timestamptz, uuid, jsonb) is
  'The sums of widget_billing_calls() per widget: all calls of the period, their billable seconds, and both by evidence. '
  'charged_seconds: month by month what exceeds the plan''s included seconds; amount: its price, rounded to the currency''s '
  'decimals, and the fees; null unless all months have a plan, and all in one currency. Of a part of a month: the month to '
  'date at its end less the month to date at its start. months: how many had calls or fees, and of these closed_months '
  'count what was charged for them (is_closed: all); pending_…: what the next statement will add to that. what_if: rates the calls, as they '
  'are now, by this draft of a plan, an object with columns of widget_plans, in place of each widget''s own.';


-- What the statement of a month would hold, if it were closed now.

create function widget_internal.statement_lines(month date, as_of timestamptz)
returns setof public.widget_statement_lines
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select statement_lines.month, r.widget_id, statement_lines.month, r.session_id, r.call_id, r.started_at, r.ended_at,
    r.outcome, r.evidence, r.duration_seconds, 0::numeric, r.billable_seconds, r.billable_seconds, r.rule, '{}'::uuid[]
  from widget_internal.priced_calls(statement_lines.month) r
  union all
  select c.* from widget_internal.late_changes(statement_lines.month, events_until => statement_lines.as_of) c;
end
$$;

comment on function widget_internal.statement_lines(date, timestamptz) is
  'What the statement of a month would hold now: its calls, and the adjustments of earlier months, with the events that '
  'were received by as_of.';


create function widget_internal.statement_charges(month date, is_written boolean)
returns setof public.widget_statement_charges
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select
    statement_charges.month, n.widget_id, n.usage_period, p.valid_from, p.monthly_fee, coalesce(p.included_seconds, 0),
    p.price_per_minute, p.currency, b.seconds, b.seconds + n.seconds, n.seconds, a.old_amount, a.new_amount,
    a.new_amount - a.old_amount, ''
  from (
    select u.widget_id, u.usage_period, sum(u.seconds) as seconds
    from (
      select l.widget_id, l.usage_period, l.difference_seconds
      from public.widget_statement_lines l
      where statement_charges.is_written and l.period = statement_charges.month
      union all
      select l.widget_id, l.usage_period, l.difference_seconds
      from widget_internal.statement_lines(statement_charges.month, null) l
      where not statement_charges.is_written
      union all
      select f.widget_id, statement_charges.month, 0
      from widget_internal.plans_in(statement_charges.month) f where f.monthly_fee > 0
    ) u (widget_id, usage_period, seconds)
    group by u.widget_id, u.usage_period
  ) n
  cross join lateral (
    select coalesce(sum(c.difference_seconds), 0) as seconds, coalesce(sum(c.difference_amount), 0) as amount
    from public.widget_statement_charges c
    where c.usage_period = n.usage_period and c.widget_id = n.widget_id
  ) b
  left join lateral (
    select l.*, l as plan from public.widget_plans l
    where l.widget_id = n.widget_id and l.valid_from <= n.usage_period
    order by l.valid_from desc
    limit 1
  ) p on true
  cross join lateral (
    select round(b.amount, widget_internal.currency_decimals(p.currency)) as old_amount,
      widget_internal.charge(b.seconds + n.seconds, p.plan) as new_amount
  ) a;
end
$$;

comment on function widget_internal.statement_charges(date, boolean) is
  'The charges of a month''s statement, without their hashes: its lines, those that are written or those that it would '
  'have now, summed up by widget and month of use, with the fees, and what is billed now priced against what was before.';


create function public.widget_statement_preview(period text)
returns setof public.widget_statement_charges
language plpgsql volatile
set search_path = pg_catalog, pg_temp
-- Set-returning functions are estimated at many times their rows, and compiling the plan takes a second.
set jit = off
as $$
declare
  v_month constant date := widget_internal.to_month(widget_statement_preview.period);
begin
  if exists (select from widget_internal.closed_months() m where m.month = v_month) then
    raise exception 'period: % is closed', widget_statement_preview.period
      using errcode = 'invalid_parameter_value', hint = 'Read widget_statement_charges.';
  end if;
  return query select c.* from widget_internal.statement_charges(v_month, false) c;
end
$$;

comment on function public.widget_statement_preview(text) is
  'The charges that closing a month (2026-10) now would write. Owners see their widgets'', service_role all.';


-- Closing a month: the bill as of one moment, written down once. Events may pour in meanwhile; they are not in it.

create function public.widget_months_to_close()
returns table (
  month date, period_start timestamptz, period_end timestamptz, settled_at timestamptz, has_calls boolean, has_fees boolean,
  closes_at timestamptz
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  perform widget_internal.refuse_visitors();
  return query
  select w.*
  from (
    select m.month, m.month_start, m.month_end, m.month_end + interval '7 days',
      exists (
        select from public.widget_calls c where c.started_at >= m.month_start and c.started_at < m.month_end
      ) as has_calls,
      exists (select from widget_internal.plans_in(m.month) p where p.monthly_fee > 0) as has_fees,
      m.month_end + s.close_months_after
    from widget_internal.billing_months('-infinity', clock_timestamp()) m
    cross join widget_internal.settings s
    where m.month_end <= clock_timestamp() and not m.is_closed
  ) w
  where w.has_calls or w.has_fees
  order by w.month;
end
$$;

comment on function public.widget_months_to_close() is
  'The months that are over, have calls or fees, and are not closed, the earliest first. Browsers'' events may come for '
  'seven days, until settled_at: closed earlier, more of a month becomes adjustments. closes_at: from when on the daily job '
  'closes it by itself; null: it does not, see schedule_widget_closing().';


create function widget_internal.write_lines(month date)
returns timestamptz
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set lock_timeout = '2s'
as $$
declare
  v_lines refcursor;
  v_changes refcursor;
  v_part public.widget_statement_lines[];
  v_changed widget_internal.compared_calls[];
  v_as_of timestamptz;
begin
  begin
    perform pg_advisory_lock(widget_internal.receipts_key());
  exception when lock_not_available then
    raise exception 'a transaction that writes events has been running for more than 2 seconds; nothing was changed'
      using errcode = 'lock_not_available', hint = 'Try again when it is over.';
  end;
  -- Cursors read what was committed when they were opened. Opened while writers are held up, for an instant, they read
  -- all that was received by then, and nothing else; writers go on while they are read.
  begin
    v_as_of := clock_timestamp();
    -- What this transaction takes in from now on is received later.
    perform set_config('widget_internal.receipt_time', '', true);
    open v_lines for
      select array_agg(l.line)
      from (
        select s::public.widget_statement_lines as line, (row_number() over () - 1) / 1000 as part
        from widget_internal.statement_lines(write_lines.month, v_as_of) s
      ) l
      group by l.part;
    open v_changes for
      select array_agg(c)
      from (
        select m.month from widget_internal.closed_months() m where m.month < write_lines.month
        union all
        select write_lines.month
      ) m
      cross join lateral widget_internal.changed_calls(m.month) c;
    perform pg_advisory_unlock(widget_internal.receipts_key());
  exception when query_canceled or others then
    perform pg_advisory_unlock(widget_internal.receipts_key());
    raise;
  end;

  loop
    fetch v_lines into v_part;
    exit when not found;
    insert into public.widget_statement_lines select l.* from unnest(v_part) l;
  end loop;
  fetch v_changes into v_changed;
  insert into widget_internal.compared_calls select c.* from unnest(v_changed) c
  on conflict on constraint calls_are_compared_by_widget_and_month do update set fingerprint = excluded.fingerprint;
  close v_lines;
  close v_changes;
  return v_as_of;
end
$$;

comment on function widget_internal.write_lines(date) is
  'Writes a statement''s lines: the month''s calls, and the adjustments of earlier months. Returns the moment by which all '
  'that was received is in them, and nothing else.';


create function public.close_widget_billing_period(period text)
returns table (
  month date, answer text, as_of timestamptz, closed_at timestamptz, closed_by text, content_hash text,
  calls bigint, adjustments bigint
)
language plpgsql volatile
-- definer because service_role has no right to write a statement
security definer
set search_path = pg_catalog, pg_temp
-- Set-returning functions are estimated at many times their rows, and compiling the plan takes a second.
set jit = off
as $$
#variable_conflict use_column
declare
  v_month constant date := widget_internal.to_month(close_widget_billing_period.period);
  v_claims constant jsonb := nullif(current_setting('request.jwt.claims', true), '')::jsonb;
  v_earlier record;
  v_charge public.widget_statement_charges;
  v_period public.widget_billing_periods;
begin
  perform widget_internal.refuse_visitors();
  -- Two closings at once: the second waits, and then finds the month closed.
  lock table public.widget_billing_periods in exclusive mode;
  if not exists (select from public.widget_billing_periods p where p.period = v_month) then
    v_period.period := v_month;
    select b.period_start, b.period_end into v_period.period_start, v_period.period_end
    from public.widget_billing_period(close_widget_billing_period.period) b;
    select m.* into v_earlier from public.widget_months_to_close() m where m.month < v_month limit 1;
    if current_setting('transaction_isolation') not in ('read committed', 'read uncommitted') then
      raise exception 'a month is closed in a read committed transaction only' using errcode = 'feature_not_supported';
    elsif v_period.period_end > clock_timestamp() then
      raise exception 'period: % is not over before %', to_char(v_month, 'YYYY-MM'), v_period.period_end
        using errcode = 'invalid_parameter_value', hint = 'Close it then.';
    elsif v_earlier.month is not null then
      raise exception 'period: % has % and is not closed',
        to_char(v_earlier.month, 'YYYY-MM'), case when v_earlier.has_calls then 'calls' else 'fees' end
        using errcode = 'invalid_parameter_value', hint = 'Close the earlier month first.';
    end if;
    perform widget_internal.call_hooks('before_closing');
    perform set_config('widget_internal.is_closing', 'on', true);
    v_period.as_of := widget_internal.write_lines(v_month);
    v_period.closed_at := clock_timestamp();
    v_period.closed_by := concat_ws(' ', session_user, v_claims ->> 'role', v_claims ->> 'sub');
    for v_charge in select c.* from widget_internal.statement_charges(v_month, true) c loop
      v_charge.content_hash := widget_internal.charge_hash(v_charge);
      insert into public.widget_statement_charges values (v_charge.*);
    end loop;
    v_period.content_hash := widget_internal.period_hash(v_period);
    insert into public.widget_billing_periods values (v_period.*);
    perform set_config('widget_internal.is_closing', '', true);
  end if;

  return query
  select
    p.period, case when v_period is null then 'was closed already; nothing was changed' else 'closed now' end,
    p.as_of, p.closed_at, p.closed_by, p.content_hash,
    count(l.period) filter (where l.usage_period = l.period), count(l.period) filter (where l.usage_period < l.period)
  from public.widget_billing_periods p
  left join public.widget_statement_lines l on l.period = p.period
  where p.period = v_month
  group by p.period;
end
$$;

comment on function public.close_widget_billing_period(text) is
  'Writes the statement of a month (2026-10) that is over, for all widgets: widget_billing_periods, its charges and its '
  'lines, which nothing changes afterwards. What later arrivals changed in earlier closed months is in it as adjustments. '
  'Closing again changes nothing and says so. Refused: a month that is not over, or has an earlier one with calls or fees '
  'that is not closed (22023); a transaction that keeps writing events (55P03). There is no way to open it again.';


-- What the company knows better than a browser: its server's record of a call, the call provider's, a person's decision.
-- Each is plain events of a higher source.

create function widget_internal.events_of_record(
  record_id text, started_at timestamptz, ended_at timestamptz, outcome text
)
returns table (event_type text, at timestamptz, properties jsonb)
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select r.event_type, r.at, jsonb_build_object('record_id', events_of_record.record_id)
  from (values
    ('call_start', events_of_record.started_at),
    (case events_of_record.outcome when 'failed' then 'call_error' else 'call_end' end, events_of_record.ended_at)
  ) r (event_type, at)
  where r.at is not null;
end
$$;

comment on function widget_internal.events_of_record(text, timestamptz, timestamptz, text) is
  'The events that a record of a call is in the ledger: one for each of its times.';


create function widget_internal.record_problem(
  record_id text, started_at timestamptz, ended_at timestamptz, outcome text
)
returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_earliest constant timestamptz := timestamptz '2000-01-01 00:00Z';
  v_latest constant timestamptz := now() + interval '5 minutes';
begin
  return case
    when coalesce(length(record_id), 0) not between 1 and 255 then 'record_id: must have 1 to 255 characters'
    when started_at is null and ended_at is null then 'started_at: must be there, or ended_at'
    when not isfinite(started_at) or started_at > v_latest then 'started_at: must not be in the future'
    when not isfinite(ended_at) or ended_at > v_latest then 'ended_at: must not be in the future'
    -- A time that was never set, the year 1 or 1970, would move the call into a month that holds up all closings.
    when started_at < v_earliest then 'started_at: must not be before the year 2000'
    when ended_at < v_earliest then 'ended_at: must not be before the year 2000'
    when ended_at < started_at then 'ended_at: must not be before started_at'
    when outcome is null or outcome not in ('completed', 'failed') then 'outcome: must be completed or failed'
  end;
end
$$;

comment on function widget_internal.record_problem(text, timestamptz, timestamptz, text) is
  'What is wrong with what somebody other than the browser says of a call; null where nothing is.';


create function public.record_widget_call_evidence(
  widget_id uuid, session_id text, call_id text, source text, record_id text,
  started_at timestamptz default null, ended_at timestamptz default null, outcome text default 'completed'
)
returns jsonb
language plpgsql volatile
-- definer because service_role has no right to write the ledger
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_given constant integer := num_nonnulls(record_widget_call_evidence.started_at, record_widget_call_evidence.ended_at);
  v_problem text;
  v_known widget_internal.call_states;
  v_accepted integer;
begin
  perform widget_internal.refuse_visitors();
  v_problem := case
    when coalesce(length(session_id), 0) not between 1 and 255 then 'session_id: must have 1 to 255 characters'
    when coalesce(length(call_id), 0) not between 1 and 255 then 'call_id: must have 1 to 255 characters'
    when source is null or source not in ('server', 'provider') then 'source: must be server or provider'
    when (widget_internal.widget_door(widget_id)).is_active is null then 'widget_id: there is no such widget'
    else widget_internal.record_problem(record_id, started_at, ended_at, outcome)
  end;
  if v_problem is not null then
    raise exception '%', v_problem using errcode = 'invalid_parameter_value';
  end if;

  -- A name that a sender could guess must not keep a record out, so it is not the event's id that tells a repeat.
  perform pg_advisory_xact_lock(hashtextextended(
    'widget_internal: record ' || record_widget_call_evidence.widget_id || record_widget_call_evidence.record_id, 0
  ));
  -- Around its time, by the index: what another session calls the same on another day is another call.
  select c.* into v_known
  from widget_internal.call_states c
  cross join lateral (select coalesce(record_widget_call_evidence.started_at, record_widget_call_evidence.ended_at)) r (at)
  where c.widget_id = record_widget_call_evidence.widget_id and c.call_id = record_widget_call_evidence.call_id
    and (c.session_id = record_widget_call_evidence.session_id
      or c.started_at between r.at - interval '1 day' and r.at + interval '1 day')
  order by c.session_id <> record_widget_call_evidence.session_id, c.started_at
  limit 1;
  if v_known.session_id <> record_widget_call_evidence.session_id then
    raise exception 'session_id: call % is known as one of session %', v_known.call_id, v_known.session_id
      using errcode = 'invalid_parameter_value', hint = 'Give that session_id: a second call would be billed as well.';
  end if;

  insert into public.widget_analytics (widget_id, session_id, call_id, source, event_type, "timestamp", properties)
  select record_widget_call_evidence.widget_id, record_widget_call_evidence.session_id, record_widget_call_evidence.call_id,
    record_widget_call_evidence.source, r.event_type, r.at, r.properties
  from widget_internal.events_of_record(
    record_widget_call_evidence.record_id, record_widget_call_evidence.started_at, record_widget_call_evidence.ended_at,
    record_widget_call_evidence.outcome
  ) r
  where not exists (
    select from public.widget_analytics e
    where e.widget_id = v_known.widget_id and e."timestamp" between v_known.first_event_at and v_known.last_event_at
      and e.session_id = v_known.session_id and e.call_id = v_known.call_id
      and e.source = record_widget_call_evidence.source and e.event_type in ('call_start', 'call_end', 'call_error')
      and (e.event_type = 'call_start') = (r.event_type = 'call_start')
      and e.properties ->> 'record_id' = record_widget_call_evidence.record_id
  );
  get diagnostics v_accepted = row_count;
  return jsonb_build_object('accepted', v_accepted, 'duplicates', v_given - v_accepted, 'call', (
    select to_jsonb(c) from public.widget_calls c
    where c.widget_id = record_widget_call_evidence.widget_id and c.session_id = record_widget_call_evidence.session_id
      and c.call_id = record_widget_call_evidence.call_id
  ));
end
$$;

comment on function public.record_widget_call_evidence(uuid, text, text, text, text, timestamptz, timestamptz, text) is
  'Adds what your server or the call provider (source) knows of a call: its true start, end or both; a call that is not '
  'known yet begins so. record_id: the record''s name at its source; sent again, it changes nothing. Answers {"accepted", '
  '"duplicates", "call"}: the call as it now is, null as long as it has no start. Of several records of one source the '
  'earliest start and the latest end count. 400 (22023): the message names the field; session_id, where another session '
  'of the widget knows that call.';


create function public.correct_widget_call(
  widget_id uuid, session_id text, call_id text, duration_seconds numeric, reason text, corrected_by text
)
returns jsonb
language plpgsql volatile
-- definer because service_role has no right to write the ledger
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_problem text;
begin
  perform widget_internal.refuse_visitors();
  v_problem := case
    when correct_widget_call.duration_seconds is null
      or not correct_widget_call.duration_seconds between 0 and (
        select extract(epoch from s.max_call_duration) from widget_internal.settings s
      )
      then 'duration_seconds: must be from 0, which voids the call, to the longest that a call can be'
    when coalesce(correct_widget_call.reason, '') !~ '[^[:space:]]' or length(correct_widget_call.reason) > 1000
      then 'reason: must say why, in at most 1000 characters'
    when coalesce(correct_widget_call.corrected_by, '') !~ '[^[:space:]]' or length(correct_widget_call.corrected_by) > 255
      then 'corrected_by: must say who, in at most 255 characters'
  end;
  if v_problem is not null then
    raise exception '%', v_problem using errcode = 'invalid_parameter_value';
  end if;

  -- Start and end of one decision carry one moment of receipt, later than that of the decision before it: the latest counts.
  insert into public.widget_analytics (
    widget_id, session_id, call_id, source, event_type, "timestamp", received_at, properties
  )
  select c.widget_id, c.session_id, c.call_id, 'operator', e.event_type, c.started_at + e.after,
    greatest(widget_internal.receipt_time(), timestamptz 'epoch' + (c.end_claim[2] + 1) * interval '1 microsecond'),
    jsonb_build_object(
      'reason', correct_widget_call.reason, 'corrected_by', correct_widget_call.corrected_by, 'login', session_user
    )
  from widget_internal.call_states c
  cross join (values
    ('call_start', interval '0'),
    ('call_end', correct_widget_call.duration_seconds * interval '1 second')
  ) e (event_type, after)
  where c.widget_id = correct_widget_call.widget_id and c.session_id = correct_widget_call.session_id
    and c.call_id = correct_widget_call.call_id and c.started_at is not null;
  if not found then
    raise exception 'call_id: there is no such call in widget_calls' using errcode = 'invalid_parameter_value';
  end if;
  return (
    select to_jsonb(c) from public.widget_calls c
    where c.widget_id = correct_widget_call.widget_id and c.session_id = correct_widget_call.session_id
      and c.call_id = correct_widget_call.call_id
  );
end
$$;

comment on function public.correct_widget_call(uuid, text, text, numeric, text, text) is
  'Sets how long a call was, whatever else is said of it; 0 voids it: it is billed at nothing under any plan. The latest '
  'correction counts; who and why stand in the rule that bills show. Answers the call as it now is. In a closed month '
  'it becomes an adjustment. 400 (22023): the message names the field.';


-- A month may be closed by itself, some days after its end. Nothing is, unless the company says so.

alter table widget_internal.settings
  add column close_months_after interval,
  add constraint months_are_closed_a_week_after_them check (close_months_after >= interval '7 days');

comment on column widget_internal.settings.close_months_after is
  'How long after its end a month is closed by itself; null: never. Browsers'' events may come for seven days.';


-- The earliest first; nothing while close_months_after is null.
insert into widget_internal.scheduled_jobs (name, schedule, command)
values (
  'widget_close_months', '47 4 * * *',
  'select public.close_widget_billing_period(to_char(m.month, ''YYYY-MM'')) '
  'from public.widget_months_to_close() m where m.closes_at <= now()'
);


create function public.schedule_widget_closing(after interval default null)
returns interval
language plpgsql volatile
-- definer because service_role has no right to change settings
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform widget_internal.refuse_visitors();
  if schedule_widget_closing.after < interval '7 days' then
    raise exception 'after: must be at least 7 days' using errcode = 'invalid_parameter_value',
      hint = 'Browsers'' events may come for seven days after a month''s end.';
  end if;
  update widget_internal.settings set close_months_after = schedule_widget_closing.after;
  return schedule_widget_closing.after;
end
$$;

comment on function public.schedule_widget_closing(interval) is
  'Says how long after its end, seven days at least, a month is closed by itself; null: never.';


-- What people call a widget, its owner and its customer, for bills that people read.

create function widget_internal.owner_email(owner_id uuid)
returns text
language plpgsql stable
-- definer because nobody else may read auth.users
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select u.email
    from auth.users u
    where u.id = owner_email.owner_id
      and (current_setting('role') not in ('anon', 'authenticated') or u.id = (select auth.uid()))
  );
end
$$;

comment on function widget_internal.owner_email(uuid) is
  'A user''s e-mail address, for the company; a signed-in user learns the own one.';


create function public.widget_user_ids(email text)
returns uuid[]
language plpgsql volatile
-- definer because nobody else may read auth.users
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform widget_internal.refuse_visitors();
  return array(select u.id from auth.users u where lower(u.email) = lower(widget_user_ids.email));
end
$$;

comment on function public.widget_user_ids(text) is
  'The project''s users of this e-mail address, to make one a widget''s owner: several where single sign-on has the address too.';


create function public.widget_directory()
returns table (
  id uuid, name text, customer_reference text, owner_id uuid, owner_email text, allowed_domains text[],
  is_active boolean, is_demo boolean
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  -- By name out of the whole row: a project's own widgets table need not have these columns.
  return query
  select
    w.id, coalesce(r.columns ->> 'name', ''), c.reference, (r.columns ->> 'owner_id')::uuid,
    widget_internal.owner_email((r.columns ->> 'owner_id')::uuid), d.allowed_domains, d.is_active, d.is_demo
  from public.widgets w
  cross join lateral (select to_jsonb(w)) r (columns)
  cross join lateral widget_internal.widget_door(w.id) d
  left join public.widget_customers c on c.widget_id = w.id;
end
$$;

comment on function public.widget_directory() is
  'The widgets with their names, owners (e-mail addresses included), customer references and domains. Owners see their '
  'widgets, service_role all.';


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
