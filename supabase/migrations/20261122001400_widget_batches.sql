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
set plan_cache_mode = force_generic_plan  -- else a new plan for each size of batch
as $$
declare
  v_fields constant text[] := array[
    'widget_id', 'event_type', 'session_id', 'page_url', 'event_id', 'call_id', 'seq', 'age_ms', 'properties'
  ];
  v_a_uuid constant text := '^[0-9a-fA-F]{8}-?([0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}$';
  -- Begins as JSON that is neither string nor number: where it could be one, the functions look.
  v_no_text constant text := '^([{[]|true$|false$)';
  v_events constant jsonb := widget_internal.unwrap_json(record_events.events);
  v_keeps_calls constant boolean := current_setting('transaction_isolation') = 'read committed';
  v_received_at timestamptz;
  v_user_agent text;
  v_index integer := -1;
  v_event jsonb;
  v_widget_id uuid;
  v_asked_for text;
  v_verdict text;
  v_problem text;
  v_seq text;
  v_age_ms text;
  v_refusals widget_internal.refusal[] := array[]::widget_internal.refusal[];
  v_rejected jsonb := jsonb_build_array();
  v_good public.widget_analytics[] := array[]::public.widget_analytics[];
  v_indexes integer[] := array[]::integer[];
  v_quota record;
  v_until timestamptz;
  v_over_quota uuid[] := array[]::uuid[];
  v_quota_refusal jsonb := '{}'::jsonb;
  v_stored record;
  v_demos integer := 0;
begin
  if widget_internal.is_read_only() then
    return widget_internal.read_only_answer();
  elsif jsonb_typeof(v_events) is distinct from 'array' then
    return widget_internal.refusal_answer(400, '22023', 'events: must be a JSON array of events');
  elsif jsonb_array_length(v_events) > 1000 then
    return widget_internal.refusal_answer(413, '54000', 'events: must be at most 1000 in one call');
  end if;

  -- As in record_event(): all that follows is later than earlier bills, and before a widget's end.
  v_received_at := widget_internal.receipt_time();
  v_user_agent := widget_internal.bare_user_agent();

  for v_event in select e.value from jsonb_array_elements(v_events) e loop
    v_index := v_index + 1;
    -- A batch is mostly one widget's: ask once.
    if v_asked_for is distinct from v_event ->> 'widget_id' then
      v_asked_for := v_event ->> 'widget_id';
      v_widget_id := widget_internal.to_uuid(v_asked_for);
      v_verdict := widget_internal.ask_door(v_widget_id);
    end if;

    v_problem := null;
    if v_widget_id is null then
      v_problem := 'widget_id: must be a UUID';
      v_refusals := v_refusals || (null, 'invalid_input', 'widget_id')::widget_internal.refusal;
    elsif v_verdict not in ('open', 'demo') then
      v_problem := widget_internal.door_problem();
      v_refusals := v_refusals || widget_internal.door_refusal(v_verdict, v_widget_id, widget_internal.page_host());
    else
      v_seq := v_event ->> 'seq';
      v_age_ms := v_event ->> 'age_ms';
      -- Nearly all are plainly good; of the others the functions say what is wrong, if anything is.
      if (
        v_event - v_fields = '{}' and not v_event ? 'properties'
        and v_event ->> 'event_type' in ('widget_load', 'widget_open', 'call_start', 'call_heartbeat', 'call_end', 'call_error')
        and length(v_event ->> 'session_id') between 1 and 255 and v_event ->> 'session_id' !~ v_no_text
        and (v_event ->> 'call_id' is null
          or length(v_event ->> 'call_id') between 1 and 255 and v_event ->> 'call_id' !~ v_no_text)
        and (v_event ->> 'event_id' is null or v_event ->> 'event_id' ~ v_a_uuid)
        and (v_event ->> 'page_url' is null or v_event ->> 'page_url' !~ v_no_text)
        and (v_seq is null or v_seq ~ '^[1-9][0-9]{0,8}$')
        and (v_age_ms is null or v_age_ms ~ '^[0-9]{1,8}$')
      ) is not true then
        v_problem := coalesce(
          widget_internal.json_event_problem(v_event),
          widget_internal.event_problem(
            v_event ->> 'event_type', v_event ->> 'session_id', v_event ->> 'call_id', v_seq::integer,
            v_age_ms::numeric::bigint, v_event -> 'properties'
          )
        );
      end if;

      if v_problem is not null then
        v_refusals := v_refusals
          || (v_widget_id, 'invalid_input', split_part(v_problem, ':', 1))::widget_internal.refusal;
      elsif v_verdict = 'demo' then
        v_demos := v_demos + 1;
      else
        v_good := v_good || row(
          coalesce((v_event ->> 'event_id')::uuid, widget_internal.uuid_v7()), v_widget_id, v_event ->> 'event_type',
          v_event ->> 'session_id', widget_internal.bare_page_url(v_event ->> 'page_url'),
          case when v_seq is null or v_seq::integer = 1 or v_event ->> 'event_type' = 'widget_load' then v_user_agent end,
          v_received_at - greatest(v_age_ms::numeric::bigint, 0) * interval '1 millisecond',
          v_event ->> 'call_id', v_seq::integer, 'browser', v_received_at, nullif(v_event -> 'properties', 'null')
        )::public.widget_analytics;
        v_indexes := v_indexes || v_index;
      end if;
    end if;

    if v_problem is not null then
      v_rejected := v_rejected || jsonb_build_object('index', v_index, 'reason', v_problem);
    end if;
  end loop;

  for v_quota in
    select n.widget_id, count(*)::integer as events, random() * s.events_per_count < count(*) as are_counted
    from unnest(v_good) n cross join widget_internal.settings s
    group by n.widget_id, s.events_per_count
    order by n.widget_id
  loop
    v_until := widget_internal.over_quota(v_quota.widget_id, v_quota.events, v_quota.are_counted);
    if v_until is not null then
      v_over_quota := v_over_quota || v_quota.widget_id;
      v_quota_refusal := widget_internal.quota_refusal(v_quota.widget_id, v_until, v_quota.events);
    end if;
  end loop;

  perform set_config('widget_internal.door_stores', case when v_keeps_calls then 'yes' else '' end, true);
  with stored as (
    insert into public.widget_analytics
    select n.* from unnest(v_good) n where n.widget_id <> all (v_over_quota)
    on conflict do nothing
    returning widget_id, session_id, event_type
  ),
  sessions as (
    select
      s.widget_id, s.session_id, count(*) as events, count(*) filter (where s.event_type like 'call\_%') as call_events,
      count(*) filter (where s.event_type = 'call_heartbeat') as heartbeats
    from stored s
    group by s.widget_id, s.session_id
  )
  select
    coalesce(sum(s.events), 0) as events,
    array_agg(s.widget_id) filter (where s.call_events > 0) as widget_ids,
    array_agg(s.session_id::text) filter (where s.call_events > 0) as session_ids,
    array_agg(s.call_events = s.heartbeats) filter (where s.call_events > 0) as have_only_heartbeats
  into v_stored
  from sessions s;
  perform set_config('widget_internal.door_stores', '', true);

  if v_keeps_calls and v_stored.widget_ids is not null then
    perform widget_internal.keep_calls(v_stored.widget_ids, v_stored.session_ids, v_stored.have_only_heartbeats);
  end if;
  if v_refusals <> '{}' then
    perform widget_internal.count_refusals(v_refusals);
  end if;

  -- Sent again as a whole once there is room, the events that are stored now are duplicates then.
  if v_over_quota <> '{}' then
    v_rejected := v_rejected || (
      select jsonb_agg(jsonb_build_object('index', v_indexes[n.ordinality], 'reason', v_quota_refusal ->> 'message'))
      from unnest(v_good) with ordinality n
      where n.widget_id = any (v_over_quota)
    );
  end if;
  return v_quota_refusal || jsonb_build_object(
    'accepted', v_stored.events + v_demos,
    'duplicates', (
      select count(*) filter (where n.widget_id <> all (v_over_quota)) from unnest(v_good) n
    ) - v_stored.events,
    'rejected', v_rejected
  );
end
$$;

comment on function public.track_events(jsonb) is
  'Takes up to 1000 events: an array of objects with the arguments of track_event() as keys. '
  'Answers {"accepted": n, "duplicates": n, "rejected": [{"index": i, "reason": "field: why"}]}; one bad event never '
  'costs another. HTTP 400 (22023): not an array. 413 (54000): too many. 429 (53400): at least one is over quota; the '
  'others are stored. Send all again after Retry-After (in the body: retry_after) seconds.';
