-- Events in: one writer for track_event() and track_events(). What is plainly good is stored by one statement; only where
-- that stored less than was sent is each event looked at, to say why.

create domain widget_internal.event_age as numeric
  constraint age_is_at_most_seven_days check (value <= 604800000);
comment on domain widget_internal.event_age is 'How long ago an event happened, in milliseconds by its sender''s clock.';

create type widget_internal.sent_event as (
  widget_id uuid,
  event_type widget_internal.event_type,
  session_id widget_internal.session_id,
  page_url text,
  event_id uuid,
  call_id widget_internal.call_id,
  seq widget_internal.event_seq,
  age_ms widget_internal.event_age,
  properties widget_internal.event_properties
);

comment on type widget_internal.sent_event is
  'An event as it is sent: the fields, and as a comment on each what a sender hears whose value does not fit.';
comment on column widget_internal.sent_event.widget_id is 'must be a UUID';
comment on column widget_internal.sent_event.event_type is 'must be one of ';
comment on column widget_internal.sent_event.session_id is 'must have 1 to 255 characters';
comment on column widget_internal.sent_event.page_url is 'must be a string';
comment on column widget_internal.sent_event.event_id is 'must be a UUID, or be left out';
comment on column widget_internal.sent_event.call_id is 'must have 1 to 255 characters, or be left out';
comment on column widget_internal.sent_event.seq is 'must be a whole number from 1 to 2147483647';
comment on column widget_internal.sent_event.age_ms is 'must be a number of milliseconds, at most 604800000 (seven days)';
comment on column widget_internal.sent_event.properties is 'must be a JSON object of at most 4096 bytes';


create function widget_internal.event_fields()
returns text[]
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return array(
    select a.attname::text from pg_attribute a where a.attrelid = 'widget_internal.sent_event'::regclass order by a.attnum
  );
end
$$;

comment on function widget_internal.event_fields() is 'The fields that an event may have: those of the type sent_event.';


create function widget_internal.field_problem(event jsonb, field text)
returns text
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_value constant jsonb := nullif(field_problem.event -> field_problem.field, 'null');
  v_is_required constant boolean := field_problem.field in ('widget_id', 'event_type', 'session_id');
  v_type text;
  v_must text;
begin
  select format_type(a.atttypid, null), col_description(a.attrelid, a.attnum) into v_type, v_must
  from pg_attribute a
  where a.attrelid = 'widget_internal.sent_event'::regclass and a.attname = field_problem.field;

  if v_value is null and not v_is_required then
    return null;
  elsif field_problem.field <> 'properties' and jsonb_typeof(v_value) not in ('string', 'number') then
    v_must := 'must be a string or a number';
  elsif v_value is not null then
    begin
      if field_problem.field = 'properties' then
        execute format('select $1::%s', v_type) using v_value;
      else
        execute format('select $1::%s', v_type) using v_value #>> '{}';
      end if;
      return null;
    exception
      when data_exception or integrity_constraint_violation then
        null;  -- v_must says what it must be
    end;
  end if;
  return field_problem.field || ': ' || v_must
    || case field_problem.field when 'event_type' then array_to_string(widget_internal.event_types(), ', ') else '' end;
end
$$;

comment on function widget_internal.field_problem(jsonb, text) is
  'What is wrong with one field of a sent event: its name, a colon, what it must be; null where nothing is.';


create function widget_internal.event_problem(event jsonb)
returns text
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_field text;
  v_problem text;
begin
  if jsonb_typeof(event_problem.event) is distinct from 'object' then
    return 'event: must be a JSON object';
  end if;
  foreach v_field in array widget_internal.event_fields() loop
    v_problem := widget_internal.field_problem(event_problem.event, v_field);
    if v_problem is not null then
      return v_problem;
    end if;
  end loop;
  select k into v_field from jsonb_object_keys(event_problem.event - widget_internal.event_fields()) k limit 1;
  return left(v_field, 64) || ': is not a field of an event';
end
$$;

comment on function widget_internal.event_problem(jsonb) is
  'What is wrong with a sent event: the first field that does not fit, a colon, what it must be; null where nothing is.';


create function widget_internal.store_events(
  widget_id uuid, events jsonb, received_at timestamptz, are_checked boolean, out stored integer
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
  v_user_agent text :=
    nullif(split_part(split_part(current_setting('request.headers', true), '"user-agent":"', 2), '"', 1), '');
begin
  -- Not written as expected, with an escape in it, or long.
  if v_user_agent is null or strpos(v_user_agent, '\') > 0 or octet_length(v_user_agent) > 512 then
    v_user_agent := widget_internal.bare_user_agent();
  end if;
  insert into public.widget_analytics (
    id, widget_id, event_type, session_id, page_url, user_agent, "timestamp", call_id, seq, source, received_at, properties
  )
  select
    coalesce(e.event_id, widget_internal.uuid_v7()), e.widget_id, e.event_type, e.session_id,
    case when e.page_url ~ '[?#@]' or octet_length(e.page_url) > 2048
      then widget_internal.bare_page_url(e.page_url) else e.page_url end,
    case when e.event_type = 'widget_load' or e.seq is null or e.seq = 1 then v_user_agent end,
    store_events.received_at - greatest(e.age_ms, 0)::float8 * interval '1 millisecond',
    e.call_id, e.seq, 'browser', store_events.received_at, e.properties
  from jsonb_array_elements(store_events.events) with ordinality sent (event, index)
  cross join lateral jsonb_populate_record(null::widget_internal.sent_event, sent.event) e
  where e.widget_id = store_events.widget_id
    and (
      store_events.are_checked
      or sent.event - widget_internal.event_fields() = '{}'
      -- Begins as JSON that is neither string nor number.
      and not concat_ws(' ', e.session_id, e.call_id, e.page_url) ~ '(^| )([{[]|(true|false)( |$))'
    )
  -- By id, so that two batches that share two events never wait for each other; of two equal ids the first is kept.
  order by e.event_id, sent.index
  on conflict do nothing;
  get diagnostics stored = row_count;
end
$$;

comment on function widget_internal.store_events(uuid, jsonb, timestamptz, boolean) is
  'Stores the events of one widget that are as they must be and not there yet, and answers how many these were. An event '
  'that cannot be read raises. are_checked: event_problem() has found nothing.';


create function widget_internal.record_events_singly(
  events jsonb, received_at timestamptz, stored integer, asked_widget_id uuid, asked_until timestamptz
)
returns jsonb
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_events constant jsonb := widget_internal.unwrap_json(record_events_singly.events);
  v_event jsonb;
  v_index integer;
  v_problem text;
  v_widget_id uuid;
  v_verdict text;
  v_refusals widget_internal.refusal[] := array[]::widget_internal.refusal[];
  v_rejected jsonb[] := array[]::jsonb[];
  v_good jsonb[] := array[]::jsonb[];
  v_indexes integer[] := array[]::integer[];
  v_widget record;
  v_until timestamptz;
  v_stored integer := record_events_singly.stored;
  v_demos integer := 0;
  v_taken integer := 0;
  v_quota_refusal jsonb := '{}'::jsonb;
begin
  if current_setting('transaction_read_only')::boolean and current_setting('request.method', true) = 'POST' then
    -- Left to itself the answer would be a 405, which tells a sender to give up.
    return widget_internal.refusal_answer(503, '25006', 'the database is read-only just now', 'Send the same again later.');
  elsif jsonb_typeof(v_events) is distinct from 'array' then
    return widget_internal.refusal_answer(400, '22023', 'events: must be a JSON array of events');
  elsif jsonb_array_length(v_events) > 1000 then
    return widget_internal.refusal_answer(413, '54000', 'events: must be at most 1000 in one call');
  end if;

  for v_event, v_index in select e.value, e.ordinality - 1 from jsonb_array_elements(v_events) with ordinality e loop
    v_problem := widget_internal.event_problem(v_event);
    if split_part(v_problem, ':', 1) in ('event', 'widget_id') then
      v_refusals := v_refusals || (null, 'invalid_input', 'widget_id')::widget_internal.refusal;
    else
      -- A batch is mostly one widget's: ask once.
      if v_verdict is null or v_widget_id is distinct from (v_event ->> 'widget_id')::uuid then
        v_widget_id := v_event ->> 'widget_id';
        v_verdict := widget_internal.ask_door(v_widget_id);
      end if;
      if v_verdict not in ('open', 'demo') then
        v_problem := widget_internal.door_problem();
        v_refusals := v_refusals || widget_internal.door_refusal(v_verdict, v_widget_id);
      elsif v_problem is not null then
        v_refusals := v_refusals || (v_widget_id, 'invalid_input', split_part(v_problem, ':', 1))::widget_internal.refusal;
      elsif v_verdict = 'demo' then
        v_demos := v_demos + 1;
      else
        v_good := v_good || v_event;
        v_indexes := v_indexes || v_index;
      end if;
    end if;
    if v_problem is not null then
      v_rejected := v_rejected || jsonb_build_object('index', v_index, 'reason', v_problem);
    end if;
  end loop;

  for v_widget in
    select (g.event ->> 'widget_id')::uuid as id, jsonb_agg(g.event order by g.index) as events, array_agg(g.index) as indexes
    from unnest(v_good, v_indexes) g (event, index)
    group by 1
    order by 1
  loop
    v_until := case when v_widget.id = record_events_singly.asked_widget_id then record_events_singly.asked_until
      else widget_internal.over_quota(v_widget.id, cardinality(v_widget.indexes)) end;
    if v_until is null then
      v_taken := v_taken + cardinality(v_widget.indexes);
      v_stored := v_stored
        + widget_internal.store_events(v_widget.id, v_widget.events, record_events_singly.received_at, true);
    else
      -- Sent again as a whole once there is room, the events that are stored now are duplicates then.
      v_quota_refusal := widget_internal.quota_refusal(v_widget.id, v_until, cardinality(v_widget.indexes));
      v_rejected := v_rejected || array(
        select jsonb_build_object('index', i, 'reason', v_quota_refusal ->> 'message') from unnest(v_widget.indexes) i
      );
    end if;
  end loop;

  if v_refusals <> '{}' then
    perform widget_internal.count_refusals(v_refusals);
  end if;
  return v_quota_refusal || jsonb_build_object(
    'accepted', v_stored + v_demos, 'duplicates', v_taken - v_stored,
    'rejected', (select coalesce(jsonb_agg(r order by (r ->> 'index')::integer), '[]') from unnest(v_rejected) r)
  );
end
$$;

comment on function widget_internal.record_events_singly(jsonb, timestamptz, integer, uuid, timestamptz) is
  'The second, slow look at a batch of which fewer events were stored than sent: what is good and not there yet is stored, '
  'and the answer says why the others are not. stored: how many were. asked_widget_id: whose quota has been asked for, '
  'asked_until: its answer.';


create function widget_internal.record_events(events jsonb)
returns jsonb
language plpgsql volatile
-- definer because the anonymous role has no right on any table
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
as $$
declare
  v_received_at timestamptz;
  v_events integer;
  v_widget_id uuid;
  v_draw float8 := random();
  v_is_open boolean;
  v_asks_quota boolean;
  v_stored integer := 0;
  v_asked_widget_id uuid;
  v_until timestamptz;
begin
  -- As receipt_time() does it, and cheaper where nobody waits for the lock and nothing was received before.
  v_received_at := case
    when coalesce(current_setting('widget_internal.receipt_time', true), '') = ''
      and pg_try_advisory_xact_lock_shared(widget_internal.receipts_key()) then clock_timestamp()
    else widget_internal.receipt_time()
  end;
  begin
    v_events := jsonb_array_length(record_events.events);
    v_widget_id := record_events.events -> 0 ->> 'widget_id';
    -- Most pages: https, no port, a host that the widget names as it is.
    select
      d.is_active and not d.is_demo and split_part(
        split_part(current_setting('request.headers', true), '"origin":"https://', 2), '"', 1
      ) = any (d.allowed_domains),
      v_draw * least(s.sender_sample, coalesce(q.widget_sample, s.widget_sample)) < v_events
        or exists (select from widget_internal.throttles t where t.until > v_received_at)
    into v_is_open, v_asks_quota
    from widget_internal.widget_door(v_widget_id) d
    cross join widget_internal.settings s
    left join public.widget_quotas q on q.widget_id = v_widget_id;

    if v_is_open is not true then
      v_is_open := widget_internal.ask_door(v_widget_id) = 'open';
    end if;
    if v_is_open then
      v_asked_widget_id := v_widget_id;
      if v_asks_quota then
        v_until := widget_internal.over_quota(v_widget_id, v_events, v_draw);
      end if;
      if v_until is null and v_events <= 1000 then
        v_stored := widget_internal.store_events(v_widget_id, record_events.events, v_received_at, false);
        if v_stored = v_events then
          return jsonb_build_object('accepted', v_stored, 'duplicates', 0, 'rejected', '[]'::jsonb);
        end if;
      end if;
    end if;
  exception
    when data_exception or integrity_constraint_violation or read_only_sql_transaction then
      -- Nothing of it is stored or counted.
      v_asked_widget_id := null;
      v_until := null;
  end;
  return widget_internal.record_events_singly(
    record_events.events, v_received_at, v_stored, v_asked_widget_id, v_until
  );
end
$$;

comment on function widget_internal.record_events(jsonb) is
  'What track_events() does, with the right to write the ledger. Nearly every batch is one widget''s and plainly good, and '
  'is stored without a look at its single events.';


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
  'Answers {"accepted", "duplicates", "rejected"}: an event_id that is there already is a success and changes nothing. '
  'HTTP 403 (42501): the widget is unknown, not active or not allowed on the page''s domain. 400 (22023): the message '
  'names the field. 429 (53400): over quota; Retry-After and retry_after say for how many seconds. 503 (25006): the '
  'database is read-only just now. What is refused is counted in widget_refusals.';


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
