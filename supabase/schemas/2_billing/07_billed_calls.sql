-- What was billed so far, and what arrived since: the difference is pending until the next month that is closed.

create function widget_internal.closed_months()
returns table (month date, as_of timestamptz)
language plpgsql stable rows 10
-- definer because a month is closed for an owner without a charge in it, too
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  return query select p.period, p.as_of from public.widget_billing_periods p;
end
$$;

comment on function widget_internal.closed_months() is 'The closed months, with what they count.';


create function widget_internal.billed_calls(
  month date, from_at timestamptz default '-infinity', to_at timestamptz default 'infinity', only_widget uuid default null
)
returns setof public.widget_statement_lines
language plpgsql stable
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_custom_plan
as $$
declare
  -- In the order in which they were closed: a month without calls may be left out, and closed after a later one.
  v_closed constant date[] := array(select c.month from widget_internal.closed_months() c order by c.as_of);
begin
  return query
  select l.*
  from public.widget_statement_lines l
  where l.usage_period = billed_calls.month
    -- The month's own lines by their key, the later ones by the index of adjustments.
    and (l.period = billed_calls.month or l.usage_period < l.period)
    and l.started_at >= billed_calls.from_at and l.started_at < billed_calls.to_at
    and (billed_calls.only_widget is null or l.widget_id = billed_calls.only_widget)
    and not exists (
      select from public.widget_statement_lines a
      where a.usage_period = l.usage_period and a.widget_id = l.widget_id
        and a.session_id = l.session_id and a.call_id = l.call_id
        and a.usage_period < a.period and array_position(v_closed, a.period) > array_position(v_closed, l.period)
    );
end
$$;

comment on function widget_internal.billed_calls(date, timestamptz, timestamptz, uuid) is
  'The calls of a closed month that started in [from_at, to_at), as they were billed last: the latest line of each. Those '
  'without an outcome are no longer calls of the month.';


create table widget_internal.compared_calls (
  widget_id uuid not null,
  month date not null,
  fingerprint numeric not null,
  constraint calls_are_compared_by_widget_and_month primary key (widget_id, month)
);

comment on table widget_internal.compared_calls is
  'What a widget''s calls of a closed month were when a closing last compared them with what is billed. As long as they '
  'are the same, nothing of them is pending.';

alter table widget_internal.compared_calls enable row level security;

create policy "owners see their widgets' fingerprints" on widget_internal.compared_calls
  for select to authenticated
  using (widget_id = any (array(select widget_internal.owned_widget_ids())));


create function widget_internal.changed_calls(month date, only_widget uuid default null)
returns setof widget_internal.compared_calls
language plpgsql stable
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_custom_plan
as $$
declare
  v_start constant timestamptz := widget_internal.month_start(changed_calls.month);
  v_end constant timestamptz := widget_internal.month_start(changed_calls.month + interval '1 month');
begin
  return query
  select widget_id, changed_calls.month, coalesce(k.fingerprint, 0)
  from (
    -- Without ids, so that the index alone is read.
    select c.widget_id, sum(hash_record_extended((c.started_at, c.ended_at, c.outcome, c.evidence), 0)) as fingerprint
    from widget_internal.call_states c
    where c.started_at >= v_start and c.started_at < v_end
      and (changed_calls.only_widget is null or c.widget_id = changed_calls.only_widget)
    group by c.widget_id
  ) k
  full join (
    select d.widget_id, d.fingerprint from widget_internal.compared_calls d
    where d.month = changed_calls.month
      and (changed_calls.only_widget is null or d.widget_id = changed_calls.only_widget)
  ) f using (widget_id)
  where coalesce(k.fingerprint, 0) <> coalesce(f.fingerprint, 0);
end
$$;

comment on function widget_internal.changed_calls(date, uuid) is
  'The widgets whose calls of a month are not what was compared last, with what they are now.';


create function widget_internal.late_changes(
  before date default null, only_month date default null, only_widget uuid default null,
  events_until timestamptz default null
)
returns setof public.widget_statement_lines
language plpgsql stable
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_custom_plan
as $$
begin
  return query
  select
    late_changes.before, d.widget_id, m.month, d.session_id, d.call_id, d.started_at, d.ended_at, d.outcome, d.evidence,
    d.duration_seconds, d.old_seconds, d.new_seconds, d.new_seconds - d.old_seconds, d.rule,
    array(
      select e.id
      from (
        select a.*
        from widget_internal.call_states c
        join public.widget_analytics a
          on a.widget_id = c.widget_id and a."timestamp" between c.first_event_at and c.last_event_at
        where c.widget_id = d.widget_id and c.session_id = d.session_id and c.call_id = d.call_id
          and a.session_id = c.session_id and a.event_type like 'call\_%'
          -- Events that name a call are its own; those that name none may part the session's unnamed calls anew.
          and (a.call_id = c.call_id or a.call_id is null and c.matched_start_claim is not null)
        offset 0  -- by the call's times, as an index by receipt would read all that came late for each call
      ) e
      where e.received_at > coalesce(p.as_of, m.as_of) and e.received_at <= late_changes.events_until
      order by e.received_at, e.id
    )
  from widget_internal.closed_months() m
  cross join lateral widget_internal.changed_calls(m.month, late_changes.only_widget) w
  cross join lateral (
    select
      widget_id, session_id, call_id, coalesce(k.started_at, b.started_at) as started_at, k.ended_at, k.outcome, k.evidence,
      k.duration_seconds, coalesce(b.new_seconds, 0) as old_seconds, coalesce(k.billable_seconds, 0) as new_seconds,
      coalesce(k.rule, 'no longer a call of this month') as rule, b.period
    from widget_internal.priced_calls(m.month, only_widget => w.widget_id) k
    full join widget_internal.billed_calls(m.month, only_widget => w.widget_id) b using (widget_id, session_id, call_id)
  ) d
  left join widget_internal.closed_months() p on p.month = d.period
  where (late_changes.before is null or m.month < late_changes.before)
    and (late_changes.only_month is null or m.month = late_changes.only_month)
    and d.new_seconds <> d.old_seconds;
end
$$;

comment on function widget_internal.late_changes(date, date, uuid, timestamptz) is
  'The calls of closed months before one whose billable seconds are no longer those of their latest line, as lines of a '
  'statement. event_ids: what was received since that line and by events_until, and may have changed them.';


create function public.widget_pending_adjustments(only_widget uuid default null, period text default null)
returns setof public.widget_statement_lines
language plpgsql volatile
set search_path = pg_catalog, pg_temp
-- Set-returning functions are estimated at many times their rows, and compiling the plan takes a second.
set jit = off
as $$
begin
  return query
  select c.*
  from widget_internal.late_changes(
    case when widget_pending_adjustments.period is not null
      then widget_internal.to_month(widget_pending_adjustments.period) end,
    only_widget => widget_pending_adjustments.only_widget, events_until => 'infinity'
  ) c;
end
$$;

comment on function public.widget_pending_adjustments(uuid, text) is
  'What late arrivals have changed in closed months, and what no statement shows yet: the adjustments that the next '
  'closed months will have, as lines of a statement. period: those that the statement of that month, still open, would '
  'have; left out, it is not known yet, and null. Owners see their widgets'', service_role all.';
