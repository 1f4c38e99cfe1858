-- What a tracking call takes in the database itself, in milliseconds, since pg_stat_statements was last reset.
-- Good: a mean below 5, and about 1000 bytes of write-ahead log for each event of a call.
-- No rows: nobody has called yet, or the extension pg_stat_statements is not there.
select * from widget_internal.track_call_times();
