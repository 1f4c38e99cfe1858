-- The two RPCs that widgets call: thin wrappers, which run as their caller, over the function that may write.

create function public.track_event(
  widget_id uuid default null, event_type text default null, session_id text default null, page_url text default null,
  event_id uuid default null, call_id text default null, seq integer default null, age_ms bigint default 0,
  properties jsonb default null
)
returns jsonb
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  return widget_internal.record_events(jsonb_build_array(jsonb_build_object(
    'widget_id', track_event.widget_id, 'event_type', track_event.event_type, 'session_id', track_event.session_id,
    'page_url', track_event.page_url, 'event_id', track_event.event_id, 'call_id', track_event.call_id,
    'seq', track_event.seq, 'age_ms', track_event.age_ms, 'properties', track_event.properties
  )), true);
end
$$;

comment on function public.track_event(uuid, text, text, text, uuid, text, integer, bigint, jsonb) is
  'Takes one event of a widget. age_ms: how long ago it happened, by the sender''s own clock. '
  'Answers {"accepted", "duplicates", "rejected"}: an event_id that is already stored is a success and changes nothing. '
  'HTTP 403 (42501): the widget is unknown, not active or not allowed on the page''s domain. 400 (22023): the message '
  'names the field. 429 (53400): over quota; Retry-After and retry_after say for how many seconds. 503 (25006): the '
  'database is read-only at the moment. Refused events are counted in widget_refusals.';


create function public.track_events(events jsonb default null)
returns jsonb
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  return widget_internal.record_events(track_events.events, false);
end
$$;

comment on function public.track_events(jsonb) is
  'Takes up to 1000 events: an array of objects with the arguments of track_event() as keys. '
  'Answers {"accepted": n, "duplicates": n, "rejected": [{"index": i, "reason": "field: why"}]}; one bad event never '
  'costs another. HTTP 400 (22023): not an array. 413 (54000): too many. 429 (53400): at least one is over quota; the '
  'others are stored. Send all again after Retry-After (in the body: retry_after) seconds.';
