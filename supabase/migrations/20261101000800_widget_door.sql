-- The door (R8): which request may store an event, what an event must look like, and the row that it becomes.

create function widget_internal.request_header(name text)
returns text
language plpgsql stable
set search_path = ''
as $$
begin
  return nullif(current_setting('request.headers', true), '')::json ->> request_header.name;
end
$$;

comment on function widget_internal.request_header(text) is
  'A header of the REST request, by its lower-case name; null where there is no such header or no request.';


create function widget_internal.url_host(url text)
returns text
language plpgsql immutable
set search_path = ''
as $$
declare
  -- As browsers read it (WHATWG URL): the authority ends at /, \, ? or #; user and password stand before its last @.
  v_authority text := substring(lower(url_host.url) from '^https?://([^/\\?#]*)');
  v_host text := substring(v_authority from '^(?:.*@)?(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::[0-9]*)?$');
begin
  -- "shop.example." is the same host, written to its root.
  return regexp_replace(v_host, '(.)\.$', '\1');
end
$$;

comment on function widget_internal.url_host(text) is
  'The host of an http or https URL: lower case, no port, no user, no trailing dot; null where there is none.';


create function widget_internal.page_host()
returns text
language plpgsql stable
set search_path = ''
as $$
begin
  -- An Origin that is there decides, even "null": a page that hides its origin is not asked for its referrer.
  return widget_internal.url_host(
    coalesce(widget_internal.request_header('origin'), widget_internal.request_header('referer'))
  );
end
$$;

comment on function widget_internal.page_host() is
  'The host of the page that sent this request, from Origin, else Referer; null where it names none.';


create function widget_internal.is_host_allowed(host text, allowed_domains text[])
returns boolean
language plpgsql immutable
set search_path = ''
as $$
declare
  v_allowed text;
begin
  foreach v_allowed in array coalesce(is_host_allowed.allowed_domains, '{}') loop
    v_allowed := regexp_replace(lower(v_allowed), '(.)\.$', '\1');
    if v_allowed = '*'
      or v_allowed = is_host_allowed.host
      or (
        starts_with(v_allowed, '*.')
        and right(is_host_allowed.host, length(v_allowed) - 1) = substr(v_allowed, 2)
        and length(is_host_allowed.host) >= length(v_allowed)
      )
    then
      return true;
    end if;
  end loop;
  return false;
end
$$;

comment on function widget_internal.is_host_allowed(text, text[]) is
  'Whether a widget''s allowed_domains admit a host: itself, "*.parent" for hosts below it, "*" for any and for none named.';


create function widget_internal.ask_door(widget_id uuid, page_host text)
returns text
language plpgsql stable
set search_path = ''
as $$
declare
  v_door record := widget_internal.widget_door(ask_door.widget_id);
begin
  return case
    when v_door.is_active is null then 'unknown_widget'
    when not v_door.is_active then 'widget_inactive'
    when v_door.is_demo then 'demo'
    when widget_internal.is_host_allowed(ask_door.page_host, v_door.allowed_domains) then 'open'
    else 'domain_not_allowed'
  end;
end
$$;

comment on function widget_internal.ask_door(uuid, text) is
  'Whether a page on that host may store an event of the widget: open, demo (taken, not stored), or the reason why not.';


create function widget_internal.door_refusal(verdict text, widget_id uuid, page_host text)
returns widget_internal.refusal
language plpgsql immutable
set search_path = ''
as $$
begin
  return case door_refusal.verdict
    when 'unknown_widget' then (null, door_refusal.verdict, door_refusal.widget_id::text)::widget_internal.refusal
    when 'widget_inactive' then (door_refusal.widget_id, door_refusal.verdict, '')::widget_internal.refusal
    else (door_refusal.widget_id, door_refusal.verdict, door_refusal.page_host)::widget_internal.refusal
  end;
end
$$;

comment on function widget_internal.door_refusal(text, uuid, text) is 'What is counted where the door''s verdict was no.';


create function widget_internal.event_problem(
  event_type text, session_id text, call_id text, seq integer, age_ms bigint, properties jsonb
)
returns text
language plpgsql immutable
set search_path = ''
as $$
begin
  return case
    when event_problem.event_type is null or event_problem.event_type not in (
      'widget_load', 'widget_open', 'call_start', 'call_heartbeat', 'call_end', 'call_error'
    ) then 'event_type: must be widget_load, widget_open, call_start, call_heartbeat, call_end or call_error'
    when event_problem.session_id is null or length(event_problem.session_id) not between 1 and 255
      then 'session_id: must have 1 to 255 characters'
    when length(event_problem.call_id) not between 1 and 255 then 'call_id: must have 1 to 255 characters, or be left out'
    when event_problem.seq < 1 then 'seq: must be 1 or more'
    when event_problem.age_ms > 604800000 then 'age_ms: must be at most 604800000, seven days'
    when jsonb_typeof(event_problem.properties) not in ('object', 'null') then 'properties: must be a JSON object'
    when octet_length(event_problem.properties::text) > 4096 then 'properties: must have at most 4096 bytes'
  end;
end
$$;

comment on function widget_internal.event_problem(text, text, text, integer, bigint, jsonb) is
  'What is wrong with an event: the field, a colon, what it must be; null where nothing is.';


create function widget_internal.new_event(
  widget_id uuid, event_type text, session_id text, page_url text, event_id uuid, call_id text, seq integer,
  age_ms bigint, properties jsonb
)
returns public.widget_analytics
language plpgsql volatile
set search_path = ''
as $$
declare
  v_event public.widget_analytics;
begin
  v_event.id := coalesce(new_event.event_id, widget_internal.uuid_v7());
  v_event.widget_id := new_event.widget_id;
  v_event.event_type := new_event.event_type;
  v_event.session_id := new_event.session_id;
  -- Query, fragment, user and password may hold what is nobody's business. A long rest is cut, not refused: no event
  -- that bills may fail on a field that does not.
  v_event.page_url := left(
    regexp_replace(substring(new_event.page_url from '^[^?#]*'), '^([a-z][a-z0-9+.-]*://)[^/\\]*@', '\1', 'i'), 2048
  );
  v_event.user_agent := nullif(left(widget_internal.request_header('user-agent'), 512), '');
  v_event.received_at := widget_internal.receipt_time();
  v_event."timestamp" :=
    v_event.received_at - greatest(coalesce(new_event.age_ms, 0), 0) * interval '1 millisecond';
  v_event.call_id := new_event.call_id;
  v_event.seq := new_event.seq;
  v_event.source := 'browser';
  v_event.properties := nullif(new_event.properties, 'null');
  return v_event;
end
$$;

comment on function widget_internal.new_event(uuid, text, text, text, uuid, text, integer, bigint, jsonb) is
  'The ledger row of an event that a browser reports now (R3).';


create function widget_internal.refusal_answer(status integer, code text, message text, hint text default null)
returns jsonb
language plpgsql volatile
set search_path = ''
as $$
begin
  -- Not raised: that would undo the count of the refusal. The body has the shape of PostgREST's errors.
  perform set_config('response.status', refusal_answer.status::text, true);
  return jsonb_build_object(
    'code', refusal_answer.code, 'message', refusal_answer.message, 'details', null, 'hint', refusal_answer.hint
  );
end
$$;

comment on function widget_internal.refusal_answer(integer, text, text, text) is
  'Makes the REST answer one of this HTTP status and returns its body.';

create function widget_internal.door_problem()
returns text
language plpgsql immutable
set search_path = ''
as $$
begin
  return 'widget_id: this widget is unknown, not active, or not allowed on this page''s domain';
end
$$;

comment on function widget_internal.door_problem() is
  'What every sender hears whom the door refuses: the same for all, so that nobody can probe which widgets there are.';


create function widget_internal.unwrap_json(value jsonb)
returns jsonb
language plpgsql immutable
set search_path = ''
as $$
begin
  if jsonb_typeof(unwrap_json.value) = 'string' then
    return (unwrap_json.value #>> '{}')::jsonb;
  end if;
  return unwrap_json.value;
exception
  when invalid_text_representation or untranslatable_character or numeric_value_out_of_range
    or statement_too_complex or program_limit_exceeded
  then
  -- A string that holds no JSON stays what it is, and is refused by its type.
  return unwrap_json.value;
end
$$;

comment on function widget_internal.unwrap_json(jsonb) is
  'The JSON in a JSON string, or the value itself: a gateway may pass a form field of JSON on as a string.';

revoke all on function widget_internal.request_header(text) from public, anon, authenticated, service_role;
revoke all on function widget_internal.url_host(text) from public, anon, authenticated, service_role;
revoke all on function widget_internal.page_host() from public, anon, authenticated, service_role;
revoke all on function widget_internal.is_host_allowed(text, text[]) from public, anon, authenticated, service_role;
revoke all on function widget_internal.ask_door(uuid, text) from public, anon, authenticated, service_role;
revoke all on function widget_internal.door_refusal(text, uuid, text) from public, anon, authenticated, service_role;
revoke all on function widget_internal.event_problem(text, text, text, integer, bigint, jsonb)
  from public, anon, authenticated, service_role;
revoke all on function widget_internal.new_event(uuid, text, text, text, uuid, text, integer, bigint, jsonb)
  from public, anon, authenticated, service_role;
revoke all on function widget_internal.refusal_answer(integer, text, text, text)
  from public, anon, authenticated, service_role;
revoke all on function widget_internal.door_problem() from public, anon, authenticated, service_role;
revoke all on function widget_internal.unwrap_json(jsonb) from public, anon, authenticated, service_role;
