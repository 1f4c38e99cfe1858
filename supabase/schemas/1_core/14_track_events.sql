-- The two RPCs that widgets call: thin wrappers, which run as their caller, over functions that may write.

create function widget_internal.record_event(event jsonb)
returns jsonb
language plpgsql volatile
-- definer because refusals are counted and answered by functions that nobody else may call
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_event jsonb := record_event.event;
  v_answer jsonb;
  v_reason text;
begin
  -- A gateway may pass a form field of JSON on as a string.
  if jsonb_typeof(v_event -> 'properties') = 'string' then
    v_event := v_event || jsonb_build_object('properties', widget_internal.unwrap_json(v_event -> 'properties'));
  end if;
  v_answer := widget_internal.record_events(jsonb_build_array(v_event));
  v_reason := v_answer #>> '{rejected,0,reason}';
  if v_reason is null or v_answer ? 'code' then
    return v_answer;
  elsif v_reason = widget_internal.door_problem() then
    return widget_internal.refusal_answer(403, '42501', v_reason);
  end if;
  return widget_internal.refusal_answer(400, '22023', v_reason);
end
$$;

comment on function widget_internal.record_event(jsonb) is
  'What track_event() does: a batch of one, whose refusal is the answer''s own.';


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
  return widget_internal.record_event(jsonb_build_object(
    'widget_id', track_event.widget_id, 'event_type', track_event.event_type, 'session_id', track_event.session_id,
    'page_url', track_event.page_url, 'event_id', track_event.event_id, 'call_id', track_event.call_id,
    'seq', track_event.seq, 'age_ms', track_event.age_ms, 'properties', track_event.properties
  ));
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
  return widget_internal.record_events(track_events.events);
end
$$;

comment on function public.track_events(jsonb) is
  'Takes up to 1000 events: an array of objects with the arguments of track_event() as keys. '
  'Answers {"accepted": n, "duplicates": n, "rejected": [{"index": i, "reason": "field: why"}]}; one bad event never '
  'costs another. HTTP 400 (22023): not an array. 413 (54000): too many. 429 (53400): at least one is over quota; the '
  'others are stored. Send all again after Retry-After (in the body: retry_after) seconds.';
