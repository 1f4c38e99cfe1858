-- A bill of months in the archive would lack what left. It says so instead; statements of closed months stay here.

create function widget_internal.last_archived_month()
returns date
language plpgsql stable
-- definer because who asks for a bill need not see where archives are
security definer
set search_path = ''
as $$
begin
  return (select coalesce(max(a.month), '-infinity') from public.widget_archives a where a.manifest_hash is not null);
end
$$;

comment on function widget_internal.last_archived_month() is
  'Sessions that ended by the end of this month may have left the ledger; -infinity: none has.';


create function widget_internal.refuse_archived_period(period_start timestamptz)
returns void
language plpgsql stable
set search_path = ''
as $$
declare
  v_month constant date := widget_internal.last_archived_month();
begin
  if isfinite(v_month) and refuse_archived_period.period_start < (widget_internal.month_bounds(v_month)).period_end then
    raise exception 'period_start: the calls up to the end of % are in the archive, no longer in this database',
      to_char(v_month, 'YYYY-MM')
      using errcode = 'invalid_parameter_value', hint = 'The statements of closed months are still here. For all else '
        'of these months: widget-analytics bill --archive PLACE --month YYYY-MM';
  end if;
end
$$;

comment on function widget_internal.refuse_archived_period(timestamptz) is
  'Raises for a period that begins in the archive: what is left here of it would be too small a bill.';

revoke all on function widget_internal.last_archived_month() from public, anon, authenticated, service_role;
revoke all on function widget_internal.refuse_archived_period(timestamptz) from public, anon, authenticated, service_role;
grant execute on function widget_internal.last_archived_month() to authenticated, service_role;
grant execute on function widget_internal.refuse_archived_period(timestamptz) to authenticated, service_role;


create or replace function public.widget_billing_calls(
  period_start timestamptz, period_end timestamptz, as_of timestamptz default null
)
returns table (
  widget_id uuid, session_id text, call_id text, started_at timestamptz, ended_at timestamptz, outcome text,
  evidence text, duration_seconds numeric, billable_seconds numeric, rule text, amount numeric, currency text
)
language plpgsql stable
set search_path = ''
as $$
begin
  perform widget_internal.refuse_archived_period(widget_billing_calls.period_start);
  return query
  select
    c.widget_id, c.session_id, c.call_id, c.started_at, c.ended_at, c.outcome, c.evidence, c.duration_seconds,
    c.billable_seconds, c.rule, round(c.billable_seconds * (c.plan).price_per_minute / 60, 6), (c.plan).currency
  from widget_internal.rated_calls(
    widget_billing_calls.period_start, widget_billing_calls.period_end,
    widget_internal.counted_as_of(widget_billing_calls.as_of)
  ) c;
end
$$;


create or replace function widget_internal.late_changes(before date, as_of timestamptz)
returns table (
  usage_period date, widget_id uuid, session_id text, call_id text, started_at timestamptz, ended_at timestamptz,
  outcome text, evidence text, duration_seconds numeric, old_seconds numeric, new_seconds numeric, rule text,
  billed_as_of timestamptz
)
language plpgsql stable
set search_path = ''
as $$
declare
  v_last_archived constant date := widget_internal.last_archived_month();
  v_changed widget_internal.session_name[];
begin
  -- The calls as they are kept tell which sessions to look at; the ledger, what they were as of that moment.
  select array_agg(distinct (d.widget_id, d.session_id)::widget_internal.session_name) into v_changed
  from (
    select c.widget_id, c.session_id
    from (
      select r.widget_id, r.session_id, r.call_id, r.month as usage_period, r.billable_seconds as seconds
      from widget_internal.priced_calls('-infinity', 'infinity', null) r
      join public.widget_billing_periods p on p.period = r.month
      union all
      select l.widget_id, l.session_id, l.call_id, l.usage_period, -l.difference_seconds
      from public.widget_statement_lines l
      where l.usage_period > v_last_archived
      union all
      -- A session in the archive was billed in full when it left. Those that are still here, or here again, may change.
      select l.widget_id, l.session_id, l.call_id, l.usage_period, -l.difference_seconds
      from public.widget_statement_lines l
      join (select distinct k.widget_id, k.session_id from public.widget_calls k) k
        on k.widget_id = l.widget_id and k.session_id = l.session_id
      where l.usage_period <= v_last_archived
    ) c
    where c.usage_period < late_changes.before
    group by c.widget_id, c.session_id, c.call_id, c.usage_period
    having sum(c.seconds) <> 0
  ) d;

  return query
  with billed as (
    select l.usage_period, l.widget_id, l.session_id, l.call_id, min(l.started_at) as started_at,
      sum(l.difference_seconds) as seconds, max(p.as_of) as as_of
    from unnest(v_changed) s
    join public.widget_statement_lines l on l.widget_id = s.widget_id and l.session_id = s.session_id
    join public.widget_billing_periods p on p.period = l.period
    where l.usage_period < late_changes.before
    group by 1, 2, 3, 4
  ),
  rated as (
    select p.period as usage_period, p.as_of, r.*
    from widget_internal.rated_calls(
      '-infinity', 'infinity', coalesce(late_changes.as_of, 'infinity'), coalesce(v_changed, '{}')
    ) r
    join public.widget_billing_periods p on p.period = r.month
    where p.period < late_changes.before
  )
  select
    coalesce(r.usage_period, b.usage_period), coalesce(r.widget_id, b.widget_id),
    coalesce(r.session_id, b.session_id)::text, coalesce(r.call_id, b.call_id)::text,
    coalesce(r.started_at, b.started_at), r.ended_at, r.outcome, r.evidence, r.duration_seconds,
    coalesce(b.seconds, 0), coalesce(r.billable_seconds, 0),
    coalesce(r.rule, 'no longer a call of this month'), coalesce(b.as_of, r.as_of)
  from rated r
  full join billed b on b.widget_id = r.widget_id and b.session_id = r.session_id and b.call_id = r.call_id
    and b.usage_period = r.usage_period
  where coalesce(r.billable_seconds, 0) <> coalesce(b.seconds, 0);
end
$$;
