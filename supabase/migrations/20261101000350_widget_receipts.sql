-- A bill as of a past moment must not change afterwards (as_of). An event whose transaction began before that moment
-- and ends after it would change it, if it were dated by now(). So the moment of receipt is read under a lock, which
-- the writer holds until its transaction ends: who takes that lock alone knows that all earlier receipts are in.

create function widget_internal.receipts_key()
returns bigint
language plpgsql immutable parallel safe
set search_path = ''
as $$
begin
  return hashtextextended('widget_internal: receipts', 0);
end
$$;

comment on function widget_internal.receipts_key() is
  'The key of the advisory lock that writers share, and that cut_off() takes alone.';


create function widget_internal.receipt_time()
returns timestamptz
language plpgsql volatile
set search_path = ''
as $$
declare
  v_microseconds bigint := nullif(current_setting('widget_internal.receipt_time', true), '')::bigint;
begin
  -- One moment for the whole transaction: the ages in a batch count from the same receipt.
  if v_microseconds is null then
    perform pg_advisory_xact_lock_shared(widget_internal.receipts_key());
    v_microseconds := extract(epoch from clock_timestamp()) * 1000000;
    perform set_config('widget_internal.receipt_time', v_microseconds::text, true);
  end if;
  return timestamptz 'epoch' + v_microseconds * interval '1 microsecond';
end
$$;

comment on function widget_internal.receipt_time() is
  'The moment at which the database takes an event in: later than every cut_off() that the event is not counted in.';


create function widget_internal.cut_off()
returns timestamptz
language plpgsql volatile
set search_path = ''
as $$
declare
  v_cut_off timestamptz;
begin
  begin
    -- Whoever waits for a lock holds up those behind: briefly, or not at all.
    perform set_config('lock_timeout', '2s', true);
    perform pg_advisory_xact_lock(widget_internal.receipts_key());
    v_cut_off := clock_timestamp();
    -- Undoing this block gives the lock back at once, and the setting too; the variable keeps its value.
    raise exception using errcode = 'WA001';
  exception
    when sqlstate 'WA001' then
      return v_cut_off;
    when lock_not_available then
      raise exception 'a transaction that writes events has been running for more than 2 seconds; nothing was changed'
        using errcode = 'lock_not_available', hint = 'Try again when it is over.';
  end;
end
$$;

comment on function widget_internal.cut_off() is
  'A moment by which all that was received is committed: a bill as of it, asked for in a later statement, is final.';


revoke all on function widget_internal.receipts_key() from public, anon, authenticated, service_role;
revoke all on function widget_internal.receipt_time() from public, anon, authenticated, service_role;
revoke all on function widget_internal.cut_off() from public, anon, authenticated, service_role;
