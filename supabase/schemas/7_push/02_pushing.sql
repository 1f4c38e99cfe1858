-- The steps of a push, each one statement: plan, claim, send (outside), settle.

create function public.plan_widget_pushes(target text, period text, pushes jsonb)
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
  insert into public.widget_pushes as o (target, period, widget_id, usage_period, event_id, customer, payload, state, answer)
  select plan_widget_pushes.target, widget_internal.to_month(plan_widget_pushes.period), p.widget_id, p.usage_period,
    p.event_id, p.customer, p.payload::text, case when p.refusal is null then 'planned' else 'refused' end, p.refusal
  from jsonb_to_recordset(plan_widget_pushes.pushes)
    p (widget_id uuid, usage_period date, event_id text, customer text, payload jsonb, refusal text)
  order by p.widget_id, p.usage_period
  on conflict on constraint widget_charges_are_pushed_once_to_a_target do update
  set customer = excluded.customer, payload = excluded.payload, state = excluded.state, answer = excluded.answer
  where o.state = 'refused';
  get diagnostics v_planned = row_count;
  return v_planned;
end
$$;

comment on function public.plan_widget_pushes(text, text, jsonb) is
  'Writes down what is to be sent to a billing system for a closed month: [{"widget_id", "usage_period", "event_id", '
  '"customer", "payload", "refusal"}], the last where the system would not take it right. What is planned already stays as '
  'it is; what was refused is planned anew. Answers how many were planned.';


create function public.claim_widget_pushes(target text, period text, most integer default 100, hold interval default '2 minutes')
returns table (
  widget_id uuid, usage_period date, event_id text, customer text, payload text, sent_before_seconds double precision
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
    select p.widget_id, p.usage_period, extract(epoch from clock_timestamp() - p.first_sent_at)::double precision as seconds
    from public.widget_pushes p
    where p.target = claim_widget_pushes.target and p.period = widget_internal.to_month(claim_widget_pushes.period)
      and p.state in ('planned', 'sending') and coalesce(p.held_until, '-infinity') < clock_timestamp()
    order by p.widget_id, p.usage_period
    limit claim_widget_pushes.most
    for update skip locked
  )
  update public.widget_pushes p
  set state = 'sending', sent_at = clock_timestamp(), first_sent_at = coalesce(p.first_sent_at, clock_timestamp()),
    held_until = clock_timestamp() + claim_widget_pushes.hold
  from free f
  where p.target = claim_widget_pushes.target and p.period = widget_internal.to_month(claim_widget_pushes.period)
    and p.widget_id = f.widget_id and p.usage_period = f.usage_period
  returning p.widget_id, p.usage_period, p.event_id, p.customer, p.payload, f.seconds;
end
$$;

comment on function public.claim_widget_pushes(text, text, integer, interval) is
  'Takes what is to be sent next, so that no other push sends it for a while (hold). sent_before_seconds: how long ago it '
  'was first sent, null: never. What was claimed and not settled can be claimed again after that while.';


create function public.settle_widget_pushes(target text, period text, results jsonb)
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
    confirmed_at = case when r.state = 'confirmed' then clock_timestamp() end
  from jsonb_to_recordset(settle_widget_pushes.results) r (widget_id uuid, usage_period date, state text, answer text)
  where p.target = settle_widget_pushes.target and p.period = widget_internal.to_month(settle_widget_pushes.period)
    and p.widget_id = r.widget_id and p.usage_period = r.usage_period
    -- A push that lost its hold must not take back what another has learnt since.
    and not (p.state in ('accepted', 'refused') and r.state in ('planned', 'sending'));
  get diagnostics v_settled = row_count;
  return v_settled;
end
$$;

comment on function public.settle_widget_pushes(text, text, jsonb) is
  'Writes down what became of claimed rows: [{"widget_id", "usage_period", "state", "answer"}]. state sending: nobody knows, '
  'so it can be claimed again at once; planned: it certainly did not arrive.';
