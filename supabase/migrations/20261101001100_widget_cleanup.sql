-- Browsers crash in mid-call. What is open for too long is over, and the ledger gets an event that says so (R7).

create table public.widget_cleanup_runs (
  id bigint generated always as identity primary key,
  started_at timestamptz not null default clock_timestamp(),
  finished_at timestamptz,
  calls_checked integer not null default 0,
  calls_completed integer not null default 0,
  calls_still_active integer not null default 0,
  error text,
  constraint runs_finish_after_they_start check (finished_at >= started_at),
  constraint checked_calls_are_completed_or_active check (calls_checked = calls_completed + calls_still_active)
);

comment on table public.widget_cleanup_runs is
  'Each run of complete_stale_sessions(). Good: one at least every 30 minutes, each with no error.';
comment on column public.widget_cleanup_runs.calls_checked is 'Open calls that had started more than stale_after ago.';
comment on column public.widget_cleanup_runs.calls_completed is 'Of these, how many got an inferred end.';
comment on column public.widget_cleanup_runs.calls_still_active is 'Of these, how many had a heartbeat younger than stale_after.';
comment on column public.widget_cleanup_runs.error is 'Why the run failed, and changed nothing; null where it did not.';

alter table public.widget_cleanup_runs enable row level security;
revoke all on table public.widget_cleanup_runs from public, anon, authenticated, service_role;
revoke all on sequence public.widget_cleanup_runs_id_seq from public, anon, authenticated, service_role;
grant select on table public.widget_cleanup_runs to service_role;


create function widget_internal.complete_stale_calls(
  stale_after interval, out calls_checked integer, out calls_completed integer
)
language plpgsql volatile
set search_path = ''
as $$
#variable_conflict use_column
declare
  v_horizon constant timestamptz := now() - complete_stale_calls.stale_after;
  v_stale public.widget_calls[];
begin
  select array_agg(c) into v_stale from public.widget_calls c where c.ended_at is null and c.started_at < v_horizon;
  perform widget_internal.lock_sessions(array(
    select widget_internal.session_key(s.widget_id, s.session_id) from unnest(v_stale) s
  ));

  -- Only now, with their sessions held, is it certain which of them are still open.
  with checked as materialized (
    select s.widget_id, s.session_id, s.call_id, c.started_at, c.last_heartbeat_at
    from unnest(v_stale) s
    cross join lateral widget_internal.session_calls(s.widget_id, s.session_id) c
    where c.call_id = s.call_id and c.ended_at is null and c.started_at < v_horizon
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
end
$$;

comment on function widget_internal.complete_stale_calls(interval) is 'The work of complete_stale_sessions().';


create function public.complete_stale_sessions(stale_after interval default '30 minutes')
returns table (calls_checked integer, calls_completed integer, calls_still_active integer)
language plpgsql volatile
-- definer because service_role has no right to write the ledger
security definer
set search_path = ''
as $$
#variable_conflict use_column
declare
  v_run public.widget_cleanup_runs;
begin
  if complete_stale_sessions.stale_after is null or complete_stale_sessions.stale_after < interval '0' then
    raise exception 'stale_after: must be an interval of zero or more'
      using errcode = 'invalid_parameter_value', hint = 'Leave it out for 30 minutes.';
  end if;

  insert into public.widget_cleanup_runs default values returning * into v_run;
  begin
    select c.calls_checked, c.calls_completed
    into v_run.calls_checked, v_run.calls_completed
    from widget_internal.complete_stale_calls(complete_stale_sessions.stale_after) c;
  exception when others then
    -- Not raised again: that would undo the record of the failure.
    v_run.error := sqlstate || ': ' || sqlerrm;
    perform set_config('response.status', '500', true);
    raise warning 'complete_stale_sessions failed: %', v_run.error;
  end;

  update public.widget_cleanup_runs r
  set finished_at = clock_timestamp(), error = v_run.error,
    calls_checked = v_run.calls_checked, calls_completed = v_run.calls_completed,
    calls_still_active = v_run.calls_checked - v_run.calls_completed
  where r.id = v_run.id
  returning r.* into v_run;
  return query select v_run.calls_checked, v_run.calls_completed, v_run.calls_still_active;
end
$$;

comment on function public.complete_stale_sessions(interval) is
  'Gives each call that is open for longer than stale_after, with no heartbeat since, an inferred call_end: at its last '
  'heartbeat, else at its start plus stale_after (R7). Safe at any moment, twice at once, after days without a run. '
  'Every run leaves a row in widget_cleanup_runs; one that fails changes nothing else and answers HTTP 500.';

revoke all on function widget_internal.complete_stale_calls(interval) from public, anon, authenticated, service_role;
revoke all on function public.complete_stale_sessions(interval) from public, anon, authenticated, service_role;
grant execute on function public.complete_stale_sessions(interval) to service_role;
