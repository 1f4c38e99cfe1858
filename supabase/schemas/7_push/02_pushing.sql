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
