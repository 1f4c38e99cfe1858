-- The cleanup: a call that has been open for too long, as after a browser's crash, gets an inferred end in the ledger.

create table public.widget_cleanup_runs (
  id bigint generated always as identity primary key,
  started_at timestamptz not null default clock_timestamp(),
  finished_at timestamptz not null default clock_timestamp(),
  calls_checked integer not null default 0,
  calls_completed integer not null default 0,
  calls_still_active integer not null generated always as (calls_checked - calls_completed) stored,
  calls_left bigint not null default 0,
  error text,
  constraint runs_finish_after_they_start check (finished_at >= started_at)
);

comment on table public.widget_cleanup_runs is
  'Each run of complete_stale_sessions(). Good: at least one every 30 minutes, none with an error.';
comment on column public.widget_cleanup_runs.calls_checked is 'Open calls that had started more than stale_after ago.';
comment on column public.widget_cleanup_runs.calls_completed is 'Of these, how many got an inferred end.';
comment on column public.widget_cleanup_runs.calls_still_active is 'Of these, how many had a heartbeat younger than stale_after.';
comment on column public.widget_cleanup_runs.calls_left is 'How many stale calls did not fit into the run; the next run completes them.';
comment on column public.widget_cleanup_runs.error is 'Why the run failed, which then changed nothing; null if it succeeded.';

create index widget_cleanup_runs_started_at_idx on public.widget_cleanup_runs (started_at);
comment on index public.widget_cleanup_runs_started_at_idx is 'Serves widget_internal.prune(), and "the latest runs".';

alter table public.widget_cleanup_runs enable row level security;


create function public.complete_stale_sessions(stale_after interval default '30 minutes')
returns table (calls_checked integer, calls_completed integer, calls_still_active integer, calls_left bigint)
language plpgsql volatile
-- definer because service_role has no right to write the ledger
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_part constant integer := 1000;
  v_started_at constant timestamptz := clock_timestamp();
  -- Half of what the statement may take: the rest is for committing, and for a busy machine.
  v_until constant timestamptz := v_started_at
    + coalesce(nullif(current_setting('statement_timeout')::interval, interval '0'), '10 minutes') / 2;
  v_horizon timestamptz;
  v_ended integer;
  v_error text;
begin
  perform widget_internal.refuse_visitors();
  if complete_stale_sessions.stale_after is null or complete_stale_sessions.stale_after < interval '0' then
    raise exception 'stale_after: must be an interval of zero or more'
      using errcode = 'invalid_parameter_value', hint = 'Leave it out for 30 minutes.';
  elsif not pg_try_advisory_xact_lock(hashtextextended('widget_internal: cleanup', 0)) then
    raise notice 'another cleanup is running';
    return query select 0, 0, 0, null::bigint;
    return;
  end if;

  calls_checked := 0;
  calls_completed := 0;
  calls_left := 0;
  begin
    if current_setting('transaction_isolation') not in ('read committed', 'read uncommitted') then
      -- It would end calls over heartbeats that it cannot see.
      raise exception 'a cleanup runs in a read committed transaction only' using errcode = 'feature_not_supported';
    end if;
    v_horizon := now() - complete_stale_sessions.stale_after;
    loop
      insert into public.widget_analytics (widget_id, event_type, session_id, call_id, source, "timestamp")
      select
        c.widget_id, 'call_end', c.session_id, c.call_id, 'inferred',
        coalesce(greatest(c.heartbeat_at, c.matched_heartbeat_at), c.started_at + s.assumed_call_duration)
      from widget_internal.call_states c
      cross join widget_internal.settings s
      where c.ended_at is null and c.started_at < v_horizon
        and greatest(c.heartbeat_at, c.matched_heartbeat_at) > v_horizon is not true
      order by c.started_at
      limit v_part;
      get diagnostics v_ended = row_count;
      calls_completed := calls_completed + v_ended;
      exit when v_ended < v_part or clock_timestamp() > v_until;
    end loop;
    -- What is still open is alive, or left for the next run.
    select
      count(*) filter (where greatest(c.heartbeat_at, c.matched_heartbeat_at) > v_horizon) + calls_completed,
      count(*) filter (where greatest(c.heartbeat_at, c.matched_heartbeat_at) > v_horizon is not true)
    into calls_checked, calls_left
    from widget_internal.call_states c
    where c.ended_at is null and c.started_at < v_horizon;
  exception when others then
    -- Not raised again: that would undo the record of the failure. Nothing else is left of the run.
    calls_completed := 0;
    v_error := sqlstate || ': ' || sqlerrm;
    perform set_config('response.status', '500', true);
    raise warning 'complete_stale_sessions failed: %', v_error;
  end;

  return query
  insert into public.widget_cleanup_runs as r (started_at, calls_checked, calls_completed, calls_left, error)
  values (
    v_started_at, complete_stale_sessions.calls_checked, complete_stale_sessions.calls_completed,
    complete_stale_sessions.calls_left, v_error
  )
  returning r.calls_checked, r.calls_completed, r.calls_still_active, r.calls_left;
end
$$;

comment on function public.complete_stale_sessions(interval) is
  'Gives each call that is open for longer than stale_after, with no heartbeat since, an inferred call_end. Such a call '
  'ended at its last heartbeat, else assumed_call_duration (30 minutes) after its start: no bill depends on stale_after, or '
  'on when this runs. Safe at any moment, twice at once, after days without a run. Does what fits into half of '
  'statement_timeout; calls_left says how many calls are the next run''s, null that another run is in progress and this one did '
  'nothing. Every run leaves a row in widget_cleanup_runs; one that fails changes nothing else and answers HTTP 500.';
