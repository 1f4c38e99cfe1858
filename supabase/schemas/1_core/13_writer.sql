-- Events in: one writer for track_event() and track_events(). One statement stores all valid events; only where
-- it stored fewer than were sent is each event examined, to say why.

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
  -- Not written as expected, with an escape in it, long, or passed on by the relay.
  if v_user_agent is null or current_setting('role') = 'service_role' or strpos(v_user_agent, '\') > 0 or octet_length(v_user_agent) > 512 then
    -- The events relay calls with the secret key, which the platform refuses from what looks like a browser.
    v_user_agent := nullif(left(coalesce(
      case when current_setting('role') = 'service_role' then widget_internal.request_header('x-widget-agent') end,
      widget_internal.request_header('user-agent')
    ), 512), '');
  end if;
  insert into public.widget_analytics (
    id, widget_id, event_type, session_id, page_url, user_agent, "timestamp", call_id, seq, source, received_at, properties
  )
  select
    coalesce(e.event_id, widget_internal.uuid_v7()), e.widget_id, e.event_type, e.session_id,
    -- Query, fragment, user and password may hold what is nobody's business. A long rest is cut, not refused: no event
    -- that bills may fail on a field that does not.
    case when e.page_url ~ '[?#@]' or octet_length(e.page_url) > 2048
      then left(
        regexp_replace(substring(e.page_url from '^[^?#]*'), '^([a-z][a-z0-9+.-]*://)[^/\\]*@', '\1', 'i'), 2048
      ) else e.page_url end,
    case when e.event_type = 'widget_load' or e.seq is null or e.seq = 1 then v_user_agent end,
    store_events.received_at - greatest(e.age_ms, 0)::float8 * interval '1 millisecond',
    e.call_id, e.seq, 'browser', store_events.received_at, e.properties
  from jsonb_array_elements(store_events.events) with ordinality sent (event, index)
  cross join lateral jsonb_populate_record(null::widget_internal.sent_event, sent.event) e
  where e.widget_id = store_events.widget_id
    and (
      store_events.are_checked
      -- Without an id of its own an event of a larger batch would be another one at the second look.
      or (e.event_id is not null or jsonb_array_length(store_events.events) = 1)
      and sent.event - widget_internal.event_fields() = '{}'
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
  'Stores the events of one widget that are valid and new, and returns how many. An event '
  'that cannot be read raises. are_checked: event_problem() has found nothing.';


create function widget_internal.record_events_singly(
  events jsonb, is_single boolean, received_at timestamptz, stored integer, asked_widget_id uuid, asked_until timestamptz
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
  v_door record;
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
    if jsonb_typeof(v_event -> 'properties') = 'string' then
      v_event := jsonb_set(v_event, '{properties}', widget_internal.unwrap_json(v_event -> 'properties'));
    end if;
    v_problem := widget_internal.event_problem(v_event);
    if split_part(v_problem, ':', 1) in ('event', 'widget_id') then
      v_refusals := v_refusals || (null, 'invalid_input', 'widget_id')::widget_internal.refusal;
    else
      -- A batch is mostly one widget's: ask once.
      if v_widget_id is distinct from (v_event ->> 'widget_id')::uuid then
        v_widget_id := (v_event ->> 'widget_id')::uuid;
        v_door := widget_internal.ask_door(v_widget_id);
      end if;
      if v_door.verdict not in ('open', 'demo') then
        -- The same for all, so that nobody can probe which widgets exist.
        v_problem := 'widget_id: this widget is unknown, not active, or not allowed on this page''s domain';
        v_refusals := v_refusals || (
          case when v_door.verdict <> 'unknown_widget' then v_widget_id end, v_door.verdict, v_door.detail
        )::widget_internal.refusal;
      elsif v_problem is not null then
        v_refusals := v_refusals || (v_widget_id, 'invalid_input', split_part(v_problem, ':', 1))::widget_internal.refusal;
      elsif v_door.verdict = 'demo' then
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
    if record_events_singly.is_single and v_refusals[1].reason = 'invalid_input' then
      return widget_internal.refusal_answer(400, '22023', v_problem);
    elsif record_events_singly.is_single then
      return widget_internal.refusal_answer(403, '42501', v_problem);
    end if;
  end if;
  return v_quota_refusal || jsonb_build_object(
    'accepted', v_stored + v_demos, 'duplicates', v_taken - v_stored,
    'rejected', (select coalesce(jsonb_agg(r order by (r ->> 'index')::integer), '[]') from unnest(v_rejected) r)
  );
end
$$;

comment on function widget_internal.record_events_singly(jsonb, boolean, timestamptz, integer, uuid, timestamptz) is
  'The second, slow look at a batch of which fewer events were stored than sent: what is good and not there yet is stored, '
  'and the answer says why the others are not. is_single: a batch of one, whose refusal is the answer''s own. stored: how '
  'many were. asked_widget_id: whose quota has been asked for, asked_until: its answer.';


create function widget_internal.record_events(events jsonb, is_single boolean)
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
    v_widget_id := (record_events.events -> 0 ->> 'widget_id')::uuid;
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
      v_is_open := (widget_internal.ask_door(v_widget_id)).verdict = 'open';
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
    record_events.events, record_events.is_single, v_received_at, v_stored, v_asked_widget_id, v_until
  );
end
$$;

comment on function widget_internal.record_events(jsonb, boolean) is
  'What track_events() does, with the right to write the ledger, and track_event() (is_single). Nearly every batch is '
  'valid and of one widget, and is stored without examining single events.';
