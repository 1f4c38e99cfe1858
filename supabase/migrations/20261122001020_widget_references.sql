-- No event without its widget, said more cheaply than by a foreign key. That one locks the widget's row for each event
-- and writes the lock down: a fifth of what an event costs (docs/performance.md). The door looks the widget up anyway.

alter table public.widget_analytics drop constraint widget_analytics_widget_id_fkey;

-- Who adds events looks their widgets up: the door under the lock that writers share (receipts_key()), anyone else with
-- the rows locked, as a foreign key does it (keep_widget_calls()). Who deletes a widget looks for its events: at once, and
-- again at the very end, when the door's writers of that moment are done and new ones wait.

create function widget_internal.keep_widgets_with_events()
returns trigger
language plpgsql volatile
-- definer because who may delete a widget need not see its events
security definer
set search_path = ''
as $$
declare
  v_lock_timeout constant text := current_setting('lock_timeout');
  v_is_left_behind boolean;
begin
  if tg_op = 'TRUNCATE' then
    v_is_left_behind := exists (select from public.widget_analytics);
  else
    if tg_argv[0] = 'at the end' then
      -- An older snapshot would not show what the door has stored since.
      if current_setting('transaction_isolation') <> 'read committed' then
        raise exception 'widgets can only be deleted in a read committed transaction'
          using errcode = 'feature_not_supported';
      end if;
      perform set_config('lock_timeout', '2s', true);
      perform pg_advisory_xact_lock(widget_internal.receipts_key());
      perform set_config('lock_timeout', v_lock_timeout, true);
    end if;
    v_is_left_behind := exists (select from public.widget_analytics e where e.widget_id = old.id)
      and not exists (select from public.widgets w where w.id = old.id);
  end if;

  if v_is_left_behind then
    raise exception 'a widget that has events cannot be deleted' using errcode = 'foreign_key_violation',
      schema = 'public', table = 'widget_analytics', constraint = 'events_belong_to_a_widget',
      hint = 'Its bills rest on them. To end it: update widgets set is_active = false.';
  end if;
  return null;
exception when lock_not_available then
  raise exception 'a transaction that writes events has been running for more than 2 seconds; nothing was deleted'
    using errcode = 'lock_not_available', hint = 'Try again when it is over.';
end
$$;

comment on function widget_internal.keep_widgets_with_events() is
  'Raises (23503) where a widget goes, or changes its id, whose events are in the ledger.';

revoke all on function widget_internal.keep_widgets_with_events() from public, anon, authenticated, service_role;


create trigger widgets_with_events_stay
  after delete or update of id on public.widgets
  for each row execute function widget_internal.keep_widgets_with_events();

create constraint trigger widgets_with_events_stay_at_the_end
  after delete or update of id on public.widgets
  deferrable initially deferred
  for each row execute function widget_internal.keep_widgets_with_events('at the end');

create trigger widgets_with_events_stay_on_truncate
  before truncate on public.widgets
  for each statement execute function widget_internal.keep_widgets_with_events();

comment on index public.widget_analytics_widget_id_timestamp_idx is
  'Serves "what did this widget send, latest first", and keep_widgets_with_events(): has it any events?';
