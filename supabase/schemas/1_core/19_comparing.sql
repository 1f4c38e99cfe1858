-- Whether the calls are what the ledger gives, and how to bring them back where they are not.

create function widget_internal.widget_calls_differences()
returns table (widget_id uuid, session_id text, call_id text, kept jsonb, computed jsonb)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_places constant text[] := array['first_event_at', 'last_event_at', 'archived_at'];
begin
  return query
  select
    coalesce(k.widget_id, f.widget_id), coalesce(k.session_id, f.session_id), coalesce(k.call_id, f.call_id),
    jsonb_build_array(k.started_at, k.ended_at, k.outcome, k.evidence),
    jsonb_build_array(f.started_at, f.ended_at, f.outcome, f.evidence)
  from widget_internal.call_states k
  full join (
    select s.*
    from (select distinct e.widget_id from public.widget_analytics e) w
    cross join lateral widget_internal.states_of_widget(w.widget_id) s
  ) f on f.widget_id = k.widget_id and f.session_id = k.session_id and f.call_id = k.call_id
  where k.archived_at is null
    -- A state that has waited for its start in vain is forgotten.
    and (k.call_id is not null or f.started_at is not null or f.last_event_at > now() - interval '7 days')
    and to_jsonb(k) - v_places is distinct from to_jsonb(f) - v_places;
end
$$;

comment on function widget_internal.widget_calls_differences() is
  'Calls whose state is not what the ledger gives, each with [started_at, ended_at, outcome, evidence] as kept and as '
  'computed; calls whose events the archive took are left out. Good: no rows. Reads the whole ledger.';


create function widget_internal.rebuild_calls()
returns bigint
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_widget_ids uuid[];
  v_session_ids text[];
begin
  select array_agg(s.widget_id), array_agg(s.session_id) into v_widget_ids, v_session_ids
  from (select distinct d.widget_id, d.session_id from widget_internal.widget_calls_differences() d) s;
  -- No event may come between the look at the ledger and what is written for it.
  perform pg_advisory_xact_lock(widget_internal.receipts_key());
  perform widget_internal.rejoin_sessions(v_widget_ids, v_session_ids);
  return coalesce(cardinality(v_session_ids), 0);
end
$$;

comment on function widget_internal.rebuild_calls() is
  'Computes the calls of all sessions anew that widget_calls_differences() names, as after a time with disabled triggers, '
  'and returns how many sessions these were. Reads the whole ledger; events wait until it is done.';
