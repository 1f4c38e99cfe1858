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
  v_verdict constant text := widget_internal.ask_door(record_event.widget_id);
  -- A gateway may pass a form field of JSON on as a string.
  v_properties constant jsonb := case jsonb_typeof(record_event.properties)
    when 'string' then widget_internal.unwrap_json(record_event.properties) else record_event.properties
  end;
  v_problem text;
  v_until timestamptz;
  v_event public.widget_analytics;
begin
  if widget_internal.is_read_only() then
    return widget_internal.read_only_answer();
  elsif v_verdict not in ('open', 'demo') then
    perform widget_internal.count_refusals(
      array[widget_internal.door_refusal(v_verdict, record_event.widget_id, widget_internal.page_host())]
    );
    return widget_internal.refusal_answer(403, '42501', widget_internal.door_problem());
  end if;

  v_problem := widget_internal.event_problem(
    record_event.event_type, record_event.session_id, record_event.call_id, record_event.seq, record_event.age_ms,
    v_properties
  );
  if v_problem is not null then
    perform widget_internal.count_refusals(
      array[(record_event.widget_id, 'invalid_input', split_part(v_problem, ':', 1))::widget_internal.refusal]
    );
    return widget_internal.refusal_answer(400, '22023', v_problem);
  end if;

  if v_verdict = 'open' then
    v_until := widget_internal.over_quota(record_event.widget_id, 1);
    if v_until is not null then
      return widget_internal.quota_refusal(record_event.widget_id, v_until, 1);
    end if;
    v_event := widget_internal.new_event(
      record_event.widget_id, record_event.event_type, record_event.session_id, record_event.page_url,
      record_event.event_id, record_event.call_id, record_event.seq, record_event.age_ms, v_properties
    );
    insert into public.widget_analytics values (v_event.*) on conflict do nothing;
    if not found then
      return '{"accepted": 0, "duplicates": 1, "rejected": []}'::jsonb;
    end if;
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
