-- The outbox of bills: what is to be sent to a billing system is written down before it is sent, and never changes.

create view public.widget_charges_to_push with (security_invoker = true) as
  select
    c.period, c.widget_id, c.usage_period, k.reference as customer, p.period_start, p.period_end, c.currency,
    widget_internal.currency_decimals(c.currency) as decimals, c.old_seconds, c.new_seconds,
    c.old_amount, c.new_amount, c.difference_amount
  from public.widget_statement_charges c
  join public.widget_billing_periods p on p.period = c.period
  left join public.widget_customers k on k.widget_id = c.widget_id
  where c.difference_seconds <> 0 or c.difference_amount <> 0;

comment on view public.widget_charges_to_push is
  'What closed months charge or credit, with each widget''s customer: what `widget-analytics push` sends. A row that changes '
  'nothing is left out.';
comment on column public.widget_charges_to_push.customer is 'The reference in widget_customers; null: none.';
comment on column public.widget_charges_to_push.decimals is 'Those of the currency, by ISO 4217.';


create table public.widget_pushes (
  target text not null,
  account text not null,
  period date not null,
  widget_id uuid not null,
  usage_period date not null,
  event_id text not null,
  customer text not null,
  payload text not null,
  state text not null default 'planned',
  planned_at timestamptz not null default now(),
  refusals integer not null default 0,
  first_sent_at timestamptz,
  sent_at timestamptz,
  held_until timestamptz,
  confirmed_at timestamptz,
  answer text,
  constraint widget_charges_are_pushed_once_to_an_account primary key (target, account, period, widget_id, usage_period),
  constraint widget_pushes_are_named_once unique (target, account, event_id),
  constraint only_charges_are_pushed foreign key (period, widget_id, usage_period) references public.widget_statement_charges,
  constraint targets_are_known check (target in ('stripe', 'lago', 'openmeter')),
  constraint payloads_are_json_objects check (jsonb_typeof(payload::jsonb) = 'object'),
  constraint states_are_known check (state in ('planned', 'sending', 'accepted', 'confirmed', 'refused', 'unclear')),
  constraint what_was_sent_has_a_time check (state in ('planned', 'refused') or first_sent_at is not null)
);

comment on table public.widget_pushes is
  'The outbox of `widget-analytics push`: one row for each charge and account at a billing system. '
  'payload, event_id and customer are written before anything is sent, and stay, unless the system has refused them.';
comment on column public.widget_pushes.target is 'The billing system: stripe, lago or openmeter.';
comment on column public.widget_pushes.account is
  'The account there: test or live at Stripe, the server''s name at the others, or the name that was given (--account).';
comment on column public.widget_pushes.event_id is
  'Names the charge at the billing system (idempotency key, transaction id, event id): made from the charge''s primary key.';
comment on column public.widget_pushes.customer is 'The customer''s id at the billing system.';
comment on column public.widget_pushes.payload is 'What is sent, to the letter. Holds no key.';
comment on column public.widget_pushes.state is
  'planned; sending: it was sent, and may have arrived; accepted: the system has taken it; confirmed: the system has it; '
  'refused: it does not have it and will not take it, answer says why; unclear: it refused it, and an earlier try may have '
  'arrived: it is looked for, and not sent.';
comment on column public.widget_pushes.refusals is 'How often it was refused and planned anew.';
comment on column public.widget_pushes.first_sent_at is
  'Since when the system may have it: its window of idempotency runs from here.';
comment on column public.widget_pushes.sent_at is 'When it was last sent; of what is accepted or unclear: when that was learnt.';
comment on column public.widget_pushes.held_until is 'Until then a running push sends it; no other takes it.';
comment on column public.widget_pushes.answer is 'The id that the system gave it, or why it was refused.';

create index widget_pushes_charge_idx on public.widget_pushes (period, widget_id, usage_period);
comment on index public.widget_pushes_charge_idx is 'Serves the reference to the charge.';

alter table public.widget_pushes enable row level security;


create function widget_internal.keep_pushes()
returns trigger
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  if old.state = 'confirmed' then
    return old;
  elsif old.state <> 'refused' and (new.event_id, new.customer, new.payload) <> (old.event_id, old.customer, old.payload) then
    raise exception 'what was planned to be sent never changes' using errcode = 'object_not_in_prerequisite_state';
  end if;
  return new;
end
$$;

comment on function widget_internal.keep_pushes() is 'Keeps what was frozen, unless it was refused, and a confirmed row as it is.';

create trigger pushes_stay_as_planned before update on public.widget_pushes
  for each row execute function widget_internal.keep_pushes();
