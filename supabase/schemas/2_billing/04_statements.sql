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
