-- The moment of receipt is read under a lock that the writer holds until it commits. A cut-off takes that lock alone,
-- so nothing received before the cut-off can be committed after it: a bill as of a past moment never changes.

create function widget_internal.receipts_key()
returns bigint
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
  return hashtextextended('widget_internal: receipts', 0);
end
$$;

comment on function widget_internal.receipts_key() is
  'The key of the advisory lock that writers share until they commit, and that cut_off() takes alone.';


create function widget_internal.receipt_time()
returns timestamptz
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_microseconds bigint := nullif(current_setting('widget_internal.receipt_time', true), '')::bigint;
begin
  -- One moment for the whole transaction: the ages in a batch count from the same receipt.
  if v_microseconds is null then
    perform pg_advisory_xact_lock_shared(widget_internal.receipts_key());
    v_microseconds := date_part('epoch', clock_timestamp()) * 1000000;
    perform set_config('widget_internal.receipt_time', v_microseconds::text, true);
  end if;
  return timestamptz 'epoch' + v_microseconds * interval '1 microsecond';
end
$$;

comment on function widget_internal.receipt_time() is
  'When the database takes this transaction''s events in. Holds the receipt lock until commit, so that a cut-off taken '
  'later includes these events.';


create function widget_internal.cut_off()
returns timestamptz
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_cut_off timestamptz;
begin
  begin
    -- A session that waits for a lock holds up those behind it: hence briefly, or not at all.
    perform set_config('lock_timeout', '2s', true);
    perform pg_advisory_xact_lock(widget_internal.receipts_key());
    v_cut_off := clock_timestamp();
    -- Undoing this block releases the lock at once, and the setting too; the variable keeps its value.
    raise exception using errcode = 'WA001';
  exception
    when sqlstate 'WA001' then
      -- What this transaction takes in from now on is received later.
      perform set_config('widget_internal.receipt_time', '', true);
      return v_cut_off;
    when lock_not_available then
      raise exception 'a transaction that writes events has been running for more than 2 seconds; nothing was changed'
        using errcode = 'lock_not_available', hint = 'Try again when it is over.';
  end;
end
$$;

comment on function widget_internal.cut_off() is
  'A moment by which all that was received is committed: a bill as of it, asked for in a later statement, is final. '
  'Raises 55P03 where a writer''s transaction stays open for more than 2 seconds.';
