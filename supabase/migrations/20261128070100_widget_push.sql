-- Made by scripts/baseline from schemas/7_push/01_pushes.sql, schemas/7_push/02_pushing.sql, schemas/7_push/90_rights.sql.

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


-- The steps of a push, each one statement: plan, claim, send (outside), settle.

create function public.plan_widget_pushes(target text, account text, period text, pushes jsonb)
returns bigint
language plpgsql volatile
-- definer because service_role has no right to write the outbox
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_planned bigint;
begin
  perform widget_internal.refuse_visitors();
  insert into public.widget_pushes as o
    (target, account, period, widget_id, usage_period, event_id, customer, payload, state, answer)
  select plan_widget_pushes.target, plan_widget_pushes.account, widget_internal.to_month(plan_widget_pushes.period),
    p.widget_id, p.usage_period, p.event_id, p.customer, p.payload::text,
    case when p.refusal is null then 'planned' else 'refused' end, p.refusal
  from jsonb_to_recordset(plan_widget_pushes.pushes)
    p (widget_id uuid, usage_period date, event_id text, customer text, payload jsonb, refusal text)
  order by p.widget_id, p.usage_period
  on conflict on constraint widget_charges_are_pushed_once_to_an_account do update
  set customer = excluded.customer, payload = excluded.payload, state = excluded.state, answer = excluded.answer,
    refusals = o.refusals + 1, first_sent_at = null, sent_at = null
  where o.state = 'refused';
  get diagnostics v_planned = row_count;
  return v_planned;
end
$$;

comment on function public.plan_widget_pushes(text, text, text, jsonb) is
  'Writes down what is to be sent to an account at a billing system for a closed month: [{"widget_id", "usage_period", '
  '"event_id", "customer", "payload", "refusal"}], the last where the system would not take it right. What is '
  'planned already stays as it is; what was refused is planned anew. Answers how many were planned.';


create function public.claim_widget_pushes(
  target text, account text, period text, most integer default 100, hold interval default '2 minutes'
)
returns table (
  widget_id uuid, usage_period date, event_id text, customer text, payload text, refusals integer, sent_at timestamptz,
  sent_before_seconds double precision, may_be_known boolean
)
language plpgsql volatile
-- definer because service_role has no right to write the outbox
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
  perform widget_internal.refuse_visitors();
  return query
  with free as materialized (
    select p.widget_id, p.usage_period, extract(epoch from clock_timestamp() - p.first_sent_at)::double precision as seconds,
      exists (
        select from public.widget_pushes o
        where o.target = p.target and o.account <> p.account and o.first_sent_at is not null
          and (o.period, o.widget_id, o.usage_period) = (p.period, p.widget_id, p.usage_period)
      ) as may_be_known
    from public.widget_pushes p
    where p.target = claim_widget_pushes.target and p.account = claim_widget_pushes.account
      and p.period = widget_internal.to_month(claim_widget_pushes.period)
      and p.state in ('planned', 'sending') and coalesce(p.held_until, '-infinity') < clock_timestamp()
    order by p.widget_id, p.usage_period
    limit claim_widget_pushes.most
    for update skip locked
  )
  update public.widget_pushes p
  set state = 'sending', sent_at = clock_timestamp(), first_sent_at = coalesce(p.first_sent_at, clock_timestamp()),
    held_until = clock_timestamp() + claim_widget_pushes.hold
  from free f
  where p.target = claim_widget_pushes.target and p.account = claim_widget_pushes.account
    and p.period = widget_internal.to_month(claim_widget_pushes.period)
    and p.widget_id = f.widget_id and p.usage_period = f.usage_period
  returning p.widget_id, p.usage_period, p.event_id, p.customer, p.payload, p.refusals, p.sent_at, f.seconds, f.may_be_known;
end
$$;

comment on function public.claim_widget_pushes(text, text, text, integer, interval) is
  'Takes what is to be sent next, so that no other push sends it for a while (hold). sent_before_seconds: how long ago it '
  'was first sent, null: never. may_be_known: the charge was sent under another account''s name too, which may be the same '
  'account. What was claimed and not settled can be claimed again after that while.';


create function public.settle_widget_pushes(target text, account text, period text, results jsonb)
returns bigint
language plpgsql volatile
-- definer because service_role has no right to write the outbox
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_settled bigint;
begin
  perform widget_internal.refuse_visitors();
  update public.widget_pushes p
  set state = r.state, answer = coalesce(left(r.answer, 500), p.answer), held_until = null,
    confirmed_at = case when r.state = 'confirmed' then clock_timestamp() end,
    first_sent_at = coalesce(p.first_sent_at, r.sent_at),
    sent_at = case
      when r.state in ('accepted', 'unclear') and p.state not in ('accepted', 'unclear') then clock_timestamp()
      else p.sent_at
    end
  from jsonb_to_recordset(settle_widget_pushes.results)
    r (widget_id uuid, usage_period date, sent_at timestamptz, was text, state text, answer text)
  where p.target = settle_widget_pushes.target and p.account = settle_widget_pushes.account
    and p.period = widget_internal.to_month(settle_widget_pushes.period)
    and p.widget_id = r.widget_id and p.usage_period = r.usage_period
    -- That it arrived is always news. Anything else is not where another push has taken it, or learnt more, since.
    and (r.state in ('accepted', 'confirmed') or (p.state, p.sent_at) = (r.was, r.sent_at));
  get diagnostics v_settled = row_count;
  return v_settled;
end
$$;

comment on function public.settle_widget_pushes(text, text, text, jsonb) is
  'Writes down what became of rows: [{"widget_id", "usage_period", "sent_at", "was", "state", "answer"}]; sent_at and was, the '
  'state, are the row''s as it was read. state sending: nobody knows, so it can be claimed again at once.';


-- Only the company's backend pushes bills.

insert into widget_internal.rights (object, grantee, privileges) values
  ('table public.widget_charges_to_push', 'service_role', 'select'),
  ('table public.widget_pushes', 'service_role', 'select'),
  ('function public.plan_widget_pushes(text, text, text, jsonb)', 'service_role', 'execute'),
  ('function public.claim_widget_pushes(text, text, text, integer, interval)', 'service_role', 'execute'),
  ('function public.settle_widget_pushes(text, text, text, jsonb)', 'service_role', 'execute');

select widget_internal.apply_rights();
