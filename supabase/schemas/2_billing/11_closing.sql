-- Closing a month: the bill as of one moment, written down once. Events may pour in meanwhile; they are not in it.

create function public.widget_months_to_close()
returns table (
  month date, period_start timestamptz, period_end timestamptz, settled_at timestamptz, has_calls boolean, has_fees boolean,
  closes_at timestamptz
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  perform widget_internal.refuse_visitors();
  return query
  select w.*
  from (
    select m.month, m.month_start, m.month_end, m.month_end + interval '7 days',
      exists (
        select from public.widget_calls c where c.started_at >= m.month_start and c.started_at < m.month_end
      ) as has_calls,
      exists (select from widget_internal.plans_in(m.month) p where p.monthly_fee > 0) as has_fees,
      m.month_end + s.close_months_after
    from widget_internal.billing_months('-infinity', clock_timestamp()) m
    cross join widget_internal.settings s
    where m.month_end <= clock_timestamp() and not m.is_closed
  ) w
  where w.has_calls or w.has_fees
  order by w.month;
end
$$;

comment on function public.widget_months_to_close() is
  'The months that are over, have calls or fees, and are not closed, the earliest first. Browsers'' events may come for '
  'seven days, until settled_at: closed earlier, more of a month becomes adjustments. closes_at: from when on the daily job '
  'closes it by itself; null: it does not, see schedule_widget_closing().';


create function widget_internal.write_lines(month date)
returns timestamptz
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set lock_timeout = '2s'
as $$
declare
  v_lines refcursor;
  v_changes refcursor;
  v_part public.widget_statement_lines[];
  v_changed widget_internal.compared_calls[];
  v_as_of timestamptz;
begin
  begin
    perform pg_advisory_lock(widget_internal.receipts_key());
  exception when lock_not_available then
    raise exception 'a transaction that writes events has been running for more than 2 seconds; nothing was changed'
      using errcode = 'lock_not_available', hint = 'Try again when it is over.';
  end;
  -- Cursors read what was committed when they were opened. Opened while writers are held up, for an instant, they read
  -- all that was received by then, and nothing else; writers go on while they are read.
  begin
    v_as_of := clock_timestamp();
    -- What this transaction takes in from now on is received later.
    perform set_config('widget_internal.receipt_time', '', true);
    open v_lines for
      select array_agg(l.line)
      from (
        select s::public.widget_statement_lines as line, (row_number() over () - 1) / 1000 as part
        from widget_internal.statement_lines(write_lines.month, v_as_of) s
      ) l
      group by l.part;
    open v_changes for
      select array_agg(c)
      from (
        select m.month from widget_internal.closed_months() m where m.month < write_lines.month
        union all
        select write_lines.month
      ) m
      cross join lateral widget_internal.changed_calls(m.month) c;
    perform pg_advisory_unlock(widget_internal.receipts_key());
  exception when query_canceled or others then
    perform pg_advisory_unlock(widget_internal.receipts_key());
    raise;
  end;

  loop
    fetch v_lines into v_part;
    exit when not found;
    insert into public.widget_statement_lines select l.* from unnest(v_part) l;
  end loop;
  fetch v_changes into v_changed;
  insert into widget_internal.compared_calls select c.* from unnest(v_changed) c
  on conflict on constraint calls_are_compared_by_widget_and_month do update set fingerprint = excluded.fingerprint;
  close v_lines;
  close v_changes;
  return v_as_of;
end
$$;

comment on function widget_internal.write_lines(date) is
  'Writes a statement''s lines: the month''s calls, and the adjustments of earlier months. Returns the moment by which all '
  'that was received is in them, and nothing else.';


create function public.close_widget_billing_period(period text)
returns table (
  month date, answer text, as_of timestamptz, closed_at timestamptz, closed_by text, content_hash text,
  calls bigint, adjustments bigint
)
language plpgsql volatile
-- definer because service_role has no right to write a statement
security definer
set search_path = pg_catalog, pg_temp
-- Set-returning functions are estimated at many times their rows, and compiling the plan takes a second.
set jit = off
as $$
#variable_conflict use_column
declare
  v_month constant date := widget_internal.to_month(close_widget_billing_period.period);
  v_claims constant jsonb := nullif(current_setting('request.jwt.claims', true), '')::jsonb;
  v_earlier record;
  v_charge public.widget_statement_charges;
  v_period public.widget_billing_periods;
begin
  perform widget_internal.refuse_visitors();
  -- Two closings at once: the second waits, and then finds the month closed.
  lock table public.widget_billing_periods in exclusive mode;
  if not exists (select from public.widget_billing_periods p where p.period = v_month) then
    v_period.period := v_month;
    select b.period_start, b.period_end into v_period.period_start, v_period.period_end
    from public.widget_billing_period(close_widget_billing_period.period) b;
    select m.* into v_earlier from public.widget_months_to_close() m where m.month < v_month limit 1;
    if current_setting('transaction_isolation') not in ('read committed', 'read uncommitted') then
      raise exception 'a month is closed in a read committed transaction only' using errcode = 'feature_not_supported';
    elsif v_period.period_end > clock_timestamp() then
      raise exception 'period: % is not over before %', to_char(v_month, 'YYYY-MM'), v_period.period_end
        using errcode = 'invalid_parameter_value', hint = 'Close it then.';
    elsif v_earlier.month is not null then
      raise exception 'period: % has % and is not closed',
        to_char(v_earlier.month, 'YYYY-MM'), case when v_earlier.has_calls then 'calls' else 'fees' end
        using errcode = 'invalid_parameter_value', hint = 'Close the earlier month first.';
    end if;
    perform widget_internal.call_hooks('before_closing');
    perform set_config('widget_internal.is_closing', 'on', true);
    v_period.as_of := widget_internal.write_lines(v_month);
    v_period.closed_at := clock_timestamp();
    v_period.closed_by := concat_ws(' ', session_user, v_claims ->> 'role', v_claims ->> 'sub');
    for v_charge in select c.* from widget_internal.statement_charges(v_month, true) c loop
      v_charge.content_hash := widget_internal.charge_hash(v_charge);
      insert into public.widget_statement_charges values (v_charge.*);
    end loop;
    v_period.content_hash := widget_internal.period_hash(v_period);
    insert into public.widget_billing_periods values (v_period.*);
    perform set_config('widget_internal.is_closing', '', true);
  end if;

  return query
  select
    p.period, case when v_period is null then 'was closed already; nothing was changed' else 'closed now' end,
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
  'Closing again changes nothing and says so. Refused: a month that is not over, or has an earlier one with calls or fees '
  'that is not closed (22023); a transaction that keeps writing events (55P03). There is no way to open it again.';
