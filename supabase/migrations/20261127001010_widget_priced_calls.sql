-- A bill's sums are made straight from the calls that are kept: handed through what lists calls as well, each row was
-- carried along twice, and its month looked up even where the whole bill is of one (docs/performance.md).

create or replace function widget_internal.priced_calls(
  period_start timestamptz, period_end timestamptz, as_of timestamptz,
  only_sessions widget_internal.session_name[] default null, in_sums boolean default false
)
returns table (
  widget_id uuid, session_id text, call_id text, started_at timestamptz, ended_at timestamptz, outcome text,
  evidence text, duration_seconds numeric, month date, plan public.widget_plans, billable_seconds numeric, why_not text,
  calls bigint, times bigint
)
language plpgsql stable
set search_path = ''
-- A plan for any period takes each for so short that it reads everybody's calls in it for an owner's bill of one widget:
-- 30 ms where a plan for this period takes 1.
set plan_cache_mode = force_custom_plan
as $$
declare
  v_zone constant text := (select s.billing_time_zone from widget_internal.settings s);
  -- The billing month, where all of the period lies in one: that spares looking at each call's.
  v_month constant date := (
    select m.first
    from (
      select date_trunc('month', priced_calls.period_start at time zone v_zone)::date as first,
        date_trunc('month', (priced_calls.period_end - interval '1 microsecond') at time zone v_zone)::date as last
    ) m
    where m.first = m.last
  );
  v_rounding constant uuid[] := array(
    select w.widget_id from public.widget_plans w where w.increment_seconds > 0 or w.minimum_seconds > 0
  );
begin
  if priced_calls.period_start is null or priced_calls.period_end is null
    or priced_calls.period_end <= priced_calls.period_start
  then
    raise exception 'period_end: must be after period_start' using errcode = 'invalid_parameter_value';
  end if;

  -- One statement for calls and sums, kept and as of: what a call costs is said once. Whatever is not asked for is not run.
  return query
  with kept as not materialized (
    select c.*
    from public.widget_calls c
    where priced_calls.as_of is null
      and c.started_at >= priced_calls.period_start
      and c.started_at < priced_calls.period_end
  ),
  parts as (
    select
      c.*, coalesce(v_month, date_trunc('month', c.started_at at time zone v_zone)::date) as month,
      1::bigint as calls, 1::bigint as times
    from (
      select k.widget_id, k.session_id::text, k.call_id::text, k.started_at, k.ended_at, k.outcome, k.evidence,
        k.duration_seconds
      from kept k
      where not priced_calls.in_sums
      union all
      select a.*
      from widget_internal.calls_as_of(
        priced_calls.period_start, priced_calls.period_end, priced_calls.as_of, priced_calls.only_sessions
      ) a
      where priced_calls.as_of is not null
    ) c
    union all
    -- Where no plan of the widget rounds, calls of one outcome and evidence are all billed to the exact second or all
    -- not at all, so their sum is priced as one call is.
    select
      k.widget_id, null, null, null, null, k.outcome, k.evidence, sum(k.duration_seconds),
      coalesce(v_month, date_trunc('month', k.started_at at time zone v_zone)::date) as month, count(*), 1
    from kept k
    where priced_calls.in_sums and k.widget_id <> all (v_rounding)
    group by k.widget_id, month, k.outcome, k.evidence
    union all
    -- Where one does, only calls of equal length cost the same.
    select
      k.widget_id, null, null, null, null, k.outcome, k.evidence, k.duration_seconds,
      coalesce(v_month, date_trunc('month', k.started_at at time zone v_zone)::date) as month, count(*), count(*)
    from kept k
    where priced_calls.in_sums and k.widget_id = any (v_rounding)
    group by k.widget_id, month, k.outcome, k.evidence, k.duration_seconds
  ),
  planned as (
    select
      c.*, v.plan,
      coalesce((v.plan).minimum_seconds, 0) as minimum, coalesce((v.plan).increment_seconds, 0) as increment,
      case
        when c.outcome = 'open' then 'open calls are not billed yet'
        -- Before any minimum: an operator who sets a call to nothing means that it costs nothing.
        when c.evidence = 'operator' and c.duration_seconds = 0 then 'void'
        when c.outcome = 'failed' and (v.plan).bills_failed_calls is not true then 'failed calls are not billed'
        when c.evidence = 'assumed' and (v.plan).assumed_calls = 'none' then 'assumed ends are not billed'
      end as why_not
    from parts c
    left join widget_internal.plan_validity v
      on v.widget_id = c.widget_id and c.month >= v.valid_from and c.month < v.valid_until
  )
  select
    p.widget_id, p.session_id, p.call_id, p.started_at, p.ended_at, p.outcome, p.evidence, p.duration_seconds,
    p.month, p.plan,
    case
      when p.why_not is not null then 0
      when p.increment > 0 then ceil(greatest(p.duration_seconds, p.minimum) / p.increment) * p.increment
      else greatest(p.duration_seconds, p.minimum)
    end,
    p.why_not, p.calls, p.times
  from planned p;
end
$$;
