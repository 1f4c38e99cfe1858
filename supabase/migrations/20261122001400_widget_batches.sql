-- A batch asks for each widget's quota once, when it is known how many of its events are good.

create or replace function widget_internal.json_event_problem(event jsonb)
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
  -- One look at all fields; only where one is wrong, which.
  if event - v_fields <> '{}' or array['object', 'array', 'boolean'] && array[
    jsonb_typeof(event -> 'widget_id'), jsonb_typeof(event -> 'event_type'), jsonb_typeof(event -> 'session_id'),
    jsonb_typeof(event -> 'page_url'), jsonb_typeof(event -> 'event_id'), jsonb_typeof(event -> 'call_id'),
    jsonb_typeof(event -> 'seq'), jsonb_typeof(event -> 'age_ms')
  ] then
    for v_field in select f.key, jsonb_typeof(f.value) as type from jsonb_each(json_event_problem.event) f loop
      if v_field.key <> all (v_fields) then
        return left(v_field.key, 64) || ': is not a field of an event';
      elsif v_field.key <> 'properties' and v_field.type in ('object', 'array', 'boolean') then
        return v_field.key || ': must be a string or a number';
      end if;
    end loop;
  end if;

  return case
    when event ->> 'event_id' is not null and widget_internal.to_uuid(event ->> 'event_id') is null
      then 'event_id: must be a UUID, or be left out'
    when event ->> 'seq' !~ '^[0-9]{1,9}$' then 'seq: must be a whole number from 1 to 999999999'
    when event ->> 'age_ms' !~ '^-?[0-9]{1,15}(\.[0-9]+)?$' then 'age_ms: must be a number of milliseconds'
  end;
end
$$;


create or replace function widget_internal.record_events(events jsonb)
returns jsonb
language plpgsql volatile
-- definer because the anonymous role has no right on any table
security definer
set search_path = ''
as $$
declare
  v_events constant jsonb := widget_internal.unwrap_json(record_events.events);
  v_item record;
  v_event jsonb;
  v_widget_id uuid;
  v_asked_for text;
  v_verdict text;
  v_problem text;
  v_refusals widget_internal.refusal[] := array[]::widget_internal.refusal[];
  v_rejected jsonb := jsonb_build_array();
  v_new public.widget_analytics[] := array[]::public.widget_analytics[];
  v_indexes integer[] := array[]::integer[];
  v_good record;
  v_until timestamptz;
  v_over_quota uuid[] := array[]::uuid[];
  v_quota_refusal jsonb := '{}'::jsonb;
  v_stored integer := 0;
  v_demos integer := 0;
begin
  if widget_internal.is_read_only() then
    return widget_internal.read_only_answer();
  elsif jsonb_typeof(v_events) is distinct from 'array' then
    return widget_internal.refusal_answer(400, '22023', 'events: must be a JSON array of events');
  elsif jsonb_array_length(v_events) > 1000 then
    return widget_internal.refusal_answer(413, '54000', 'events: must be at most 1000 in one call');
  end if;

  for v_item in select e.value, e.ordinality - 1 as index from jsonb_array_elements(v_events) with ordinality e loop
    v_event := v_item.value;
    -- A batch is mostly one widget's: ask once.
    if v_asked_for is distinct from v_event ->> 'widget_id' then
      v_asked_for := v_event ->> 'widget_id';
      v_widget_id := widget_internal.to_uuid(v_asked_for);
      v_verdict := widget_internal.ask_door(v_widget_id);
    end if;

    if v_widget_id is null then
      v_problem := 'widget_id: must be a UUID';
      v_refusals := v_refusals || (null, 'invalid_input', 'widget_id')::widget_internal.refusal;
    elsif v_verdict not in ('open', 'demo') then
      v_problem := widget_internal.door_problem();
      v_refusals := v_refusals || widget_internal.door_refusal(v_verdict, v_widget_id, widget_internal.page_host());
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
        v_indexes := v_indexes || v_item.index::integer;
      end if;
    end if;

    if v_problem is not null then
      v_rejected := v_rejected || jsonb_build_object('index', v_item.index, 'reason', v_problem);
    end if;
  end loop;

  for v_good in select n.widget_id, count(*)::integer as events from unnest(v_new) n group by n.widget_id order by 1 loop
    v_until := widget_internal.over_quota(v_good.widget_id, v_good.events);
    if v_until is not null then
      v_over_quota := v_over_quota || v_good.widget_id;
      v_quota_refusal := widget_internal.quota_refusal(v_good.widget_id, v_until, v_good.events);
    end if;
  end loop;

  insert into public.widget_analytics
  select n.* from unnest(v_new) n where n.widget_id <> all (v_over_quota)
  on conflict do nothing;
  get diagnostics v_stored = row_count;
  if v_refusals <> '{}' then
    perform widget_internal.count_refusals(v_refusals);
  end if;

  -- Sent again as a whole once there is room, the events that are stored now are duplicates then.
  v_rejected := v_rejected || coalesce(
    (
      select jsonb_agg(jsonb_build_object('index', v_indexes[n.ordinality], 'reason', v_quota_refusal ->> 'message'))
      from unnest(v_new) with ordinality n
      where n.widget_id = any (v_over_quota)
    ),
    '[]'
  );
  return v_quota_refusal || jsonb_build_object(
    'accepted', v_stored + v_demos,
    'duplicates', (select count(*) from unnest(v_new) n where n.widget_id <> all (v_over_quota)) - v_stored,
    'rejected', v_rejected
  );
end
$$;

comment on function public.track_events(jsonb) is
  'Takes up to 1000 events: an array of objects with the arguments of track_event() as keys. '
  'Answers {"accepted": n, "duplicates": n, "rejected": [{"index": i, "reason": "field: why"}]}; one bad event never '
  'costs another. HTTP 400 (22023): not an array. 413 (54000): too many. 429 (53400): at least one is over quota; the '
  'others are stored. Send all again after Retry-After (in the body: retry_after) seconds.';
