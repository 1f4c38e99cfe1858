-- What arrived after its month was closed: the difference between what is billed so far and what should be.

create function widget_internal.late_changes(before date, as_of timestamptz)
returns table (
  usage_period date, widget_id uuid, session_id text, call_id text, started_at timestamptz, ended_at timestamptz,
  outcome text, evidence text, duration_seconds numeric, old_seconds numeric, new_seconds numeric, rule text,
  billed_as_of timestamptz
)
language plpgsql stable
set search_path = ''
as $$
declare
  v_changed widget_internal.session_name[];
begin
  -- The calls as they are kept tell which sessions to look at; the ledger, what they were as of that moment.
  select array_agg(distinct (d.widget_id, d.session_id)::widget_internal.session_name) into v_changed
  from (
    select c.widget_id, c.session_id
    from (
      select r.widget_id, r.session_id, r.call_id, r.month as usage_period, r.billable_seconds as seconds
      from widget_internal.rated_calls('-infinity', 'infinity', null) r
      join public.widget_billing_periods p on p.period = r.month
      union all
      select l.widget_id, l.session_id, l.call_id, l.usage_period, -l.difference_seconds
      from public.widget_statement_lines l
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

comment on function widget_internal.late_changes(date, timestamptz) is
  'The calls of closed months before one whose billable seconds are no longer those on all statements together, as of a '
  'moment; null: of all that is there. billed_as_of: what was received later is what changed them.';


create function widget_internal.late_events(
  widget_id uuid, session_id text, call_id text, received_after timestamptz, as_of timestamptz
)
returns uuid[]
language plpgsql stable
set search_path = ''
as $$
begin
  return array(
    select e.id
    from public.widget_analytics e
    where e.widget_id = late_events.widget_id
      and e.session_id = late_events.session_id
      and e.event_type in ('call_start', 'call_heartbeat', 'call_end', 'call_error')
      and e.received_at > late_events.received_after
      and e.received_at <= coalesce(late_events.as_of, 'infinity')
      -- R4: events that name a call are its own; those that name none may part the session's unnamed calls anew.
      and (
        e.call_id = late_events.call_id
        or (e.call_id is null and exists (
          select from public.widget_analytics s
          where s.widget_id = late_events.widget_id and s.session_id = late_events.session_id
            and s.call_id is null and s.id::text = late_events.call_id and s.event_type = 'call_start'
        ))
      )
    order by e.received_at, e.id
  );
end
$$;

comment on function widget_internal.late_events(uuid, text, text, timestamptz, timestamptz) is
  'The events received in (received_after, as_of] that a call may have changed by.';


create function public.widget_pending_adjustments()
returns table (
  usage_period date, widget_id uuid, session_id text, call_id text, started_at timestamptz, ended_at timestamptz,
  outcome text, evidence text, duration_seconds numeric, old_seconds numeric, new_seconds numeric,
  difference_seconds numeric, rule text, event_ids uuid[]
)
language plpgsql stable
set search_path = ''
as $$
begin
  return query
  select
    c.usage_period, c.widget_id, c.session_id, c.call_id, c.started_at, c.ended_at, c.outcome, c.evidence,
    c.duration_seconds, c.old_seconds, c.new_seconds, c.new_seconds - c.old_seconds, c.rule,
    widget_internal.late_events(c.widget_id, c.session_id, c.call_id, c.billed_as_of, null)
  from widget_internal.late_changes('infinity', null) c;
end
$$;

comment on function public.widget_pending_adjustments() is
  'What late arrivals have changed in closed months, and what no statement shows yet: the adjustments that the next '
  'closed months will have. Owners see their widgets'', service_role all.';

revoke all on function widget_internal.late_changes(date, timestamptz) from public, anon, authenticated, service_role;
revoke all on function widget_internal.late_events(uuid, text, text, timestamptz, timestamptz)
  from public, anon, authenticated, service_role;
revoke all on function public.widget_pending_adjustments() from public, anon, authenticated, service_role;
grant execute on function widget_internal.late_changes(date, timestamptz) to authenticated, service_role;
grant execute on function widget_internal.late_events(uuid, text, text, timestamptz, timestamptz)
  to authenticated, service_role;
grant execute on function public.widget_pending_adjustments() to authenticated, service_role;
