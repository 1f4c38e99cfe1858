-- What a tracking call takes in the database itself, in milliseconds, since pg_stat_statements was last reset.
-- Good: a mean below 5, and about 1000 bytes of write-ahead log for each event of a call.
-- No rows: nobody has called yet. It needs the extension pg_stat_statements, which hosted projects have.
select
  t.called, sum(s.calls)::bigint as calls, round((sum(s.total_exec_time) / sum(s.calls))::numeric, 3) as mean_ms,
  round(max(s.stddev_exec_time)::numeric, 3) as stddev_ms, round(max(s.max_exec_time)::numeric, 3) as slowest_ms,
  round(sum(s.wal_bytes) / sum(s.calls)) as wal_bytes_per_call
from extensions.pg_stat_statements s
cross join lateral (select substring(s.query from '\mtrack_events?\M') as called) t
where s.dbid = (select d.oid from pg_database d where d.datname = current_database())
  and t.called is not null and s.query !~* '^\s*(create|comment|grant|revoke|alter|drop)\M' and s.toplevel
group by t.called
order by t.called;
