-- Closing a month: the bill as of one moment, written down once. Events may pour in meanwhile; they are not in it.

create function widget_internal.refuse_to_close(month date)
returns void
language plpgsql volatile
set search_path = ''
as $$
declare
  v_end constant timestamptz := (widget_internal.month_bounds(month)).period_end;
  v_earlier date;
begin
  if v_end > clock_timestamp() then
    raise exception 'period: % is not over before %', to_char(month, 'YYYY-MM'), v_end
      using errcode = 'invalid_parameter_value', hint = 'Close it then.';
  end if;

  select min(m.earlier) into v_earlier
  from (
    select distinct date_trunc('month', c.started_at at time zone s.billing_time_zone)::date as earlier
    from public.widget_calls c
    cross join widget_internal.settings s
    where c.started_at < (widget_internal.month_bounds(refuse_to_close.month)).period_start
  ) m
  where not exists (select from public.widget_billing_periods p where p.period = m.earlier);
  if v_earlier is not null then
    raise exception 'period: % has calls and is not closed', to_char(v_earlier, 'YYYY-MM')
      using errcode = 'invalid_parameter_value', hint = 'Close the earlier month first.';
  end if;
end
$$;

comment on function widget_internal.refuse_to_close(date) is
  'Raises unless the month is over, and all earlier months that have calls are closed.';


create function widget_internal.write_lines(month date, as_of timestamptz)
returns void
language plpgsql volatile
set search_path = ''
as $$
declare
  v_bounds constant record := widget_internal.month_bounds(write_lines.month);
begin
  insert into public.widget_statement_lines (
    period, usage_period, widget_id, session_id, call_id, started_at, ended_at, outcome, evidence, duration_seconds,
    old_seconds, new_seconds, rule
  )
  select write_lines.month, write_lines.month, r.widget_id, r.session_id, r.call_id, r.started_at, r.ended_at, r.outcome,
    r.evidence, r.duration_seconds, 0, r.billable_seconds, r.rule
  from widget_internal.rated_calls(v_bounds.period_start, v_bounds.period_end, write_lines.as_of) r;

  insert into public.widget_statement_lines (
    period, usage_period, widget_id, session_id, call_id, started_at, ended_at, outcome, evidence, duration_seconds,
    old_seconds, new_seconds, rule, event_ids
  )
  select write_lines.month, c.usage_period, c.widget_id, c.session_id, c.call_id, c.started_at, c.ended_at, c.outcome,
    c.evidence, c.duration_seconds, c.old_seconds, c.new_seconds, c.rule,
    widget_internal.late_events(c.widget_id, c.session_id, c.call_id, c.billed_as_of, write_lines.as_of)
  from widget_internal.late_changes(write_lines.month, write_lines.as_of) c;
end
$$;

comment on function widget_internal.write_lines(date, timestamptz) is
  'Writes a statement''s lines: the month''s calls, and the adjustments of earlier months.';


create function widget_internal.write_charges(month date)
returns void
language plpgsql volatile
set search_path = ''
as $$
begin
  insert into public.widget_statement_charges (
    period, widget_id, usage_period, plan_valid_from, included_seconds, price_per_minute, currency,
    old_seconds, new_seconds, old_amount, new_amount, content_hash
  )
  select
    write_charges.month, l.widget_id, l.usage_period, v.valid_from, coalesce((v.plan).included_seconds, 0),
    (v.plan).price_per_minute, (v.plan).currency,
    coalesce(b.seconds, 0), coalesce(b.seconds, 0) + l.difference_seconds,
    widget_internal.charge(coalesce(b.seconds, 0), v.plan),
    widget_internal.charge(coalesce(b.seconds, 0) + l.difference_seconds, v.plan), ''
  from (
    select n.widget_id, n.usage_period, sum(n.difference_seconds) as difference_seconds
    from public.widget_statement_lines n
    where n.period = write_charges.month
    group by n.widget_id, n.usage_period
  ) l
  left join (
    select c.widget_id, c.usage_period, sum(c.difference_seconds) as seconds
    from public.widget_statement_charges c
    group by c.widget_id, c.usage_period
  ) b on b.widget_id = l.widget_id and b.usage_period = l.usage_period
  left join widget_internal.plan_validity v
    on v.widget_id = l.widget_id and v.valid_from <= l.usage_period and l.usage_period < v.valid_until;
end
$$;

comment on function widget_internal.write_charges(date) is
  'Sums a statement''s lines up by widget and month of use, and prices what is billed now against what was before.';


create function public.close_widget_billing_period(period text)
returns table (
  month date, answer text, as_of timestamptz, closed_at timestamptz, closed_by text, content_hash text,
  calls bigint, adjustments bigint
)
language plpgsql volatile
-- definer because service_role has no right to write a statement
security definer
set search_path = ''
as $$
#variable_conflict use_column
declare
  v_month constant date := widget_internal.to_month(close_widget_billing_period.period);
  v_bounds constant record := widget_internal.month_bounds(v_month);
  v_claims constant jsonb := nullif(current_setting('request.jwt.claims', true), '')::jsonb;
  v_as_of timestamptz;
begin
  if current_setting('transaction_isolation') not in ('read committed', 'read uncommitted') then
    raise exception 'a month is closed in a read committed transaction only' using errcode = 'feature_not_supported';
  end if;

  -- Two closings at once: the second waits, and then finds the month closed.
  perform pg_advisory_xact_lock(widget_internal.closing_key());
  if not exists (select from public.widget_billing_periods p where p.period = v_month) then
    perform widget_internal.refuse_to_close(v_month);
    v_as_of := widget_internal.cut_off();
    perform widget_internal.write_lines(v_month, v_as_of);
    perform widget_internal.write_charges(v_month);
    insert into public.widget_billing_periods (period, period_start, period_end, as_of, closed_by, content_hash)
    values (
      v_month, v_bounds.period_start, v_bounds.period_end, v_as_of,
      concat_ws(' ', session_user, v_claims ->> 'role', v_claims ->> 'sub'), ''
    );
  end if;

  return query
  select
    p.period, case when v_as_of is null then 'was closed already; nothing was changed' else 'closed now' end,
    p.as_of, p.closed_at, p.closed_by, p.content_hash,
    count(l.period) filter (where l.usage_period = l.period), count(l.period) filter (where l.usage_period < l.period)
  from public.widget_billing_periods p
  left join public.widget_statement_lines l on l.period = p.period
  where p.period = v_month
  group by p.period;
end
$$;

comment on function public.close_widget_billing_period(text) is
  'Writes the statement of a month (2026-10) that is over, for all widgets: widget_billing_periods, its charges and its '
  'lines, which nothing changes afterwards. What later arrivals changed in earlier closed months is in it as adjustments. '
  'Closing again changes nothing and says so. Refused: a month that is not over, or has an earlier one with calls that '
  'is not closed (22023); a transaction that keeps writing events (55P03). There is no way to open it again.';

revoke all on function widget_internal.refuse_to_close(date) from public, anon, authenticated, service_role;
revoke all on function widget_internal.write_lines(date, timestamptz) from public, anon, authenticated, service_role;
revoke all on function widget_internal.write_charges(date) from public, anon, authenticated, service_role;
revoke all on function public.close_widget_billing_period(text) from public, anon, authenticated, service_role;
grant execute on function public.close_widget_billing_period(text) to service_role;
