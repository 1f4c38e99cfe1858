-- What an event must look like is said by domains instead of the ledger's check constraints. PostgreSQL reads the text
-- of each check constraint anew for each statement: on an insert of one row the seven cost more than the row and its
-- indexes (docs/performance.md). A domain's check is read once a connection, and says the same. (widget_calls, which is
-- written less often, keeps its constraints: a function that returns a domain's column as text has to say so.)

create domain widget_internal.event_type as text
  constraint event_type_is_known check (
    value in ('widget_load', 'widget_open', 'call_start', 'call_heartbeat', 'call_end', 'call_error')
  );
comment on domain widget_internal.event_type is 'What a widget can report.';

create domain widget_internal.event_source as text
  constraint source_is_known check (value in ('browser', 'server', 'provider', 'operator', 'inferred'));
comment on domain widget_internal.event_source is
  'Who says so: operator, provider, server, browser, or inferred by the cleanup; the earlier in this list outranks (R5).';

create domain widget_internal.session_id as text collate "C"
  constraint session_id_has_1_to_255_characters check (length(value) between 1 and 255);
comment on domain widget_internal.session_id is 'The sender''s name for one load of a widget.';

create domain widget_internal.call_id as text collate "C"
  constraint call_id_has_1_to_255_characters check (length(value) between 1 and 255);
comment on domain widget_internal.call_id is 'The sender''s name for a call of its session.';

create domain widget_internal.event_seq as integer
  constraint seq_starts_at_1 check (value >= 1);
comment on domain widget_internal.event_seq is 'The sender''s running number in its session.';

create domain widget_internal.event_timestamp as timestamptz
  constraint timestamp_is_finite check (isfinite(value));
comment on domain widget_internal.event_timestamp is 'A moment at which an event happened.';

create domain widget_internal.event_properties as jsonb
  constraint properties_are_an_object check (jsonb_typeof(value) = 'object');
comment on domain widget_internal.event_properties is 'Small extras of an event.';


-- The rows are written once more: on a project with very many events, at a quiet hour.
alter table public.widget_analytics
  drop constraint event_type_is_known,
  drop constraint source_is_known,
  drop constraint session_id_has_1_to_255_characters,
  drop constraint call_id_has_1_to_255_characters,
  drop constraint seq_starts_at_1,
  drop constraint timestamp_is_finite,
  drop constraint properties_are_an_object,
  alter column event_type type widget_internal.event_type,
  alter column session_id type widget_internal.session_id,
  alter column "timestamp" type widget_internal.event_timestamp,
  alter column call_id type widget_internal.call_id,
  alter column seq type widget_internal.event_seq,
  alter column source type widget_internal.event_source,
  alter column properties type widget_internal.event_properties;
