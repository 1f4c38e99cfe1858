-- A bill is a pure function of calls, of the plans that they fall under, and of the moment as of which it is asked.

create type widget_internal.session_name as (widget_id uuid, session_id text);

comment on type widget_internal.session_name is 'A session: its widget, and the name that its sender gave it.';


create function widget_internal.calls_as_of(
  period_start timestamptz, period_end timestamptz, as_of timestamptz,
  only_sessions widget_internal.session_name[] default null
)
returns table (
  widget_id uuid, session_id text, call_id text, started_at timestamptz, ended_at timestamptz, outcome text,
  evidence text, duration_seconds numeric
)
language plpgsql stable
set search_path = ''
as $$
begin
  if calls_as_of.period_start is null or calls_as_of.period_end is null
    or calls_as_of.period_end <= calls_as_of.period_start
  then
    raise exception 'period_end: must be after period_start' using errcode = 'invalid_parameter_value';
  end if;

  if calls_as_of.as_of is null then
    return query
    select c.widget_id, c.session_id::text, c.call_id::text, c.started_at, c.ended_at, c.outcome, c.evidence,
      c.duration_seconds
    from public.widget_calls c
    where c.started_at >= calls_as_of.period_start and c.started_at < calls_as_of.period_end;
    return;
  end if;

  return query
  with sessions as (
    -- A call starts with its earliest call_start, so a session with none in the period has no call in it.
    select distinct e.widget_id, e.session_id
    from public.widget_analytics e
    where e.event_type = 'call_start'
      and e."timestamp" >= calls_as_of.period_start
      and e."timestamp" < calls_as_of.period_end
      and e.received_at <= calls_as_of.as_of
      and calls_as_of.only_sessions is null
    union all
    select o.widget_id, o.session_id from unnest(calls_as_of.only_sessions) o
  )
  select s.widget_id, s.session_id::text, c.call_id::text, c.started_at, c.ended_at, c.outcome, c.evidence,
    extract(epoch from c.ended_at - c.started_at)
  from sessions s
  cross join lateral widget_internal.session_calls(s.widget_id, s.session_id, calls_as_of.as_of) c
  where c.started_at >= calls_as_of.period_start and c.started_at < calls_as_of.period_end;
end
$$;

comment on function widget_internal.calls_as_of(timestamptz, timestamptz, timestamptz, widget_internal.session_name[]) is
  'The calls that started in [period_start, period_end), by the events received as of a moment, of all sessions or '
  'of some. as_of null: all sessions'' calls as they are kept.';


create function widget_internal.correction_note(widget_id uuid, session_id text, call_id text, as_of timestamptz)
returns text
language plpgsql stable
set search_path = ''
as $$
begin
  return (
    select '; set by ' || (e.properties ->> 'corrected_by') || ': ' || (e.properties ->> 'reason')
    from widget_internal.session_calls(
      correction_note.widget_id, correction_note.session_id, coalesce(correction_note.as_of, 'infinity')
    ) c
    join public.widget_analytics e on e.id = c.ended_by and e.widget_id = correction_note.widget_id
    where c.call_id = correction_note.call_id
  );
end
$$;

comment on function widget_internal.correction_note(uuid, text, text, timestamptz) is
  'Who corrected a call and why, to be added to its rule; null where its end does not say.';


create function widget_internal.rated_calls(
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
declare
  v_zone constant text := (select s.billing_time_zone from widget_internal.settings s);
begin
  -- One expression over all calls, as a function for each would take ten times as long.
  return query
  with calls as (
    select
      a.*, v.plan, date_trunc('month', a.started_at at time zone v_zone)::date as month,
      case
        when a.outcome = 'open' then 'open calls are not billed yet'
        -- Before any minimum: an operator who sets a call to nothing means that it costs nothing.
        when a.evidence = 'operator' and a.duration_seconds = 0 then 'void'
        when a.outcome = 'failed' and (v.plan).bills_failed_calls is not true then 'failed calls are not billed'
        when a.evidence = 'assumed' and (v.plan).assumed_calls = 'none' then 'assumed ends are not billed'
      end as why_not,
      coalesce((v.plan).minimum_seconds, 0) as minimum,
      coalesce((v.plan).increment_seconds, 0) as increment
    from widget_internal.calls_as_of(
      rated_calls.period_start, rated_calls.period_end, rated_calls.as_of, rated_calls.only_sessions
    ) a
    left join widget_internal.plan_validity v
      on v.widget_id = a.widget_id
      and date_trunc('month', a.started_at at time zone v_zone)::date >= v.valid_from
      and date_trunc('month', a.started_at at time zone v_zone)::date < v.valid_until
  )
  select
    c.widget_id, c.session_id, c.call_id, c.started_at, c.ended_at, c.outcome, c.evidence, c.duration_seconds,
    c.month, c.plan,
    case
      when c.why_not is not null then 0
      when c.increment > 0 then ceil(greatest(c.duration_seconds, c.minimum) / c.increment) * c.increment
      else greatest(c.duration_seconds, c.minimum)
    end,
    case
      when c.why_not is not null then c.why_not
      when c.minimum = 0 and c.increment = 0 then 'exact duration'
      else concat_ws(
        ', ', 'at least ' || nullif(c.minimum, 0) || ' s', 'in steps of ' || nullif(c.increment, 0) || ' s'
      )
    end
    || coalesce(' (plan "' || (c.plan).name || '" from ' || left((c.plan).valid_from::text, 7) || ')', '')
    || case when c.evidence = 'operator' then coalesce(
      widget_internal.correction_note(c.widget_id, c.session_id, c.call_id, rated_calls.as_of), ''
    ) else '' end
  from calls c;
end
$$;

comment on function widget_internal.rated_calls(timestamptz, timestamptz, timestamptz, widget_internal.session_name[]) is
  'calls_as_of(), each with its billing month, the plan that holds then, and what that plan makes of it.';

revoke all on function widget_internal.calls_as_of(timestamptz, timestamptz, timestamptz, widget_internal.session_name[])
  from public, anon, authenticated, service_role;
revoke all on function widget_internal.correction_note(uuid, text, text, timestamptz)
  from public, anon, authenticated, service_role;
revoke all on function widget_internal.rated_calls(timestamptz, timestamptz, timestamptz, widget_internal.session_name[])
  from public, anon, authenticated, service_role;
grant execute on function widget_internal.session_calls(uuid, text, timestamptz) to authenticated, service_role;
grant execute on function widget_internal.calls_as_of(timestamptz, timestamptz, timestamptz, widget_internal.session_name[])
  to authenticated, service_role;
grant execute on function widget_internal.correction_note(uuid, text, text, timestamptz)
  to authenticated, service_role;
grant execute on function widget_internal.rated_calls(timestamptz, timestamptz, timestamptz, widget_internal.session_name[])
  to authenticated, service_role;
