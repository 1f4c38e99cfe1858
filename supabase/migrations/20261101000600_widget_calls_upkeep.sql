-- However an event comes in (RPC, SQL editor, COPY), its session's calls are computed again in the same transaction.

create function widget_internal.session_key(widget_id uuid, session_id text)
returns bigint
language plpgsql immutable parallel safe
set search_path = ''
as $$
begin
  return hashtextextended(session_key.widget_id::text || session_key.session_id, 0);
end
$$;

comment on function widget_internal.session_key(uuid, text) is 'The key of a session''s advisory lock.';


create function widget_internal.lock_sessions(session_keys bigint[])
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
  -- In one order everywhere: two batches that share two sessions must not wait for each other.
  for v_key in select distinct k from unnest(session_keys) k order by k loop
    perform pg_advisory_xact_lock(v_key);
  end loop;
end
$$;

comment on function widget_internal.lock_sessions(bigint[]) is
  'Holds these sessions (session_key(); null: every one) until the transaction ends: one at a time computes a session''s calls.';


create function widget_internal.refresh_session_calls(widget_id uuid, session_id text)
returns void
language plpgsql volatile
set search_path = ''
as $$
#variable_conflict use_column
begin
  insert into public.widget_calls as c (widget_id, session_id, call_id, started_at, ended_at, outcome, evidence)
  select
    refresh_session_calls.widget_id, refresh_session_calls.session_id,
    s.call_id, s.started_at, s.ended_at, s.outcome, s.evidence
  from widget_internal.session_calls(refresh_session_calls.widget_id, refresh_session_calls.session_id) s
  on conflict (widget_id, session_id, call_id) do update
  set started_at = excluded.started_at, ended_at = excluded.ended_at,
    outcome = excluded.outcome, evidence = excluded.evidence
  where (c.started_at, c.ended_at, c.outcome, c.evidence)
    is distinct from (excluded.started_at, excluded.ended_at, excluded.outcome, excluded.evidence);
end
$$;

comment on function widget_internal.refresh_session_calls(uuid, text) is
  'Brings widget_calls up to date with one session''s events. The caller holds the session.';


create function widget_internal.keep_widget_calls()
returns trigger
language plpgsql volatile
-- definer because who may add an event need have no right on widget_calls
security definer
set search_path = ''
as $$
declare
  v_keys bigint[];
  v_session record;
begin
  select array_agg(distinct widget_internal.session_key(e.widget_id, e.session_id)) into v_keys
  from changed_events e
  where e.event_type in ('call_start', 'call_heartbeat', 'call_end', 'call_error');
  if v_keys is null then
    return null;
  end if;

  -- Repeatable read cannot see what the transaction that held the session before this one has just added.
  if current_setting('transaction_isolation') = 'repeatable read' then
    raise exception 'call events cannot be added in a repeatable read transaction'
      using errcode = 'feature_not_supported', hint = 'Use read committed or serializable.';
  end if;
  perform widget_internal.lock_sessions(v_keys);

  for v_session in
    select e.widget_id, e.session_id, bool_and(e.event_type = 'call_heartbeat') as only_heartbeats
    from changed_events e
    where e.event_type in ('call_start', 'call_heartbeat', 'call_end', 'call_error')
    group by e.widget_id, e.session_id
  loop
    if tg_op <> 'INSERT' then
      delete from public.widget_calls c
      where c.widget_id = v_session.widget_id and c.session_id = v_session.session_id;
    -- A heartbeat moves a call's end only where that end was inferred; most heartbeats change nothing.
    elsif v_session.only_heartbeats and not exists (
      select from public.widget_calls c
      where c.widget_id = v_session.widget_id
        and c.session_id = v_session.session_id
        and c.evidence in ('heartbeat', 'assumed')
    ) then
      continue;
    end if;
    perform widget_internal.refresh_session_calls(v_session.widget_id, v_session.session_id);
  end loop;
  return null;
end
$$;

comment on function widget_internal.keep_widget_calls() is
  'After a statement that changed the ledger: computes the calls of the sessions concerned again.';


create function widget_internal.empty_widget_calls()
returns trigger
language plpgsql volatile
-- definer because who may truncate the ledger need have no right on widget_calls
security definer
set search_path = ''
as $$
begin
  delete from public.widget_calls;
  return null;
end
$$;

comment on function widget_internal.empty_widget_calls() is 'After the ledger was truncated: there are no calls.';


create function widget_internal.recompute_capped_calls()
returns trigger
language plpgsql volatile
-- definer because who may change a setting need have no right on widget_calls
security definer
set search_path = ''
as $$
declare
  v_session record;
begin
  perform widget_internal.lock_sessions(null);
  for v_session in
    select distinct c.widget_id, c.session_id
    from public.widget_calls c
    where c.ended_at - c.started_at >= least(old.max_call_duration, new.max_call_duration)
  loop
    perform widget_internal.refresh_session_calls(v_session.widget_id, v_session.session_id);
  end loop;
  return null;
end
$$;

comment on function widget_internal.recompute_capped_calls() is
  'After max_call_duration changed: computes the calls again that the old or the new limit cuts.';


create function widget_internal.widget_calls_differences()
returns table (
  widget_id uuid, session_id text, call_id text, kept jsonb, computed jsonb
)
language plpgsql stable
set search_path = ''
as $$
begin
  return query
  with kept as (
    select
      c.widget_id, c.session_id, c.call_id,
      jsonb_build_array(c.started_at, c.ended_at, c.outcome, c.evidence) as call
    from public.widget_calls c
  ),
  computed as (
    select
      e.widget_id, e.session_id, s.call_id,
      jsonb_build_array(s.started_at, s.ended_at, s.outcome, s.evidence) as call
    from (select distinct a.widget_id, a.session_id from public.widget_analytics a where a.event_type = 'call_start') e
    cross join lateral widget_internal.session_calls(e.widget_id, e.session_id) s
  )
  select
    coalesce(k.widget_id, f.widget_id), coalesce(k.session_id, f.session_id)::text,
    coalesce(k.call_id, f.call_id)::text, k.call, f.call
  from kept k
  full join computed f on f.widget_id = k.widget_id and f.session_id = k.session_id and f.call_id = k.call_id
  where k.call is distinct from f.call;
end
$$;

comment on function widget_internal.widget_calls_differences() is
  'Calls whose row is not what the ledger gives, each with [started_at, ended_at, outcome, evidence] as kept and as '
  'computed. Good: no rows. Reads the whole ledger.';

revoke all on function widget_internal.session_key(uuid, text) from public, anon, authenticated, service_role;
revoke all on function widget_internal.lock_sessions(bigint[]) from public, anon, authenticated, service_role;
revoke all on function widget_internal.refresh_session_calls(uuid, text) from public, anon, authenticated, service_role;
revoke all on function widget_internal.keep_widget_calls() from public, anon, authenticated, service_role;
revoke all on function widget_internal.empty_widget_calls() from public, anon, authenticated, service_role;
revoke all on function widget_internal.recompute_capped_calls() from public, anon, authenticated, service_role;
revoke all on function widget_internal.widget_calls_differences() from public, anon, authenticated, service_role;


create trigger keep_widget_calls_on_insert
  after insert on public.widget_analytics
  referencing new table as changed_events
  for each statement execute function widget_internal.keep_widget_calls();

create trigger keep_widget_calls_on_delete
  after delete on public.widget_analytics
  referencing old table as changed_events
  for each statement execute function widget_internal.keep_widget_calls();

-- An update is a delete and an insert: a row may move from one session to another.
create trigger keep_widget_calls_on_update_of_old
  after update on public.widget_analytics
  referencing old table as changed_events
  for each statement execute function widget_internal.keep_widget_calls();

create trigger keep_widget_calls_on_update_to_new
  after update on public.widget_analytics
  referencing new table as changed_events
  for each statement execute function widget_internal.keep_widget_calls();

create trigger empty_widget_calls_on_truncate
  after truncate on public.widget_analytics
  for each statement execute function widget_internal.empty_widget_calls();

create trigger recompute_capped_calls_on_change
  after update of max_call_duration on widget_internal.settings
  for each row execute function widget_internal.recompute_capped_calls();
