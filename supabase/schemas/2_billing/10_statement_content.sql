-- What the statement of a month would hold, if it were closed now.

create function widget_internal.statement_lines(month date, as_of timestamptz)
returns setof public.widget_statement_lines
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select statement_lines.month, r.widget_id, statement_lines.month, r.session_id, r.call_id, r.started_at, r.ended_at,
    r.outcome, r.evidence, r.duration_seconds, 0::numeric, r.billable_seconds, r.billable_seconds, r.rule, '{}'::uuid[]
  from widget_internal.priced_calls(statement_lines.month) r
  union all
  select c.* from widget_internal.late_changes(statement_lines.month, events_until => statement_lines.as_of) c;
end
$$;

comment on function widget_internal.statement_lines(date, timestamptz) is
  'What the statement of a month would hold now: its calls, and the adjustments of earlier months, with the events that '
  'were received by as_of.';


create function widget_internal.statement_charges(month date, is_written boolean)
returns setof public.widget_statement_charges
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select
    statement_charges.month, n.widget_id, n.usage_period, p.valid_from, p.monthly_fee, coalesce(p.included_seconds, 0),
    p.price_per_minute, p.currency, b.seconds, b.seconds + n.seconds, n.seconds, a.old_amount, a.new_amount,
    a.new_amount - a.old_amount, ''
  from (
    select u.widget_id, u.usage_period, sum(u.seconds) as seconds
    from (
      select l.widget_id, l.usage_period, l.difference_seconds
      from public.widget_statement_lines l
      where statement_charges.is_written and l.period = statement_charges.month
      union all
      select l.widget_id, l.usage_period, l.difference_seconds
      from widget_internal.statement_lines(statement_charges.month, null) l
      where not statement_charges.is_written
      union all
      select f.widget_id, statement_charges.month, 0
      from widget_internal.plans_in(statement_charges.month) f where f.monthly_fee > 0
    ) u (widget_id, usage_period, seconds)
    group by u.widget_id, u.usage_period
  ) n
  cross join lateral (
    select coalesce(sum(c.difference_seconds), 0) as seconds, coalesce(sum(c.difference_amount), 0) as amount
    from public.widget_statement_charges c
    where c.usage_period = n.usage_period and c.widget_id = n.widget_id
  ) b
  left join lateral (
    select l.*, l as plan from public.widget_plans l
    where l.widget_id = n.widget_id and l.valid_from <= n.usage_period
    order by l.valid_from desc
    limit 1
  ) p on true
  cross join lateral (
    select round(b.amount, widget_internal.currency_decimals(p.currency)) as old_amount,
      widget_internal.charge(b.seconds + n.seconds, p.plan) as new_amount
  ) a;
end
$$;

comment on function widget_internal.statement_charges(date, boolean) is
  'The charges of a month''s statement, without their hashes: its lines, those that are written or those that it would '
  'have now, summed up by widget and month of use, with the fees, and what is billed now priced against what was before.';


create function public.widget_statement_preview(period text)
returns setof public.widget_statement_charges
language plpgsql volatile
set search_path = pg_catalog, pg_temp
-- Set-returning functions are estimated at many times their rows, and compiling the plan takes a second.
set jit = off
as $$
declare
  v_month constant date := widget_internal.to_month(widget_statement_preview.period);
begin
  if exists (select from widget_internal.closed_months() m where m.month = v_month) then
    raise exception 'period: % is closed', widget_statement_preview.period
      using errcode = 'invalid_parameter_value', hint = 'Read widget_statement_charges.';
  end if;
  return query select c.* from widget_internal.statement_charges(v_month, false) c;
end
$$;

comment on function public.widget_statement_preview(text) is
  'The charges that closing a month (2026-10) now would write. Owners see their widgets'', service_role all.';
