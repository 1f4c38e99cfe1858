-- A bill is a pure function of calls, and of the moment as of which it is asked.

create function widget_internal.calls_as_of(period_start timestamptz, period_end timestamptz, as_of timestamptz)
returns table (
  widget_id uuid, session_id text, call_id text, started_at timestamptz, ended_at timestamptz, outcome text,
  evidence text, duration_seconds numeric
)
language plpgsql stable
set search_path = ''
as $$
begin
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
  )
  select s.widget_id, s.session_id::text, c.call_id::text, c.started_at, c.ended_at, c.outcome, c.evidence,
    extract(epoch from c.ended_at - c.started_at)
  from sessions s
  cross join lateral widget_internal.session_calls(s.widget_id, s.session_id, calls_as_of.as_of) c
  where c.started_at >= calls_as_of.period_start and c.started_at < calls_as_of.period_end;
end
$$;

comment on function widget_internal.calls_as_of(timestamptz, timestamptz, timestamptz) is
  'The calls that started in [period_start, period_end), by the events received as of a moment; null: by all there are.';


create function public.widget_billing_calls(
  period_start timestamptz, period_end timestamptz, as_of timestamptz default null
)
returns table (
  widget_id uuid, session_id text, call_id text, started_at timestamptz, ended_at timestamptz, outcome text,
  evidence text, duration_seconds numeric, billable_seconds numeric, rule text
)
language plpgsql stable
set search_path = ''
as $$
begin
  if widget_billing_calls.period_start is null or widget_billing_calls.period_end is null
    or widget_billing_calls.period_end <= widget_billing_calls.period_start
  then
    raise exception 'period_end: must be after period_start' using errcode = 'invalid_parameter_value';
  end if;

  return query
  select
    c.*,
    case c.outcome when 'completed' then c.duration_seconds else 0 end,
    case c.outcome
      when 'completed' then 'exact duration'
      when 'failed' then 'failed calls are not billed'
      else 'open calls are not billed yet'
    end
  from widget_internal.calls_as_of(
    widget_billing_calls.period_start, widget_billing_calls.period_end, widget_billing_calls.as_of
  ) c;
end
$$;

comment on function public.widget_billing_calls(timestamptz, timestamptz, timestamptz) is
  'The calls that started in [period_start, period_end), one row each: billable_seconds, and rule, which says why. '
  'as_of counts only events received by then, so that a past bill can be made again; left out: all events. '
  'Owners see their widgets'' calls, service_role all.';


create function public.widget_billing_usage(
  period_start timestamptz, period_end timestamptz, as_of timestamptz default null
)
returns table (
  widget_id uuid, calls bigint, billable_seconds numeric,
  observed_calls bigint, observed_seconds numeric, provider_calls bigint, provider_seconds numeric,
  operator_calls bigint, operator_seconds numeric, heartbeat_calls bigint, heartbeat_seconds numeric,
  assumed_calls bigint, assumed_seconds numeric, open_calls bigint, failed_calls bigint
)
language plpgsql stable
set search_path = ''
as $$
begin
  return query
  select
    c.widget_id, count(*), sum(c.billable_seconds),
    count(*) filter (where c.evidence = 'observed'),
    coalesce(sum(c.billable_seconds) filter (where c.evidence = 'observed'), 0),
    count(*) filter (where c.evidence = 'provider'),
    coalesce(sum(c.billable_seconds) filter (where c.evidence = 'provider'), 0),
    count(*) filter (where c.evidence = 'operator'),
    coalesce(sum(c.billable_seconds) filter (where c.evidence = 'operator'), 0),
    count(*) filter (where c.evidence = 'heartbeat'),
    coalesce(sum(c.billable_seconds) filter (where c.evidence = 'heartbeat'), 0),
    count(*) filter (where c.evidence = 'assumed'),
    coalesce(sum(c.billable_seconds) filter (where c.evidence = 'assumed'), 0),
    count(*) filter (where c.outcome = 'open'),
    count(*) filter (where c.outcome = 'failed')
  from public.widget_billing_calls(
    widget_billing_usage.period_start, widget_billing_usage.period_end, widget_billing_usage.as_of
  ) c
  group by c.widget_id;
end
$$;

comment on function public.widget_billing_usage(timestamptz, timestamptz, timestamptz) is
  'The sums of widget_billing_calls() per widget: all calls of the period, their billable seconds, and both by evidence.';

revoke all on function widget_internal.calls_as_of(timestamptz, timestamptz, timestamptz)
  from public, anon, authenticated, service_role;
revoke all on function public.widget_billing_calls(timestamptz, timestamptz, timestamptz)
  from public, anon, authenticated, service_role;
revoke all on function public.widget_billing_usage(timestamptz, timestamptz, timestamptz)
  from public, anon, authenticated, service_role;
grant execute on function widget_internal.calls_as_of(timestamptz, timestamptz, timestamptz)
  to authenticated, service_role;
grant execute on function widget_internal.session_calls(uuid, text, timestamptz) to authenticated, service_role;
grant execute on function public.widget_billing_calls(timestamptz, timestamptz, timestamptz)
  to authenticated, service_role;
grant execute on function public.widget_billing_usage(timestamptz, timestamptz, timestamptz)
  to authenticated, service_role;
