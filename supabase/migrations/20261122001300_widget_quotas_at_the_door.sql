-- The door (R8) asks for the quota last, once an event is known to be good: what is refused for another reason uses none.

alter table widget_internal.refusal_counts
  drop constraint refusal_reason_is_known,
  add constraint refusal_reason_is_known check (
    reason in ('unknown_widget', 'widget_inactive', 'domain_not_allowed', 'invalid_input', 'over_quota')
  );

comment on view public.widget_refusals is
  'Events refused, by widget, reason and hour (R8). domain_not_allowed: detail is the host to add to allowed_domains, '
  'empty where the page named none. invalid_input: the field. unknown_widget: the id sent. over_quota: whose quota, '
  '"widget" or "sender"; about as many as there were, as one refusal in sixteen is counted, for sixteen. Good: no rows.';


create function widget_internal.quota_refusal(widget_id uuid, until timestamptz, events integer)
returns jsonb
language plpgsql volatile
set search_path = ''
as $$
declare
  v_seconds constant integer := greatest(1, ceil(extract(epoch from quota_refusal.until - clock_timestamp())));
  v_detail text;
begin
  -- Whoever floods must not make the database write at each refusal.
  if random() * 16 < quota_refusal.events then
    v_detail := case when exists (
      select from widget_internal.throttles t where t.subject = quota_refusal.widget_id and t.until > clock_timestamp()
    ) then 'widget' else 'sender' end;
    perform widget_internal.count_refusals(array_fill(
      (quota_refusal.widget_id, 'over_quota', v_detail)::widget_internal.refusal,
      array[greatest(16, quota_refusal.events)]
    ));
  end if;

  perform set_config('response.headers', jsonb_build_array(jsonb_build_object('Retry-After', v_seconds::text))::text, true);
  -- A page on another origin cannot read the header, so the body says it too.
  return widget_internal.refusal_answer(
    429, '53400', 'over quota: this widget, or this sender, has sent more events than are taken'
  ) || jsonb_build_object('retry_after', v_seconds);
end
$$;

comment on function widget_internal.quota_refusal(uuid, timestamptz, integer) is
  'Counts so many refused events, and makes the REST answer a 429 with Retry-After, in seconds, in header and body.';


create function widget_internal.is_read_only()
returns boolean
language plpgsql stable
set search_path = ''
as $$
begin
  return current_setting('transaction_read_only')::boolean and current_setting('request.method', true) = 'POST';
end
$$;

comment on function widget_internal.is_read_only() is
  'Whether a request that means to write cannot: the server is read-only, as a full disk makes it.';


create function widget_internal.read_only_answer()
returns jsonb
language plpgsql volatile
set search_path = ''
as $$
begin
  -- Left to itself the answer would be a 405, which tells a sender to give up.
  return widget_internal.refusal_answer(503, '25006', 'the database is read-only just now', 'Send the same again later.');
end
$$;

comment on function widget_internal.read_only_answer() is 'Makes the REST answer a 503: the sender is to keep its events.';

revoke all on function widget_internal.quota_refusal(uuid, timestamptz, integer)
  from public, anon, authenticated, service_role;
revoke all on function widget_internal.is_read_only() from public, anon, authenticated, service_role;
revoke all on function widget_internal.read_only_answer() from public, anon, authenticated, service_role;


create function widget_internal.refuse_input(widget_id uuid, problem text)
returns jsonb
language plpgsql volatile
set search_path = ''
as $$
begin
  perform widget_internal.count_refusals(array[
    (refuse_input.widget_id, 'invalid_input', split_part(refuse_input.problem, ':', 1))::widget_internal.refusal
  ]);
  return widget_internal.refusal_answer(400, '22023', refuse_input.problem);
end
$$;

comment on function widget_internal.refuse_input(uuid, text) is
  'Counts an event that is not as it must be, and makes the REST answer a 400.';

revoke all on function widget_internal.refuse_input(uuid, text) from public, anon, authenticated, service_role;


-- Nearly every event is plainly good. So each question is put in a short form first, which can say yes; where it does
-- not, a function decides that is made for the question. In a transaction of its own, which a request is, each function
-- and operator that an expression names costs a look-up, even where it is not evaluated: hence few of them, the rare ones
-- in statements of their own, and none in the insert.

create or replace function widget_internal.record_event(
  widget_id uuid, event_type text, session_id text, page_url text, event_id uuid, call_id text, seq integer,
  age_ms bigint, properties jsonb
)
returns jsonb
language plpgsql volatile
-- definer because the anonymous role has no right on any table
security definer
set search_path = ''
as $$
declare
  v_headers constant text := current_setting('request.headers', true);
  v_page_host text;
  v_user_agent text;
  v_door record;
  v_verdict text := 'open';
  v_is_plain boolean;
  v_problem text;
  v_received_at timestamptz;
  v_happened_at timestamptz;
  v_may_be_throttled boolean;
  v_is_counted boolean;
  v_until timestamptz;
  v_keeps_calls boolean;
  v_is_new boolean;
begin
  if current_setting('transaction_read_only') = 'on' then
    if widget_internal.is_read_only() then
      return widget_internal.read_only_answer();
    end if;
  end if;

  -- As receipt_time() does it. Held from here to the end of the transaction: later than every cut_off() that does not count
  -- this event, and before the widget may be deleted (keep_widgets_with_events()).
  if nullif(current_setting('widget_internal.receipt_time', true), '') is not null then
    v_received_at := widget_internal.receipt_time();
  else
    if not pg_try_advisory_xact_lock_shared(widget_internal.receipts_key()) then
      perform pg_advisory_xact_lock_shared(widget_internal.receipts_key());
    end if;
    v_received_at := clock_timestamp();
  end if;

  v_door := widget_internal.widget_door(record_event.widget_id);
  -- Most pages: https, no port, a host that the widget names as it is.
  v_page_host := split_part(split_part(v_headers, '"origin":"https://', 2), '"', 1);
  v_is_plain := v_door.is_active and not v_door.is_demo
    and v_page_host = any (v_door.allowed_domains) and strpos(v_page_host, '*') = 0;
  if v_is_plain is not true then
    v_verdict := widget_internal.ask_door(record_event.widget_id);
    if v_verdict not in ('open', 'demo') then
      perform widget_internal.count_refusals(
        array[widget_internal.door_refusal(v_verdict, record_event.widget_id, widget_internal.page_host())]
      );
      return widget_internal.refusal_answer(403, '42501', widget_internal.door_problem());
    end if;
  end if;

  -- A character has at least one byte.
  v_is_plain := properties is null
    and event_type in ('widget_load', 'widget_open', 'call_start', 'call_heartbeat', 'call_end', 'call_error')
    and octet_length(session_id) <= 255 and session_id <> ''
    and (seq is null or seq >= 1)
    and (age_ms is null or age_ms <= 604800000);
  if v_is_plain and call_id is not null then
    v_is_plain := octet_length(call_id) <= 255 and call_id <> '';
  end if;
  if v_is_plain is not true then
    -- A gateway may pass a form field of JSON on as a string.
    properties := nullif(widget_internal.unwrap_json(properties), 'null');
    v_problem := widget_internal.event_problem(event_type, session_id, call_id, seq, age_ms, properties);
    if v_problem is not null then
      return widget_internal.refuse_input(record_event.widget_id, v_problem);
    end if;
  end if;
  if v_verdict = 'demo' then
    return '{"accepted": 1, "duplicates": 0, "rejected": []}'::jsonb;
  end if;

  select greatest(s.widgets_throttled_until, s.senders_throttled_until) > v_received_at, random() * s.events_per_count < 1
  into v_may_be_throttled, v_is_counted
  from widget_internal.settings s;
  if v_may_be_throttled or v_is_counted then
    v_until := widget_internal.over_quota(record_event.widget_id, 1, v_is_counted);
    if v_until is not null then
      return widget_internal.quota_refusal(record_event.widget_id, v_until, 1);
    end if;
  end if;

  if event_id is null then
    event_id := widget_internal.uuid_v7();
  end if;
  if page_url ~ '[?#@]' or octet_length(page_url) > 2048 then
    page_url := widget_internal.bare_page_url(page_url);
  end if;
  -- It is the longest field: a session has it once.
  if event_type = 'widget_load' or seq is null or seq = 1 then
    v_user_agent := nullif(split_part(split_part(v_headers, '"user-agent":"', 2), '"', 1), '');
    if v_user_agent is null or strpos(v_user_agent, '\') > 0 or octet_length(v_user_agent) > 512 then
      v_user_agent := widget_internal.bare_user_agent();
    end if;
  end if;
  v_happened_at := v_received_at - greatest(age_ms, 0) * interval '1 millisecond';

  -- Any other isolation is left to the trigger, which knows what it needs.
  v_keeps_calls := current_setting('transaction_isolation') = 'read committed';
  if v_keeps_calls then
    perform set_config('widget_internal.door_stores', 'yes', true);
  end if;
  insert into public.widget_analytics (
    id, widget_id, event_type, session_id, page_url, user_agent, "timestamp", call_id, seq, source, received_at, properties
  )
  values (
    record_event.event_id, record_event.widget_id, record_event.event_type, record_event.session_id,
    record_event.page_url, v_user_agent, v_happened_at, record_event.call_id, record_event.seq, 'browser', v_received_at,
    record_event.properties
  )
  on conflict do nothing;
  v_is_new := found;
  perform set_config('widget_internal.door_stores', '', true);

  if not v_is_new then
    return '{"accepted": 0, "duplicates": 1, "rejected": []}'::jsonb;
  elsif v_keeps_calls and event_type like 'call\_%' then
    perform widget_internal.keep_calls(record_event.widget_id, record_event.session_id, event_type = 'call_heartbeat');
  end if;
  return '{"accepted": 1, "duplicates": 0, "rejected": []}'::jsonb;
end
$$;

comment on function public.track_event(uuid, text, text, text, uuid, text, integer, bigint, jsonb) is
  'Takes one event of a widget (R1, R3, R8). age_ms: how long ago it happened, by the sender''s own clock. '
  'Answers {"accepted", "duplicates", "rejected"}: an event_id that is there already is a success and changes nothing. '
  'HTTP 403 (42501): the widget is unknown, not active or not allowed on the page''s domain. 400 (22023): the message '
  'names the field. 429 (53400): over quota; Retry-After and retry_after say for how many seconds. 503 (25006): the '
  'database is read-only just now. What is refused is counted in widget_refusals.';
