-- What finance asks: the calls of a period, each with its bill, and their sums. Of an open month they say what the ledger
-- says now, of a closed one what was charged for it.

create function public.widget_billing_calls(
  period_start timestamptz, period_end timestamptz, as_of timestamptz default null, only_widget uuid default null
)
returns table (
  widget_id uuid, session_id text, call_id text, started_at timestamptz, ended_at timestamptz, outcome text,
  evidence text, duration_seconds numeric, billable_seconds numeric, rule text, amount numeric, currency text,
  is_closed boolean
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
-- Set-returning functions are estimated at many times their rows, and compiling the plan takes a second.
set jit = off
as $$
begin
  return query
  with months as materialized (
    select m.* from widget_internal.billing_months(
      widget_billing_calls.period_start, widget_billing_calls.period_end, widget_billing_calls.as_of is null
    ) m
  ),
  plans as (
    select m.month, p.* from months m cross join lateral widget_internal.plans_in(m.month) p
  )
  select
    c.widget_id, c.session_id, c.call_id, c.started_at, c.ended_at, c.outcome, c.evidence, c.duration_seconds,
    c.billable_seconds, c.rule, round(c.billable_seconds * p.price_per_minute / 60, 6), p.currency, m.is_closed
  from months m
  cross join lateral (
    select r.widget_id, r.session_id, r.call_id, r.started_at, r.ended_at, r.outcome, r.evidence, r.duration_seconds,
      r.billable_seconds, r.rule
    from widget_internal.priced_calls(
      m.month, m.from_at, m.to_at, widget_billing_calls.as_of, widget_billing_calls.only_widget
    ) r
    where not m.is_closed
    union all
    select l.widget_id, l.session_id, l.call_id, l.started_at, l.ended_at, l.outcome, l.evidence, l.duration_seconds,
      l.new_seconds, l.rule
    from widget_internal.billed_calls(m.month, m.from_at, m.to_at, widget_billing_calls.only_widget) l
    where m.is_closed and l.outcome is not null
  ) c
  left join plans p on p.month = m.month and p.widget_id = c.widget_id;
end
$$;

comment on function public.widget_billing_calls(timestamptz, timestamptz, timestamptz, uuid) is
  'The calls that started in [period_start, period_end), one row each: billable_seconds, and rule, which says why. '
  'amount: these seconds at the plan''s price, to six decimals; fees, included seconds and the rounding of money come in '
  'where a month is summed up, in widget_billing_usage(). as_of counts only events received by then, so that a past bill '
  'can be made again. Left out: all events, but of a closed month what was charged (is_closed). Owners see their '
  'widgets'' calls, service_role all.';


create function public.widget_billing_calls_csv(
  period_start timestamptz, period_end timestamptz, as_of timestamptz default null, widgets uuid[] default null,
  after text[] default null, most integer default 10000
)
returns json
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_time constant text := 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"';
begin
  return (
    select
      coalesce(json_agg(
        -- No other cell can need quotes.
        case when concat(c.session_id, c.call_id, c.rule) !~ '[",\r\n]'
          then array_to_string(l.cells, ',')
          else (
            select string_agg(case when u.cell ~ '[",\r\n]' then '"' || replace(u.cell, '"', '""') || '"' else u.cell end, ',')
            from unnest(l.cells) u (cell)
          )
        end
      ), '[]')
    from (
      select b.*
      from public.widget_billing_calls(
        widget_billing_calls_csv.period_start, widget_billing_calls_csv.period_end, widget_billing_calls_csv.as_of,
        case when cardinality(widget_billing_calls_csv.widgets) = 1 then widget_billing_calls_csv.widgets[1] end
      ) b
      where (widget_billing_calls_csv.widgets is null or b.widget_id = any (widget_billing_calls_csv.widgets))
        and (
          widget_billing_calls_csv.after is null
          or (b.started_at, b.widget_id, b.session_id, b.call_id) > (
            widget_billing_calls_csv.after[1]::timestamptz, widget_billing_calls_csv.after[2]::uuid,
            widget_billing_calls_csv.after[3], widget_billing_calls_csv.after[4]
          )
        )
      order by b.started_at, b.widget_id, b.session_id, b.call_id
      limit widget_billing_calls_csv.most
    ) c
    cross join lateral (
      select array[
        c.widget_id::text, c.session_id, c.call_id,
        to_char(c.started_at at time zone 'UTC', v_time), coalesce(to_char(c.ended_at at time zone 'UTC', v_time), ''),
        c.outcome, coalesce(c.evidence, ''), coalesce(c.duration_seconds::text, ''), c.billable_seconds::text, c.rule,
        coalesce(c.amount::text, ''), coalesce(c.currency, ''), c.is_closed::text
      ]
    ) l (cells)
  );
end
$$;

comment on function public.widget_billing_calls_csv(timestamptz, timestamptz, timestamptz, uuid[], text[], integer) is
  'The same for exports, as one value, which no limit of rows cuts short: an array of lines of CSV, without a header, whose '
  'cells are the columns above in their order, times in UTC. The first calls by started_at, widget_id, session_id and '
  'call_id; after: only those behind the call with these four. Fewer than most: there are no more.';
