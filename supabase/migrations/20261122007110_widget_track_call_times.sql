-- How long the database takes for a tracking call, where it keeps such statistics: on Supabase it does.

create function widget_internal.track_call_times()
returns table (
  called text, calls bigint, mean_ms numeric, stddev_ms numeric, slowest_ms numeric, wal_bytes_per_call numeric
)
language plpgsql stable
set search_path = ''
as $$
declare
  v_statistics regclass := (
    select format('%I.pg_stat_statements', n.nspname)::regclass
    from pg_catalog.pg_extension e join pg_catalog.pg_namespace n on n.oid = e.extnamespace
    where e.extname = 'pg_stat_statements'
  );
begin
  if v_statistics is null then
    raise warning 'the extension pg_stat_statements is not there: the database keeps no times of statements';
    return;
  end if;

  for called, calls, mean_ms, stddev_ms, slowest_ms, wal_bytes_per_call in execute format(
    $sql$
      select
        t.called, sum(s.calls)::bigint, round((sum(s.total_exec_time) / sum(s.calls))::numeric, 3),
        round(max(s.stddev_exec_time)::numeric, 3), round(max(s.max_exec_time)::numeric, 3),
        round(sum(s.wal_bytes) / sum(s.calls))
      from %s s
      cross join lateral (select substring(s.query from '\mtrack_events?\M') as called) t
      where s.dbid = (select d.oid from pg_catalog.pg_database d where d.datname = current_database())
        and t.called is not null and s.query !~* '^\s*(create|comment|grant|revoke|alter|drop)\M' and s.toplevel
      group by t.called
      order by t.called
    $sql$,
    v_statistics
  ) loop
    return next;
  end loop;
exception when object_not_in_prerequisite_state then
  raise warning 'pg_stat_statements is not among shared_preload_libraries: the database keeps no times of statements';
end
$$;

comment on function widget_internal.track_call_times() is
  'What the statements that call track_event() or track_events() took in the database, since its statistics were last '
  'reset (pg_stat_statements). Good: a mean below 5 ms. No rows: nobody called, or the extension is not there.';

revoke all on function widget_internal.track_call_times() from public, anon, authenticated, service_role;
