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
