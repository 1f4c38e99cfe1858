-- Calls computed afresh from the ledger: for a bill as of a past moment, and after a change by hand.

create function widget_internal.states_of_widget(
  widget_id uuid, from_at timestamptz default '-infinity', to_at timestamptz default 'infinity',
  as_of timestamptz default 'infinity'
)
returns setof widget_internal.call_states
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_widget_ids uuid[];
  v_session_ids text[];
begin
  -- A session without call ids is matched whole, whichever part of it lies in the window.
  select array_agg(states_of_widget.widget_id), array_agg(s.session_id::text) into v_widget_ids, v_session_ids
  from (
    select distinct e.session_id
    from public.widget_analytics e
    where e.widget_id = states_of_widget.widget_id
      and e."timestamp" between states_of_widget.from_at and states_of_widget.to_at
      and e.call_id is null and e.event_type like 'call\_%' and e.received_at <= states_of_widget.as_of
  ) s;

  return query
  select
    j.widget_id, j.session_id, j.call_id, j.start_claim, j.heartbeat_at, j.end_claim,
    j.matched_start_claim, j.matched_heartbeat_at, j.matched_end_claim, j.next_start_at,
    j.first_event_at, j.last_event_at, null::timestamptz, f.started_at, f.ended_at, f.outcome, f.evidence
  from (
    select
      u.widget_id, u.session_id, u.call_id, max(u.start_claim) as start_claim, max(u.heartbeat_at) as heartbeat_at,
      max(u.end_claim) as end_claim, max(u.matched_start_claim) as matched_start_claim,
      max(u.matched_heartbeat_at) as matched_heartbeat_at, max(u.matched_end_claim) as matched_end_claim,
      max(u.next_start_at) as next_start_at, min(u.first_event_at) as first_event_at, max(u.last_event_at) as last_event_at
    from (
      select
        e.widget_id, e.session_id::text, e.call_id::text,
        case when e.event_type = 'call_start'
          then widget_internal.claim(e.event_type, e.source, e.received_at, e."timestamp") end as start_claim,
        case when e.event_type = 'call_heartbeat' then e."timestamp"::timestamptz end as heartbeat_at,
        case when e.event_type in ('call_end', 'call_error')
          then widget_internal.claim(e.event_type, e.source, e.received_at, e."timestamp") end as end_claim,
        null::bigint[] as matched_start_claim, null::timestamptz as matched_heartbeat_at,
        null::bigint[] as matched_end_claim, null::timestamptz as next_start_at,
        e."timestamp"::timestamptz as first_event_at, e."timestamp"::timestamptz as last_event_at
      from public.widget_analytics e
      where e.widget_id = states_of_widget.widget_id
        and e."timestamp" between states_of_widget.from_at and states_of_widget.to_at
        and e.call_id is not null and e.event_type like 'call\_%' and e.received_at <= states_of_widget.as_of
      union all
      select
        m.widget_id, m.session_id, m.call_id, null, null, null,
        m.start_claim, m.heartbeat_at, m.end_claim, m.next_start_at, m.first_event_at, m.last_event_at
      from widget_internal.matched_claims(v_widget_ids, v_session_ids, states_of_widget.as_of) m
    ) u
    group by u.widget_id, u.session_id, u.call_id
  ) j
  cross join lateral widget_internal.call_facts(
    greatest(j.start_claim, j.matched_start_claim), greatest(j.heartbeat_at, j.matched_heartbeat_at),
    greatest(j.end_claim, j.matched_end_claim), j.next_start_at
  ) f;
end
$$;

comment on function widget_internal.states_of_widget(uuid, timestamptz, timestamptz, timestamptz) is
  'The states of a widget''s calls as the events received by as_of give them. Complete for calls whose events all lie '
  'between from_at and to_at; of the others what lies there.';


create function widget_internal.states_as_of(
  widget_id uuid, period_start timestamptz, period_end timestamptz, as_of timestamptz
)
returns setof widget_internal.call_states
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_gone record;
  v_window record;
begin
  select min(c.archived_at) as first_archived_at, count(*) as calls into v_gone
  from widget_internal.call_states c
  where c.archived_at is not null and c.started_at >= states_as_of.period_start and c.started_at < states_as_of.period_end
    and (states_as_of.widget_id is null or c.widget_id = states_as_of.widget_id);
  if v_gone.calls > 0 then
    raise exception 'the events of % calls of this period are in the archive since %', v_gone.calls, v_gone.first_archived_at
      using errcode = 'object_not_in_prerequisite_state',
        hint = 'A bill as of a past moment needs the events: ask the archive, or leave as_of out.';
  end if;

  for v_window in
    select c.widget_id, min(c.first_event_at) as from_at, max(c.last_event_at) as to_at
    from widget_internal.call_states c
    where c.first_event_at < states_as_of.period_end and c.last_event_at >= states_as_of.period_start
      and (states_as_of.widget_id is null or c.widget_id = states_as_of.widget_id)
    group by c.widget_id
  loop
    return query
    select s.*
    from widget_internal.states_of_widget(v_window.widget_id, v_window.from_at, v_window.to_at, states_as_of.as_of) s
    where s.started_at >= states_as_of.period_start and s.started_at < states_as_of.period_end;
  end loop;
end
$$;

comment on function widget_internal.states_as_of(uuid, timestamptz, timestamptz, timestamptz) is
  'The calls of a widget (null: of all) that started in a period, as the events received by as_of give them. Raises 55000 '
  'where events of the period are in the archive.';


create function widget_internal.rejoin_sessions(widget_id uuid, session_ids text[], from_at timestamptz, to_at timestamptz)
returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_window record;
begin
  with gone as (
    delete from widget_internal.call_states c
    where c.widget_id = rejoin_sessions.widget_id and c.session_id = any (rejoin_sessions.session_ids)
      and c.archived_at is null
    returning c.first_event_at, c.last_event_at
  )
  select min(g.first_event_at) as from_at, max(g.last_event_at) as to_at into v_window from gone g;

  insert into widget_internal.call_states
  select s.*
  from widget_internal.states_of_widget(
    rejoin_sessions.widget_id, least(rejoin_sessions.from_at, v_window.from_at), greatest(rejoin_sessions.to_at, v_window.to_at)
  ) s
  where s.session_id = any (rejoin_sessions.session_ids)
  order by s.session_id, s.call_id
  on conflict do nothing;
end
$$;

comment on function widget_internal.rejoin_sessions(uuid, text[], timestamptz, timestamptz) is
  'Computes the calls of these sessions anew, less those whose events the archive took. The window covers what the '
  'ledger changed.';


create function widget_internal.rejoin_deleted_events()
returns trigger
language plpgsql volatile
-- definer because who may change the ledger need have no right on call_states
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform widget_internal.rejoin_sessions(
    o.widget_id, array_agg(distinct o.session_id::text), min(o."timestamp"), max(o."timestamp")
  )
  from old_events o
  -- What the archive takes away was of calls that stay as they are: nothing is read for it.
  where o.event_type like 'call\_%' and case when o.call_id is null
    then exists (
      select from widget_internal.call_states c
      where c.widget_id = o.widget_id and c.session_id = o.session_id and c.matched_start_claim is not null
        and c.archived_at is null
    )
    else exists (
      select from widget_internal.call_states c
      where c.widget_id = o.widget_id and c.session_id = o.session_id and c.call_id = o.call_id and c.archived_at is null
    )
  end
  group by o.widget_id;
  return null;
end
$$;

comment on function widget_internal.rejoin_deleted_events() is
  'After the ledger''s owner deleted events: the calls of their sessions follow, if the archive did not take them.';

create trigger rejoin_events_on_delete
  after delete on public.widget_analytics
  referencing old table as old_events
  for each statement execute function widget_internal.rejoin_deleted_events();


create function widget_internal.rejoin_changed_events()
returns trigger
language plpgsql volatile
-- definer because who may change the ledger need have no right on call_states
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  -- A row may move from one session to another: both are computed anew. An erasure changes nothing that calls rest on.
  perform widget_internal.rejoin_sessions(d.widget_id, d.session_ids, d.from_at, d.to_at)
  from (
    with old_facts as (
      select e.id, e.widget_id, e.session_id, e.call_id, e.event_type, e.source, e.seq, e."timestamp", e.received_at
      from old_events e
    ),
    new_facts as (
      select e.id, e.widget_id, e.session_id, e.call_id, e.event_type, e.source, e.seq, e."timestamp", e.received_at
      from new_events e
    )
    select c.widget_id, array_agg(distinct c.session_id::text) as session_ids,
      min(c."timestamp") as from_at, max(c."timestamp") as to_at
    from ((table old_facts except table new_facts) union all (table new_facts except table old_facts)) c
    group by c.widget_id
  ) d;
  return null;
end
$$;

comment on function widget_internal.rejoin_changed_events() is
  'After the ledger''s owner changed events by hand: the calls of their sessions follow.';

create trigger rejoin_events_on_update
  after update on public.widget_analytics
  referencing old table as old_events new table as new_events
  for each statement execute function widget_internal.rejoin_changed_events();


create function widget_internal.forget_calls()
returns trigger
language plpgsql volatile
-- definer because who may truncate the ledger need have no right on call_states
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  delete from widget_internal.call_states c where c.archived_at is null;
  return null;
end
$$;

comment on function widget_internal.forget_calls() is
  'After the ledger was truncated: there are no calls but those whose events the archive took.';

create trigger forget_calls_on_truncate
  after truncate on public.widget_analytics
  for each statement execute function widget_internal.forget_calls();
