-- The bill of a month took twenty times as long as reading its calls. What a call costs is now computed apart from the
-- text that says why, which only a list of calls needs, and for many calls at once where they are priced alike
-- (docs/performance.md).

create function widget_internal.priced_calls(
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
as $$
declare
  v_zone constant text := (select s.billing_time_zone from widget_internal.settings s);
begin
  if priced_calls.period_start is null or priced_calls.period_end is null
    or priced_calls.period_end <= priced_calls.period_start
  then
    raise exception 'period_end: must be after period_start' using errcode = 'invalid_parameter_value';
  end if;

  -- One statement for calls and sums, kept and as of: what a call costs is said once. Whatever is not asked for is not run.
  return query
  with called as not materialized (
    -- As calls_as_of() has them, but not handed through a function: these are the many.
    select c.widget_id, c.session_id::text, c.call_id::text, c.started_at, c.ended_at, c.outcome, c.evidence,
      c.duration_seconds
    from public.widget_calls c
    where priced_calls.as_of is null
      and c.started_at >= priced_calls.period_start
      and c.started_at < priced_calls.period_end
    union all
    select a.*
    from widget_internal.calls_as_of(
      priced_calls.period_start, priced_calls.period_end, priced_calls.as_of, priced_calls.only_sessions
    ) a
    where priced_calls.as_of is not null
  ),
  monthly as not materialized (
    select c.*, date_trunc('month', c.started_at at time zone v_zone)::date as month from called c
    offset 0 -- once for each call
  ),
  parts as (
    select c.*, 1::bigint as calls, 1::bigint as times from monthly c where not priced_calls.in_sums
    union all
    -- Where no plan of the widget rounds, calls of one outcome and evidence are all billed to the exact second or all
    -- not at all, so their sum is priced as one call is. Where one does, only calls of equal length cost the same.
    select c.widget_id, null, null, null, null, c.outcome, c.evidence,
      coalesce(c.rounded_seconds, sum(c.duration_seconds)), c.month, count(*),
      case when c.rounded_seconds is null then 1 else count(*) end
    from (
      select m.*, case when m.widget_id in (
        select w.widget_id from public.widget_plans w where w.increment_seconds > 0 or w.minimum_seconds > 0
      ) then m.duration_seconds end as rounded_seconds
      from monthly m
      where priced_calls.in_sums
      offset 0 -- once for each call
    ) c
    group by c.widget_id, c.month, c.outcome, c.evidence, c.rounded_seconds
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

comment on function widget_internal.priced_calls(timestamptz, timestamptz, timestamptz, widget_internal.session_name[], boolean) is
  'calls_as_of(), each with its billing month, the plan that holds then, what that plan makes of it, and why that is '
  'nothing. in_sums: instead, those that are priced alike in one row: how many calls they are, and how many times the '
  'row''s billable_seconds they are billed.';


create or replace function widget_internal.rated_calls(
  period_start timestamptz, period_end timestamptz, as_of timestamptz,
  only_sessions widget_internal.session_name[] default null
)
returns table (
  widget_id uuid, session_id text, call_id text, started_at timestamptz, ended_at timestamptz, outcome text,
  evidence text, duration_seconds numeric, month date, plan public.widget_plans, billable_seconds numeric, rule text
)
language plpgsql stable
set search_path = ''
as $$
begin
  return query
  select
    c.widget_id, c.session_id, c.call_id, c.started_at, c.ended_at, c.outcome, c.evidence, c.duration_seconds,
    c.month, c.plan, c.billable_seconds,
    case
      when c.why_not is not null then c.why_not
      when coalesce((c.plan).minimum_seconds, 0) = 0 and coalesce((c.plan).increment_seconds, 0) = 0
        then 'exact duration'
      else concat_ws(
        ', ', 'at least ' || nullif((c.plan).minimum_seconds, 0) || ' s',
        'in steps of ' || nullif((c.plan).increment_seconds, 0) || ' s'
      )
    end
    || coalesce(' (plan "' || (c.plan).name || '" from ' || left((c.plan).valid_from::text, 7) || ')', '')
    || case when c.evidence = 'operator' then coalesce(
      widget_internal.correction_note(c.widget_id, c.session_id, c.call_id, rated_calls.as_of), ''
    ) else '' end
  from widget_internal.priced_calls(
    rated_calls.period_start, rated_calls.period_end, rated_calls.as_of, rated_calls.only_sessions
  ) c;
end
$$;

comment on function widget_internal.rated_calls(timestamptz, timestamptz, timestamptz, widget_internal.session_name[]) is
  'priced_calls(), each with the rule that says how its plan came to its seconds.';


revoke all on function widget_internal.priced_calls(timestamptz, timestamptz, timestamptz, widget_internal.session_name[], boolean)
  from public, anon, authenticated, service_role;
grant execute on function widget_internal.priced_calls(timestamptz, timestamptz, timestamptz, widget_internal.session_name[], boolean)
  to authenticated, service_role;
