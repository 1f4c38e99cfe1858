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
    states_of_widget.widget_id, session_id, call_id, n.start_claim, n.heartbeat_at, n.end_claim,
    m.start_claim, m.heartbeat_at, m.end_claim, m.next_start_at,
    least(n.first_event_at, m.first_event_at), greatest(n.last_event_at, m.last_event_at), null::timestamptz,
    f.started_at, f.ended_at, f.outcome, f.evidence
  from (
    select
      e.session_id::text, e.call_id::text,
      max(widget_internal.claim(e.event_type, e.source, e.received_at, e."timestamp"))
        filter (where e.event_type = 'call_start') as start_claim,
      max(e."timestamp"::timestamptz) filter (where e.event_type = 'call_heartbeat') as heartbeat_at,
      max(widget_internal.claim(e.event_type, e.source, e.received_at, e."timestamp"))
        filter (where e.event_type in ('call_end', 'call_error')) as end_claim,
      min(e."timestamp"::timestamptz) as first_event_at, max(e."timestamp"::timestamptz) as last_event_at
    from public.widget_analytics e
    where e.widget_id = states_of_widget.widget_id
      and e."timestamp" between states_of_widget.from_at and states_of_widget.to_at
      and e.call_id is not null and e.event_type like 'call\_%' and e.received_at <= states_of_widget.as_of
    group by e.session_id, e.call_id
  ) n
  full join widget_internal.matched_claims(v_widget_ids, v_session_ids, states_of_widget.as_of) m
    using (session_id, call_id)
  cross join lateral widget_internal.call_facts(
    greatest(n.start_claim, m.start_claim), greatest(n.heartbeat_at, m.heartbeat_at),
    greatest(n.end_claim, m.end_claim), m.next_start_at
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
declare
  v_gone record;
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

  return query
  select s.*
  from (
    select c.widget_id, min(c.first_event_at) as from_at, max(c.last_event_at) as to_at
    from widget_internal.call_states c
    where c.first_event_at < states_as_of.period_end and c.last_event_at >= states_as_of.period_start
      and (states_as_of.widget_id is null or c.widget_id = states_as_of.widget_id)
    group by c.widget_id
  ) w
  cross join lateral widget_internal.states_of_widget(w.widget_id, w.from_at, w.to_at, states_as_of.as_of) s
  where s.started_at >= states_as_of.period_start and s.started_at < states_as_of.period_end;
end
$$;

comment on function widget_internal.states_as_of(uuid, timestamptz, timestamptz, timestamptz) is
  'The calls of a widget (null: of all) that started in a period, as the events received by as_of give them. Raises 55000 '
  'where events of the period are in the archive.';


create function widget_internal.rejoin_sessions(
  widget_ids uuid[], session_ids text[], from_ats timestamptz[] default null, to_ats timestamptz[] default null
)
returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_window record;
begin
  if rejoin_sessions.widget_ids is null then
    return;
  end if;
  -- Who matches one of them meanwhile would do so with events that are about to be gone.
  perform widget_internal.hold_sessions(rejoin_sessions.widget_ids, rejoin_sessions.session_ids);
  for v_window in
    select s.widget_id, array_agg(s.session_id) as session_ids,
      min(coalesce(s.from_at, '-infinity')) as from_at, max(coalesce(s.to_at, 'infinity')) as to_at
    from unnest(
      rejoin_sessions.widget_ids, rejoin_sessions.session_ids, rejoin_sessions.from_ats, rejoin_sessions.to_ats
    ) s (widget_id, session_id, from_at, to_at)
    group by s.widget_id
    order by s.widget_id
  loop
    with held as materialized (
      -- In the order of all writers of states, so that none waits in a circle.
      select c.session_id, c.call_id
      from widget_internal.call_states c
      where c.widget_id = v_window.widget_id and c.session_id = any (v_window.session_ids) and c.archived_at is null
      order by c.session_id, c.call_id
      for update
    ),
    gone as (
      delete from widget_internal.call_states c
      using held h
      where c.widget_id = v_window.widget_id and c.session_id = h.session_id and c.call_id = h.call_id
      returning c.first_event_at, c.last_event_at
    )
    select least(v_window.from_at, min(g.first_event_at)), greatest(v_window.to_at, max(g.last_event_at))
    into v_window.from_at, v_window.to_at
    from gone g;

    insert into widget_internal.call_states
    select s.*
    from widget_internal.states_of_widget(v_window.widget_id, v_window.from_at, v_window.to_at) s
    where s.session_id in (select unnest(v_window.session_ids))
    order by s.session_id, s.call_id
    on conflict do nothing;
  end loop;
end
$$;

comment on function widget_internal.rejoin_sessions(uuid[], text[], timestamptz[], timestamptz[]) is
  'Computes the calls of these sessions anew, less those whose events the archive took. The arrays are parallel; from_ats and '
  'to_ats cover what the ledger changed of each, else all of it.';


create function widget_internal.rejoin_deleted_events()
returns trigger
language plpgsql volatile
-- definer because who may change the ledger need have no right on call_states
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform widget_internal.rejoin_sessions(
    array_agg(s.widget_id), array_agg(s.session_id), array_agg(s.from_at), array_agg(s.to_at)
  )
  from (
    select o.widget_id, o.session_id::text as session_id, min(o."timestamp") as from_at, max(o."timestamp") as to_at
    from old_events o
    -- What the archive takes away was of calls that stay as they are: nothing is read for it.
    where o.event_type like 'call\_%' and exists (
      select from widget_internal.call_states c
      where c.widget_id = o.widget_id and c.session_id = o.session_id and c.archived_at is null
        and case when o.call_id is null then c.matched_start_claim is not null else c.call_id = o.call_id end
    )
    group by o.widget_id, o.session_id
  ) s;
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
declare
  v_erasable constant text[] := array['page_url', 'user_agent', 'properties'];
begin
  -- A row may move from one session to another: both are computed anew. An erasure changes nothing that calls rest on.
  perform widget_internal.rejoin_sessions(
    array_agg(s.widget_id), array_agg(s.session_id), array_agg(s.from_at), array_agg(s.to_at)
  )
  from (
    select widget_id, session_id::text as session_id, min("timestamp") as from_at, max("timestamp") as to_at
    from (
      select e.widget_id, e.session_id, e."timestamp", to_jsonb(e) - v_erasable as facts, true as is_old from old_events e
    ) o
    full join (
      select e.widget_id, e.session_id, e."timestamp", to_jsonb(e) - v_erasable as facts, true as is_new from new_events e
    ) n using (widget_id, session_id, "timestamp", facts)
    where is_old is null or is_new is null
    group by widget_id, session_id
  ) s;
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
