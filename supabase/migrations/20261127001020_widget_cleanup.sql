-- The cleanup keeps the calls of what it stores itself. The ledger's trigger would look the widgets up and lock them, for
-- sessions that the cleanup holds and whose widgets cannot go, as they have events.

create or replace function widget_internal.complete_stale_calls(
  stale_after interval, out calls_checked integer, out calls_completed integer
)
language plpgsql volatile
set search_path = ''
as $$
#variable_conflict use_column
declare
  v_horizon constant timestamptz := now() - complete_stale_calls.stale_after;
  v_widget_ids uuid[];
  v_session_ids text[];
  -- Any other isolation is left to the trigger, which knows what it needs.
  v_keeps_calls constant boolean := current_setting('transaction_isolation') = 'read committed';
begin
  select array_agg(s.widget_id), array_agg(s.session_id) into v_widget_ids, v_session_ids
  from (
    select distinct c.widget_id, c.session_id
    from public.widget_calls c
    where c.ended_at is null and c.started_at < v_horizon
  ) s;
  if v_widget_ids is null then
    calls_checked := 0;
    calls_completed := 0;
    return;
  end if;
  perform widget_internal.lock_sessions(array(
    select widget_internal.session_key(s.widget_id, s.session_id)
    from unnest(v_widget_ids, v_session_ids) s (widget_id, session_id)
  ));

  perform set_config('widget_internal.door_stores', case when v_keeps_calls then 'yes' else '' end, true);
  -- Only now, with their sessions held, is it certain which of the calls are still open.
  with checked as materialized (
    select c.widget_id, c.session_id, c.call_id, c.started_at, c.last_heartbeat_at
    from widget_internal.calls_of_sessions(v_widget_ids, v_session_ids) c
    where c.ended_at is null and c.started_at < v_horizon
  ),
  inferred as (
    insert into public.widget_analytics (widget_id, event_type, session_id, call_id, source, "timestamp")
    select
      c.widget_id, 'call_end', c.session_id, c.call_id, 'inferred',
      coalesce(c.last_heartbeat_at, c.started_at + complete_stale_calls.stale_after)
    from checked c
    where c.last_heartbeat_at is null or c.last_heartbeat_at <= v_horizon
    returning 1
  )
  select (select count(*) from checked), (select count(*) from inferred)
  into complete_stale_calls.calls_checked, complete_stale_calls.calls_completed;
  perform set_config('widget_internal.door_stores', '', true);
  if v_keeps_calls and complete_stale_calls.calls_completed > 0 then
    perform widget_internal.refresh_calls(v_widget_ids, v_session_ids);
  end if;
end
$$;
