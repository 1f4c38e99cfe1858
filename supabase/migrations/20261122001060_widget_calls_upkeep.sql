-- However events come in, their sessions' calls are computed again in the same transaction: by a trigger, or by the door
-- itself, which knows what it stores and need not have its rows collected for a trigger to look through.

create or replace function widget_internal.lock_sessions(session_keys bigint[])
returns void
language plpgsql volatile
set search_path = ''
as $$
declare
  v_every_session constant bigint := hashtextextended('widget_internal: every session', 0);
  v_key bigint;
begin
  -- The server's lock table is small: who needs very many sessions takes all there are with one lock.
  if session_keys is null or cardinality(session_keys) > 500 then
    perform pg_advisory_xact_lock(v_every_session);
    return;
  end if;

  perform pg_advisory_xact_lock_shared(v_every_session);
  if cardinality(session_keys) > 1 then
    -- In one order everywhere: two batches that share two sessions must not wait for each other.
    session_keys := array(select distinct k from unnest(session_keys) k order by k);
  end if;
  foreach v_key in array session_keys loop
    perform pg_advisory_xact_lock(v_key);
  end loop;
end
$$;


drop function widget_internal.refresh_session_calls(uuid, text);

create function widget_internal.refresh_calls(widget_ids uuid[], session_ids text[])
returns void
language plpgsql volatile
set search_path = ''
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
begin
  insert into public.widget_calls as c (widget_id, session_id, call_id, started_at, ended_at, outcome, evidence)
  select s.widget_id, s.session_id, s.call_id, s.started_at, s.ended_at, s.outcome, s.evidence
  from widget_internal.calls_of_sessions(refresh_calls.widget_ids, refresh_calls.session_ids) s
  on conflict (widget_id, session_id, call_id) do update
  set started_at = excluded.started_at, ended_at = excluded.ended_at,
    outcome = excluded.outcome, evidence = excluded.evidence
  where (c.started_at, c.ended_at, c.outcome, c.evidence)
    is distinct from (excluded.started_at, excluded.ended_at, excluded.outcome, excluded.evidence);
end
$$;

comment on function widget_internal.refresh_calls(uuid[], text[]) is
  'Brings widget_calls up to date with these sessions'' events. The arrays are parallel; the caller holds the sessions.';


create function widget_internal.keep_calls(widget_id uuid, session_id text, has_only_heartbeats boolean)
returns void
language plpgsql volatile
set search_path = ''
as $$
begin
  perform widget_internal.lock_sessions(
    array[widget_internal.session_key(keep_calls.widget_id, keep_calls.session_id)]
  );
  -- A heartbeat moves a call's end only where that end was inferred; most heartbeats change nothing.
  if not keep_calls.has_only_heartbeats or exists (
    select from public.widget_calls c
    where c.widget_id = keep_calls.widget_id
      and c.session_id = keep_calls.session_id
      and c.evidence in ('heartbeat', 'assumed')
  ) then
    perform widget_internal.refresh_calls(array[keep_calls.widget_id], array[keep_calls.session_id]);
  end if;
end
$$;

comment on function widget_internal.keep_calls(uuid, text, boolean) is
  'Holds a session to which call events were added, and brings its calls up to date.';


create function widget_internal.keep_calls(widget_ids uuid[], session_ids text[], have_only_heartbeats boolean[])
returns void
language plpgsql volatile
set search_path = ''
set plan_cache_mode = force_generic_plan
as $$
begin
  if cardinality(keep_calls.widget_ids) = 1 then
    perform widget_internal.keep_calls(
      keep_calls.widget_ids[1], keep_calls.session_ids[1], keep_calls.have_only_heartbeats[1]
    );
    return;
  end if;

  perform widget_internal.lock_sessions(array(
    select widget_internal.session_key(s.widget_id, s.session_id)
    from unnest(keep_calls.widget_ids, keep_calls.session_ids) s (widget_id, session_id)
  ));
  select array_agg(s.widget_id), array_agg(s.session_id) into keep_calls.widget_ids, keep_calls.session_ids
  from unnest(keep_calls.widget_ids, keep_calls.session_ids, keep_calls.have_only_heartbeats)
    s (widget_id, session_id, has_only_heartbeats)
  where not s.has_only_heartbeats or exists (
    select from public.widget_calls c
    where c.widget_id = s.widget_id and c.session_id = s.session_id and c.evidence in ('heartbeat', 'assumed')
  );
  if keep_calls.widget_ids is not null then
    perform widget_internal.refresh_calls(keep_calls.widget_ids, keep_calls.session_ids);
  end if;
end
$$;

comment on function widget_internal.keep_calls(uuid[], text[], boolean[]) is
  'The same for many sessions, in parallel arrays that name none twice.';


create or replace function widget_internal.keep_widget_calls()
returns trigger
language plpgsql volatile
-- definer because who may add an event need have no right on widget_calls
security definer
set search_path = ''
as $$
declare
  v_widget_ids uuid[];
  v_session_ids text[];
  v_have_only_heartbeats boolean[];
begin
  -- In place of a foreign key (keep_widgets_with_events()): whose widget is gone, or about to go, cannot stay.
  if tg_name in ('keep_widget_calls_on_insert', 'keep_widget_calls_on_update_to_new') then
    perform from public.widgets w where w.id in (select e.widget_id from changed_events e) for key share;
    if exists (
      select from changed_events e where not exists (select from public.widgets w where w.id = e.widget_id)
    ) then
      raise exception 'widget_id: there is no such widget' using errcode = 'foreign_key_violation',
        schema = 'public', table = 'widget_analytics', constraint = 'events_belong_to_a_widget';
    end if;
  end if;

  select array_agg(s.widget_id), array_agg(s.session_id), array_agg(s.has_only_heartbeats)
  into v_widget_ids, v_session_ids, v_have_only_heartbeats
  from (
    select e.widget_id, e.session_id, bool_and(e.event_type = 'call_heartbeat') as has_only_heartbeats
    from changed_events e
    where e.event_type in ('call_start', 'call_heartbeat', 'call_end', 'call_error')
    group by e.widget_id, e.session_id
  ) s;
  if v_widget_ids is null then
    return null;
  end if;

  -- Repeatable read cannot see what the transaction that held the session before this one has just added.
  if current_setting('transaction_isolation') = 'repeatable read' then
    raise exception 'call events cannot be added in a repeatable read transaction'
      using errcode = 'feature_not_supported', hint = 'Use read committed or serializable.';
  end if;
  if tg_op <> 'INSERT' then
    perform widget_internal.lock_sessions(array(
      select widget_internal.session_key(s.widget_id, s.session_id)
      from unnest(v_widget_ids, v_session_ids) s (widget_id, session_id)
    ));
    delete from public.widget_calls c
    using unnest(v_widget_ids, v_session_ids) s (widget_id, session_id)
    where c.widget_id = s.widget_id and c.session_id = s.session_id;
    v_have_only_heartbeats := array_fill(false, array[cardinality(v_widget_ids)]);
  end if;
  perform widget_internal.keep_calls(v_widget_ids, v_session_ids, v_have_only_heartbeats);
  return null;
end
$$;

comment on function widget_internal.keep_widget_calls() is
  'After a statement that changed the ledger: looks for the events'' widgets, and computes the calls of the sessions '
  'concerned again.';


create or replace function widget_internal.recompute_capped_calls()
returns trigger
language plpgsql volatile
-- definer because who may change a setting need have no right on widget_calls
security definer
set search_path = ''
as $$
declare
  v_widget_ids uuid[];
  v_session_ids text[];
begin
  perform widget_internal.lock_sessions(null);
  select array_agg(s.widget_id), array_agg(s.session_id) into v_widget_ids, v_session_ids
  from (
    select distinct c.widget_id, c.session_id
    from public.widget_calls c
    where c.ended_at - c.started_at >= least(old.max_call_duration, new.max_call_duration)
  ) s;
  perform widget_internal.refresh_calls(v_widget_ids, v_session_ids);
  return null;
end
$$;

revoke all on function widget_internal.refresh_calls(uuid[], text[]) from public, anon, authenticated, service_role;
revoke all on function widget_internal.keep_calls(uuid, text, boolean) from public, anon, authenticated, service_role;
revoke all on function widget_internal.keep_calls(uuid[], text[], boolean[])
  from public, anon, authenticated, service_role;


-- The door says so while it stores: it has looked the widget up, and will keep the calls itself.
drop trigger keep_widget_calls_on_insert on public.widget_analytics;
create trigger keep_widget_calls_on_insert
  after insert on public.widget_analytics
  referencing new table as changed_events
  for each statement
  when (coalesce(current_setting('widget_internal.door_stores', true), '') <> 'yes')
  execute function widget_internal.keep_widget_calls();
