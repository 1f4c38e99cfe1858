-- Many events in at once, for batches and beacons: each is judged on its own, and one statement stores the good ones.

create function widget_internal.to_uuid(value text)
returns uuid
language plpgsql immutable
set search_path = ''
as $$
begin
  if to_uuid.value ~ '^[0-9a-fA-F]{8}-?([0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}$' then
    return to_uuid.value::uuid;
  end if;
  return null;
end
$$;

comment on function widget_internal.to_uuid(text) is 'The UUID that a text is; null where it is none.';


create function widget_internal.json_event_problem(event jsonb)
returns text
language plpgsql immutable
set search_path = ''
as $$
declare
  v_fields constant text[] := array[
    'widget_id', 'event_type', 'session_id', 'page_url', 'event_id', 'call_id', 'seq', 'age_ms', 'properties'
  ];
  v_field record;
begin
  for v_field in select f.key, jsonb_typeof(f.value) as type from jsonb_each(json_event_problem.event) f loop
    if v_field.key <> all (v_fields) then
      return left(v_field.key, 64) || ': is not a field of an event';
    elsif v_field.key <> 'properties' and v_field.type in ('object', 'array', 'boolean') then
      return v_field.key || ': must be a string or a number';
    end if;
  end loop;

  return case
    when event ->> 'event_id' is not null and widget_internal.to_uuid(event ->> 'event_id') is null
      then 'event_id: must be a UUID, or be left out'
    when event ->> 'seq' !~ '^[0-9]{1,9}$' then 'seq: must be a whole number from 1 to 999999999'
    when event ->> 'age_ms' !~ '^-?[0-9]{1,15}(\.[0-9]+)?$' then 'age_ms: must be a number of milliseconds'
  end;
end
$$;

comment on function widget_internal.json_event_problem(jsonb) is
  'What keeps a JSON object from being read as the arguments of track_event(); null where nothing does.';


create function widget_internal.record_events(events jsonb)
returns jsonb
language plpgsql volatile
-- definer because the anonymous role has no right on any table
security definer
set search_path = ''
as $$
declare
  v_events constant jsonb := widget_internal.unwrap_json(record_events.events);
  v_page_host constant text := widget_internal.page_host();
  v_item record;
  v_event jsonb;
  v_widget_id uuid;
  v_asked_for uuid;
  v_verdict text;
  v_problem text;
  v_refusals widget_internal.refusal[] := array[]::widget_internal.refusal[];
  v_rejected jsonb := jsonb_build_array();
  v_new public.widget_analytics[] := array[]::public.widget_analytics[];
  v_stored integer := 0;
  v_demos integer := 0;
begin
  if jsonb_typeof(v_events) is distinct from 'array' then
    return widget_internal.refusal_answer(400, '22023', 'events: must be a JSON array of events');
  elsif jsonb_array_length(v_events) > 1000 then
    return widget_internal.refusal_answer(413, '54000', 'events: must be at most 1000 in one call');
  end if;

  for v_item in select e.value, e.ordinality - 1 as index from jsonb_array_elements(v_events) with ordinality e loop
    v_event := v_item.value;
    v_widget_id := widget_internal.to_uuid(v_event ->> 'widget_id');
    -- A batch is mostly one widget's: ask once.
    if v_widget_id is distinct from v_asked_for then
      v_verdict := widget_internal.ask_door(v_widget_id, v_page_host);
      v_asked_for := v_widget_id;
    end if;

    if v_widget_id is null then
      v_problem := 'widget_id: must be a UUID';
      v_refusals := v_refusals || (null, 'invalid_input', 'widget_id')::widget_internal.refusal;
    elsif v_verdict not in ('open', 'demo') then
      v_problem := widget_internal.door_problem();
      v_refusals := v_refusals || widget_internal.door_refusal(v_verdict, v_widget_id, v_page_host);
    else
      v_problem := coalesce(
        widget_internal.json_event_problem(v_event),
        widget_internal.event_problem(
          v_event ->> 'event_type', v_event ->> 'session_id', v_event ->> 'call_id', (v_event ->> 'seq')::integer,
          (v_event ->> 'age_ms')::numeric::bigint, v_event -> 'properties'
        )
      );
      if v_problem is not null then
        v_refusals := v_refusals
          || (v_widget_id, 'invalid_input', split_part(v_problem, ':', 1))::widget_internal.refusal;
      elsif v_verdict = 'demo' then
        v_demos := v_demos + 1;
      else
        v_new := v_new || widget_internal.new_event(
          v_widget_id, v_event ->> 'event_type', v_event ->> 'session_id', v_event ->> 'page_url',
          (v_event ->> 'event_id')::uuid, v_event ->> 'call_id', (v_event ->> 'seq')::integer,
          (v_event ->> 'age_ms')::numeric::bigint, v_event -> 'properties'
        );
      end if;
    end if;

    if v_problem is not null then
      v_rejected := v_rejected || jsonb_build_object('index', v_item.index, 'reason', v_problem);
    end if;
  end loop;

  insert into public.widget_analytics select n.* from unnest(v_new) n on conflict do nothing;
  get diagnostics v_stored = row_count;
  perform widget_internal.count_refusals(v_refusals);
  return jsonb_build_object(
    'accepted', v_stored + v_demos, 'duplicates', cardinality(v_new) - v_stored, 'rejected', v_rejected
  );
end
$$;

comment on function widget_internal.record_events(jsonb) is 'What track_events() does, with the right to write the ledger.';


create function public.track_events(events jsonb)
returns jsonb
language plpgsql volatile
set search_path = ''
as $$
begin
  return widget_internal.record_events(track_events.events);
end
$$;

comment on function public.track_events(jsonb) is
  'Takes up to 1000 events: an array of objects with the arguments of track_event() as keys. '
  'Answers {"accepted": n, "duplicates": n, "rejected": [{"index": i, "reason": "field: why"}]}; one bad event never '
  'costs another. HTTP 400 (22023): not an array. 413 (54000): too many.';

revoke all on function widget_internal.to_uuid(text) from public, anon, authenticated, service_role;
revoke all on function widget_internal.json_event_problem(jsonb) from public, anon, authenticated, service_role;
revoke all on function widget_internal.record_events(jsonb) from public, anon, authenticated, service_role;
revoke all on function public.track_events(jsonb) from public, anon, authenticated, service_role;
grant execute on function widget_internal.record_events(jsonb) to anon, authenticated, service_role;
grant execute on function public.track_events(jsonb) to anon, authenticated, service_role;
