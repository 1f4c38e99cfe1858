-- Made by scripts/baseline from schemas/4_page/01_usage.sql, schemas/4_page/02_call_list.sql, schemas/4_page/03_call_story.sql, schemas/4_page/04_traffic.sql, schemas/4_page/05_statements.sql, schemas/4_page/90_rights.sql.

-- The owners' page asks for sums that are small however many calls there are: by day, and month against month.

create function public.widget_daily_usage(
  period_start timestamptz, period_end timestamptz, only_widget uuid default null
)
returns table (
  day date, calls bigint, billable_seconds numeric,
  observed_calls bigint, observed_seconds numeric, provider_calls bigint, provider_seconds numeric,
  operator_calls bigint, operator_seconds numeric, heartbeat_calls bigint, heartbeat_seconds numeric,
  assumed_calls bigint, assumed_seconds numeric, open_calls bigint, failed_calls bigint
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
-- What a bill is made of is estimated at many times its rows, and compiling it takes a second.
set jit = off
as $$
declare
  v_zone constant text := (select s.billing_time_zone from widget_internal.settings s);
begin
  return query
  select
    (c.started_at at time zone v_zone)::date, count(*), sum(c.billable_seconds),
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
    count(*) filter (where c.outcome = 'open'), count(*) filter (where c.outcome = 'failed')
  from public.widget_billing_calls(
    widget_daily_usage.period_start, widget_daily_usage.period_end, only_widget => widget_daily_usage.only_widget
  ) c
  group by 1
  order by 1;
end
$$;

comment on function public.widget_daily_usage(timestamptz, timestamptz, uuid) is
  'widget_billing_usage() by day instead of by widget: one row for each day of the billing time zone that has calls. '
  'only_widget: of that widget alone; left out: of all that the caller may see.';


create function public.widget_month_to_date(only_widget uuid default null)
returns table (
  month date, period_start timestamptz, period_end timestamptz, to_date_end timestamptz,
  calls bigint, billable_seconds numeric, amounts jsonb,
  calls_to_date bigint, billable_seconds_to_date numeric, is_closed boolean
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
-- What a bill is made of is estimated at many times its rows, and compiling it takes a second.
set jit = off
as $$
declare
  v_month constant date := widget_internal.month_of(now());
  v_age constant interval := now() - widget_internal.month_start(v_month);
begin
  return query
  select b.month, b.period_start, b.period_end, b.to_date_end, u.calls, u.seconds, u.amounts, t.calls, t.seconds,
    b.month in (select c.month from widget_internal.closed_months() c)
  from (
    select m.month::date, s.at as period_start, e.at as period_end, least(s.at + v_age, e.at) as to_date_end
    from unnest(array[(v_month - interval '1 month')::date, v_month]) m (month)
    cross join lateral widget_internal.month_start(m.month) s (at)
    cross join lateral widget_internal.month_start(m.month + interval '1 month') e (at)
  ) b
  cross join lateral (
    select coalesce(sum(c.calls), 0)::bigint as calls, coalesce(sum(c.seconds), 0) as seconds,
      coalesce(jsonb_object_agg(c.currency, c.amount) filter (where c.currency is not null), '{}') as amounts
    from (
      select w.currency, sum(w.calls) as calls, sum(w.billable_seconds) as seconds, sum(w.amount) as amount
      from public.widget_billing_usage(
        b.period_start, b.period_end, only_widget => widget_month_to_date.only_widget
      ) w
      group by w.currency
    ) c
  ) u
  cross join lateral (
    select coalesce(sum(w.calls), 0)::bigint as calls, coalesce(sum(w.billable_seconds), 0) as seconds
    from public.widget_billing_usage(
      b.period_start, greatest(b.to_date_end, b.period_start + interval '1 microsecond'),
      only_widget => widget_month_to_date.only_widget
    ) w
  ) t
  order by b.month;
end
$$;

comment on function public.widget_month_to_date(uuid) is
  'Last month and this one, as billed by now: calls, billable seconds, and amounts by currency of the widgets that have a '
  'plan; of all that the caller may see or of only_widget. …_to_date: those of the month up to to_date_end, as far into it '
  'as this month is now, so that the two compare.';


-- The owners' page lists calls, latest first, page by page.

create function widget_internal.listed_calls(
  period_start timestamptz, period_end timestamptz, only_widget uuid, only_calls text, after_call jsonb, page_size integer
)
returns table (started_at timestamptz, widget_id uuid, session_id text, call_id text)
language plpgsql stable
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_custom_plan
as $$
#variable_conflict use_column
declare
  v_after constant jsonb := listed_calls.after_call;
  v_end constant timestamptz := least(
    listed_calls.period_end, (v_after ->> 0)::timestamptz + interval '1 microsecond'
  );
begin
  if v_end <= listed_calls.period_start then
    return;
  end if;
  return query
  with months as materialized (
    select m.* from widget_internal.billing_months(listed_calls.period_start, v_end) m
  )
  select k.started_at, k.widget_id, k.session_id, k.call_id
  from (
    -- Widget by widget, each from its own end of the index: a page costs the same at any size of the table.
    select c.started_at, c.widget_id, c.session_id, c.call_id
    from months m
    cross join widget_internal.owned_widget_ids() w (id)
    cross join lateral (
      select s.started_at, s.widget_id, s.session_id, s.call_id
      from widget_internal.call_states s
      where s.widget_id = w.id and s.started_at >= m.from_at and s.started_at < m.to_at
        and (v_after is null or (s.started_at, s.widget_id, s.session_id, s.call_id)
          < ((v_after ->> 0)::timestamptz, (v_after ->> 1)::uuid, v_after ->> 2, v_after ->> 3))
        and (listed_calls.only_calls is null or listed_calls.only_calls in (s.outcome, s.evidence))
      order by s.started_at desc, s.session_id desc, s.call_id desc
      limit listed_calls.page_size
    ) c
    where not m.is_closed and (listed_calls.only_widget is null or w.id = listed_calls.only_widget)
    union all
    select l.started_at, l.widget_id, l.session_id, l.call_id
    from months m
    cross join lateral widget_internal.billed_calls(m.month, m.from_at, m.to_at, listed_calls.only_widget) l
    where m.is_closed
      and (v_after is null or (l.started_at, l.widget_id, l.session_id, l.call_id)
        < ((v_after ->> 0)::timestamptz, (v_after ->> 1)::uuid, v_after ->> 2, v_after ->> 3))
      and l.outcome is not null
      and (listed_calls.only_calls is null or listed_calls.only_calls in (l.outcome, l.evidence))
  ) k
  order by k.started_at desc, k.widget_id desc, k.session_id collate "C" desc, k.call_id collate "C" desc
  limit listed_calls.page_size;
end
$$;

comment on function widget_internal.listed_calls(timestamptz, timestamptz, uuid, text, jsonb, integer) is
  'Which calls of widget_billing_calls() make a page of the list: the latest of a period after a call [started_at, '
  'widget_id, session_id, call_id].';


create function public.widget_call_list(
  period_start timestamptz, period_end timestamptz, only_widget uuid default null, only_calls text default null,
  after_cursor text default null, page_size integer default 50
)
returns table (
  widget_id uuid, session_id text, call_id text, started_at timestamptz, ended_at timestamptz, outcome text,
  evidence text, duration_seconds numeric, billable_seconds numeric, rule text, amount numeric, currency text,
  is_closed boolean, cursor text
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
-- What a bill is made of is estimated at many times its rows, and compiling it takes a second.
set jit = off
as $$
#variable_conflict use_column
begin
  if not coalesce(widget_call_list.page_size between 1 and 1000, false) then
    raise exception 'page_size: must be 1 to 1000' using errcode = 'invalid_parameter_value';
  end if;

  return query
  with keys as materialized (
    select l.* from widget_internal.listed_calls(
      widget_call_list.period_start, widget_call_list.period_end, widget_call_list.only_widget,
      widget_call_list.only_calls, widget_call_list.after_cursor::jsonb, widget_call_list.page_size
    ) l
  ),
  -- All calls of a time stand in the list one after the other, and are priced together; some of them one by one.
  parts as (
    select min(k.started_at) as from_at, max(k.started_at) as to_at, widget_call_list.only_widget as widget_id
    from keys k
    where widget_call_list.only_calls is null
    having count(*) > 0
    union
    select k.started_at, k.started_at, k.widget_id from keys k where widget_call_list.only_calls is not null
  )
  select b.*, jsonb_build_array(b.started_at, b.widget_id, b.session_id, b.call_id)::text
  from parts p
  cross join lateral public.widget_billing_calls(
    p.from_at, p.to_at + interval '1 microsecond', only_widget => p.widget_id
  ) b
  join keys k
    on k.widget_id = b.widget_id and k.session_id = b.session_id collate "C" and k.call_id = b.call_id collate "C"
  order by b.started_at desc, b.widget_id desc, b.session_id collate "C" desc, b.call_id collate "C" desc;
end
$$;

comment on function public.widget_call_list(timestamptz, timestamptz, uuid, text, text, integer) is
  'Rows of widget_billing_calls(), latest first, page by page: the next page is the one after the cursor of the last row. '
  'only_widget: of that widget alone. only_calls: of one outcome or one evidence alone, such as failed or assumed.';


-- The owners' page shows of each call how its bill came about.

create function public.widget_call_story(widget_id uuid, session_id text, call_id text)
returns jsonb
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_custom_plan
-- What a bill is made of is estimated at many times its rows, and compiling it takes a second.
set jit = off
as $$
declare
  v_call widget_internal.call_states;
  v_heartbeat_at timestamptz;
  v_end_claim bigint[];
  v_bill jsonb;
begin
  select c.* into v_call
  from widget_internal.call_states c
  where c.widget_id = widget_call_story.widget_id and c.session_id = widget_call_story.session_id
    and c.call_id = widget_call_story.call_id and c.started_at is not null;
  if not found then
    return null;
  end if;
  v_heartbeat_at := greatest(v_call.heartbeat_at, v_call.matched_heartbeat_at);
  v_end_claim := greatest(v_call.end_claim, v_call.matched_end_claim);

  -- A closed month bills the call by the start that it had then.
  select to_jsonb(b) into v_bill
  from (
    select v_call.started_at as started_at
    union
    select l.started_at from public.widget_statement_lines l
    where l.widget_id = v_call.widget_id and l.session_id = v_call.session_id and l.call_id = v_call.call_id
  ) s
  cross join lateral public.widget_billing_calls(
    s.started_at, s.started_at + interval '1 microsecond', only_widget => v_call.widget_id
  ) b
  where b.session_id = v_call.session_id and b.call_id = v_call.call_id;

  return coalesce(v_bill, jsonb_build_object(
    'widget_id', v_call.widget_id, 'session_id', v_call.session_id, 'call_id', v_call.call_id,
    'started_at', v_call.started_at, 'ended_at', v_call.ended_at, 'outcome', v_call.outcome, 'evidence', v_call.evidence,
    'duration_seconds', extract(epoch from v_call.ended_at - v_call.started_at), 'billable_seconds', 0,
    'rule', 'came after its month was closed; the next statement bills it', 'amount', null, 'currency', null,
    'is_closed', true
  )) || (
    select jsonb_build_object(
      'ended_by', (array_agg(e.id) filter (where e.believed))[1],
      'last_heartbeat_at', v_heartbeat_at,
      'is_capped', (
        select coalesce(v_call.ended_at >= v_call.started_at + s.max_call_duration, false) from widget_internal.settings s
      ),
      'events', coalesce(jsonb_agg(to_jsonb(e) - 'widget_id' - 'believed' order by e."timestamp", e.seq, e.id), '[]')
    )
    from (
      select v.*, case
        -- A browser's end that heartbeats outlive was none.
        when v_call.evidence = 'heartbeat' and (widget_internal.event_sources())[v_end_claim[1]] = 'browser'
          then v.event_type = 'call_heartbeat' and v."timestamp" = v_heartbeat_at
        else v.event_type in ('call_end', 'call_error')
          and widget_internal.claim(v.event_type, v.source, v.received_at, v."timestamp") = v_end_claim
      end as believed
      from public.widget_analytics v
      where v.widget_id = v_call.widget_id
        and v."timestamp" between v_call.started_at - interval '2 hours' and v_call.last_event_at
        and v.session_id = v_call.session_id
        and case
          when v.event_type in ('widget_load', 'widget_open') then v."timestamp" <= v_call.started_at
          else v."timestamp" >= v_call.first_event_at
            and (v.call_id = v_call.call_id or v.call_id is null and v_call.matched_start_claim is not null)
        end
    ) e
  );
end
$$;

comment on function public.widget_call_story(uuid, text, text) is
  'One call: its row of widget_billing_calls() with ended_by (the event that was believed), last_heartbeat_at, is_capped '
  '(cut at max_call_duration), and events: those of the call, those of its session in this time that name no call, and what '
  'was loaded and opened in the two hours before; none where they are in the archive. Null for a call that the caller may '
  'not see.';


-- The owners' page shows how visits become calls, where they come from, and what was refused.

create function public.widget_traffic(
  period_start timestamptz, period_end timestamptz, only_widget uuid default null
)
returns table (
  events_received bigint, loads bigint, opens bigint, calls_started bigint, calls_completed bigint,
  calls_confirmed bigint, completion_rate numeric, delivery_rate numeric
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_custom_plan
as $$
begin
  return query
  with counts as (
    select
      coalesce(sum(h.events_received), 0)::bigint as events_received, coalesce(sum(h.loads), 0)::bigint as loads,
      coalesce(sum(h.opens), 0)::bigint as opens, sum(h.events_numbered) as numbered, sum(h.events_expected) as expected
    from widget_internal.health_hours h
    where h.hour >= widget_traffic.period_start and h.hour < widget_traffic.period_end
      and (widget_traffic.only_widget is null or h.widget_id = widget_traffic.only_widget)
  ),
  calls as (
    select
      count(*) as started, count(*) filter (where c.outcome = 'open') as going_on,
      count(*) filter (where c.outcome = 'completed') as completed,
      count(*) filter (where c.evidence in ('observed', 'provider', 'operator')) as confirmed
    from widget_internal.call_states c
    where c.started_at >= widget_traffic.period_start and c.started_at < widget_traffic.period_end
      and (widget_traffic.only_widget is null or c.widget_id = widget_traffic.only_widget)
  )
  select
    n.events_received, n.loads, n.opens, c.started, c.completed, c.confirmed,
    round(c.confirmed::numeric / nullif(c.started - c.going_on, 0), 6), round(n.numbered / nullif(n.expected, 0), 6)
  from counts n cross join calls c;
end
$$;

comment on function public.widget_traffic(timestamptz, timestamptz, uuid) is
  'widget_health summed up over a period, one row: loads, opens and calls of all widgets that the caller may see or of '
  'only_widget; events of the hours that begin in the period. calls_completed: ended, and not by call_error. '
  'calls_confirmed: their end was observed; over the calls that are not open any more that is completion_rate, as in '
  'widget_rates().';


create function public.widget_busiest_places(
  period_start timestamptz, period_end timestamptz, only_widget uuid default null, by text default 'page',
  row_limit integer default 10
)
returns table (place text, loads bigint, opens bigint, calls bigint)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  if not coalesce(widget_busiest_places.by in ('page', 'host'), false) then
    raise exception 'by: must be page or host' using errcode = 'invalid_parameter_value';
  elsif not coalesce(widget_busiest_places.row_limit between 1 and 1000, false) then
    raise exception 'row_limit: must be 1 to 1000' using errcode = 'invalid_parameter_value';
  end if;

  return query
  select
    case widget_busiest_places.by when 'page' then p.page_url else p.host end,
    sum(p.loads)::bigint, sum(p.opens)::bigint, sum(p.calls)::bigint
  from widget_internal.health_pages p
  -- Days of another zone than UTC are taken for those of UTC that they share more hours with.
  where p.day >= ((widget_busiest_places.period_start + interval '12 hours') at time zone 'UTC')::date
    and p.day < ((widget_busiest_places.period_end + interval '12 hours') at time zone 'UTC')::date
    and p.sessions > 0
    and (widget_busiest_places.only_widget is null or p.widget_id = widget_busiest_places.only_widget)
  group by 1
  order by 4 desc, 2 desc, 3 desc, 1
  limit widget_busiest_places.row_limit;
end
$$;

comment on function public.widget_busiest_places(timestamptz, timestamptz, uuid, text, integer) is
  'The pages (by => ''page'') or hosts (by => ''host'') with the most calls, then loads, on the UTC days of which '
  'the period has the greater part. place is empty where no event named a page. Whoever sends events decides '
  'what stands in it: show it as text.';


create function public.widget_refusal_totals(
  period_start timestamptz, period_end timestamptz, only_widget uuid default null, row_limit integer default 100
)
returns table (widget_id uuid, reason text, detail text, refusals bigint, last_hour timestamptz)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  if not coalesce(widget_refusal_totals.row_limit between 1 and 1000, false) then
    raise exception 'row_limit: must be 1 to 1000' using errcode = 'invalid_parameter_value';
  end if;

  return query
  select r.widget_id, r.reason, r.detail, sum(r.refusals)::bigint, max(r.hour)
  from public.widget_refusals r
  where r.hour >= widget_refusal_totals.period_start and r.hour < widget_refusal_totals.period_end
    and (widget_refusal_totals.only_widget is null or r.widget_id = widget_refusal_totals.only_widget)
  group by r.widget_id, r.reason, r.detail
  order by (r.reason = 'domain_not_allowed') desc, 4 desc, r.reason, r.detail, r.widget_id
  limit widget_refusal_totals.row_limit;
end
$$;

comment on function public.widget_refusal_totals(timestamptz, timestamptz, uuid, integer) is
  'widget_refusals summed up over a period, domains that are not allowed first: detail is the host.';


-- The owners' page shows what each widget's plan makes of this month, and the closed months' statements.

create function public.widget_plan_usage(only_widget uuid default null)
returns table (
  widget_id uuid, plan text, monthly_fee numeric, price_per_minute numeric, currency text, included_seconds integer,
  billable_seconds numeric, assumed_seconds numeric, amount numeric, forecast_seconds numeric, forecast_amount numeric
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
-- What a bill is made of is estimated at many times its rows, and compiling it takes a second.
set jit = off
as $$
declare
  v_month constant date := widget_internal.month_of(now());
  v_start constant timestamptz := widget_internal.month_start(v_month);
  v_end constant timestamptz := widget_internal.month_start(v_month + interval '1 month');
  -- A month's first day says little about the others.
  v_scale constant numeric := case when now() >= v_start + interval '1 day'
    then extract(epoch from v_end - v_start) / extract(epoch from now() - v_start) end;
begin
  return query
  select
    coalesce(p.widget_id, u.widget_id), p.name, p.monthly_fee, p.price_per_minute, p.currency, p.included_seconds,
    s.seconds, coalesce(u.assumed_seconds, 0),
    case when p.widget_id is not null then coalesce(u.amount, widget_internal.charge(0, p.plan)) end,
    f.seconds, case when f.seconds is not null then widget_internal.charge(f.seconds, p.plan) end
  from (
    select l.*, l as plan
    from widget_internal.plans_in(v_month) l
    where widget_plan_usage.only_widget is null or l.widget_id = widget_plan_usage.only_widget
  ) p
  full join public.widget_billing_usage(v_start, v_end, only_widget => widget_plan_usage.only_widget) u
    on u.widget_id = p.widget_id
  cross join lateral (select coalesce(u.billable_seconds, 0) as seconds) s
  cross join lateral (select round(s.seconds * v_scale) as seconds) f
  order by 1;
end
$$;

comment on function public.widget_plan_usage(uuid) is
  'This month by widget: its plan, billable seconds so far and the amount for them, and a forecast of both for the whole '
  'month, if the rest goes as the part so far; null on a month''s first day. Rows of widgets that have a plan or calls. '
  'only_widget: of that widget alone; left out: of all that the caller may see.';


create function public.widget_statement_totals(only_widget uuid default null, only_period text default null)
returns table (
  period date, currency text, closed_at timestamptz, widgets bigint, seconds numeric, amount numeric,
  adjusted_seconds numeric, adjusted_amount numeric, assumed_seconds numeric
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_period constant date := case when widget_statement_totals.only_period is not null
    then widget_internal.to_month(widget_statement_totals.only_period) end;
begin
  return query
  select
    c.period, c.currency, p.closed_at, count(distinct c.widget_id),
    coalesce(sum(c.difference_seconds) filter (where c.usage_period = c.period), 0),
    sum(c.difference_amount) filter (where c.usage_period = c.period),
    coalesce(sum(c.difference_seconds) filter (where c.usage_period < c.period), 0),
    sum(c.difference_amount) filter (where c.usage_period < c.period),
    sum(a.seconds)
  from public.widget_statement_charges c
  join public.widget_billing_periods p on p.period = c.period
  left join lateral (
    select coalesce(sum(l.new_seconds), 0) as seconds
    from public.widget_statement_lines l
    where c.usage_period = c.period and l.evidence = 'assumed'
      and l.period = c.period and l.widget_id = c.widget_id and l.usage_period = c.usage_period
  ) a on v_period is not null
  where (v_period is null or c.period = v_period)
    and (widget_statement_totals.only_widget is null or c.widget_id = widget_statement_totals.only_widget)
  group by c.period, c.currency, p.closed_at
  order by c.period desc, c.currency;
end
$$;

comment on function public.widget_statement_totals(uuid, text) is
  'The closed months, latest first, one row for each currency (null: widgets without a plan): the month''s own seconds '
  'and amount, and adjusted_…: the adjustments of earlier months on its statement. What is to be paid is the sum of both '
  'amounts. only_period: of that month (2026-10) alone, with assumed_seconds, those of its calls whose end was assumed.';


-- The page's functions run with the rights of the signed-in owner, who sees the own widgets' rows alone.

insert into widget_internal.rights (object, grantee, privileges)
select 'function ' || f.name, 'authenticated', 'execute'
from unnest(array[
  'public.widget_daily_usage(timestamp with time zone, timestamp with time zone, uuid)',
  'public.widget_month_to_date(uuid)',
  'public.widget_call_list(timestamp with time zone, timestamp with time zone, uuid, text, text, integer)',
  'public.widget_call_story(uuid, text, text)',
  'public.widget_traffic(timestamp with time zone, timestamp with time zone, uuid)',
  'public.widget_busiest_places(timestamp with time zone, timestamp with time zone, uuid, text, integer)',
  'public.widget_refusal_totals(timestamp with time zone, timestamp with time zone, uuid, integer)',
  'public.widget_plan_usage(uuid)',
  'public.widget_statement_totals(uuid, text)',
  'widget_internal.listed_calls(timestamp with time zone, timestamp with time zone, uuid, text, jsonb, integer)'
]) f (name);

select widget_internal.apply_rights();
