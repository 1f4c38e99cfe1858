-- What providers carried beside what is billed: where the two differ, one of them is wrong, or somebody is not billed.

create function widget_internal.reconciled_calls(period_start timestamptz, period_end timestamptz)
returns table (
  provider text, widget_id uuid, side text, our_seconds numeric, provider_seconds numeric, provider_call_id text
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
-- Set-returning functions are estimated at many times their rows, and compiling the plan takes a second.
set jit = off
as $$
begin
  return query
  with ours as materialized (
    select b.widget_id, b.session_id, b.call_id, b.started_at, b.outcome, b.evidence, b.duration_seconds
    from public.widget_billing_calls(reconciled_calls.period_start, reconciled_calls.period_end) b
  ),
  carried as materialized (
    select p.*, extract(epoch from p.ended_at - p.started_at) as seconds
    from public.widget_provider_calls p
    where coalesce(p.started_at, p.ended_at) >= reconciled_calls.period_start - interval '1 day'
      and coalesce(p.started_at, p.ended_at) < reconciled_calls.period_end + interval '1 day'
  ),
  -- Of a widget that several providers carry, nobody knows which one missed a call.
  carriers as materialized (
    select w.widget_id, case when count(distinct w.provider) = 1 then min(w.provider) end as provider
    from (
      select a.widget_id, a.provider from public.widget_provider_agents a where a.widget_id is not null
      union all
      select p.widget_id, p.provider from carried p where p.widget_id is not null
    ) w
    group by w.widget_id
  )
  select p.provider, o.widget_id, case p.matched_by when 'agent' then 'made' else 'matched' end,
    o.duration_seconds, coalesce(p.seconds, o.duration_seconds), p.call_id::text
  from ours o
  join carried p on p.widget_id = o.widget_id and p.session_id = o.session_id and p.widget_call_id = o.call_id
  union all
  select p.provider, a.widget_id, 'provider', null, coalesce(p.seconds, 0), p.call_id::text
  from carried p
  cross join lateral widget_internal.provider_widget(p.provider, p.agent) a
  where p.widget_id is null and (a.is_known is null or a.widget_id is not null)
    and coalesce(p.started_at, p.ended_at) >= reconciled_calls.period_start
    and coalesce(p.started_at, p.ended_at) < reconciled_calls.period_end
  union all
  select c.provider, o.widget_id, 'browser', o.duration_seconds, null, null
  from ours o
  join carriers c on c.widget_id = o.widget_id
  -- A call that failed was often none; one that is void is said to have been none.
  where o.outcome = 'completed'
    and (o.evidence in ('operator', 'provider') and o.duration_seconds = 0) is not true
    and not exists (
      select from carried p
      where p.widget_id = o.widget_id and p.session_id = o.session_id and p.widget_call_id = o.call_id
    );
end
$$;

comment on function widget_internal.reconciled_calls(timestamptz, timestamptz) is
  'The calls of a period as both sides have them. side: matched; made (only the provider told of it, and it is billed); '
  'provider (only there, and not billed); browser (only there).';


create function public.widget_reconciliation(period_start timestamptz, period_end timestamptz)
returns table (
  provider text, widget_id uuid, matched_calls bigint, our_seconds numeric, provider_seconds numeric,
  seconds_apart numeric, provider_only_calls bigint, provider_only_seconds numeric, made_calls bigint,
  browser_only_calls bigint, browser_only_seconds numeric, costs text[]
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set jit = off
as $$
begin
  perform widget_internal.refuse_visitors();
  return query
  with calls as materialized (
    select c.* from widget_internal.reconciled_calls(widget_reconciliation.period_start, widget_reconciliation.period_end) c
  ),
  costs as (
    select s.provider, s.widget_id, array_agg(s.cost_currency || '=' || s.cost order by s.cost_currency) as costs
    from (
      select c.provider, c.widget_id, r.cost_currency, sum(r.cost) as cost
      from calls c
      join public.widget_provider_records r on r.provider = c.provider and r.call_id = c.provider_call_id
      where r.cost is not null
      group by c.provider, c.widget_id, r.cost_currency
    ) s
    group by s.provider, s.widget_id
  ),
  sums as (
    select
      c.provider, c.widget_id,
      count(*) filter (where c.side = 'matched') as matched,
      coalesce(sum(c.our_seconds) filter (where c.side = 'matched'), 0) as ours,
      coalesce(sum(c.provider_seconds) filter (where c.side = 'matched'), 0) as theirs,
      count(*) filter (where c.side in ('made', 'provider')) as provider_only,
      coalesce(sum(c.provider_seconds) filter (where c.side in ('made', 'provider')), 0) as provider_only_seconds,
      count(*) filter (where c.side = 'made') as made,
      count(*) filter (where c.side = 'browser') as browser_only,
      coalesce(sum(c.our_seconds) filter (where c.side = 'browser'), 0) as browser_only_seconds
    from calls c
    group by c.provider, c.widget_id
  )
  select s.provider, s.widget_id, s.matched, s.ours, s.theirs, s.ours - s.theirs, s.provider_only,
    s.provider_only_seconds, s.made, s.browser_only, s.browser_only_seconds, coalesce(c.costs, '{}')
  from sums s
  left join costs c on c.provider is not distinct from s.provider and c.widget_id is not distinct from s.widget_id
  order by s.provider nulls last, s.widget_id nulls last;
end
$$;

comment on function public.widget_reconciliation(timestamptz, timestamptz) is
  'What providers carried in a period beside what is billed, by provider and widget: matched calls, with the seconds of '
  'both sides and how far these are apart (ours less theirs); calls that only the provider knows, of which made_calls are '
  'billed because widget_provider_agents named the widget; calls that only browsers know, of widgets with a provider; and '
  'what the providers say that it costs, such as USD=12.50, by currency. No widget: none is known. No provider: the widget has several.';
