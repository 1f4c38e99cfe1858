-- The door: which request may store an event, and what it answers to the others.

create function widget_internal.request_header(name text)
returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_headers constant text := nullif(current_setting('request.headers', true), '');
  -- Cut out of the text, which takes a tenth of the time of reading it all as JSON. Nothing else can look like this
  -- key: inside a JSON string a quote is written \".
  v_value constant text :=
    split_part(split_part(v_headers, '"' || request_header.name || '":"', 2), '"', 1);
begin
  -- Not there, not written as expected, or with an escape in it.
  if v_value = '' or position('\' in v_value) > 0 then
    return v_headers::json ->> request_header.name;
  end if;
  return v_value;
end
$$;

comment on function widget_internal.request_header(text) is
  'A header of the REST request, by its lower-case name; null where there is no such header or no request.';


create function widget_internal.url_host(url text)
returns text
language plpgsql immutable
set search_path = pg_catalog, pg_temp
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


create function widget_internal.is_host_allowed(host text, allowed_domains text[])
returns boolean
language plpgsql immutable
set search_path = pg_catalog, pg_temp
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


create function widget_internal.ask_door(widget_id uuid, out verdict text, out detail text)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_door constant record := widget_internal.widget_door(ask_door.widget_id);
  -- An Origin that is there decides, even "null": a page that hides its origin is not asked for its referrer.
  v_host constant text := widget_internal.url_host(
    coalesce(widget_internal.request_header('origin'), widget_internal.request_header('referer'))
  );
begin
  ask_door.verdict := case
    when v_door.is_active is null then 'unknown_widget'
    when not v_door.is_active then 'widget_inactive'
    when v_door.is_demo then 'demo'
    when widget_internal.is_host_allowed(v_host, v_door.allowed_domains) then 'open'
    else 'domain_not_allowed'
  end;
  ask_door.detail := case ask_door.verdict
    when 'unknown_widget' then ask_door.widget_id::text
    when 'domain_not_allowed' then v_host
  end;
end
$$;

comment on function widget_internal.ask_door(uuid) is
  'Whether this request''s page may store an event of the widget: open, demo (taken, not stored), or the reason why not, '
  'with the detail to count it under.';


create function widget_internal.refusal_answer(status integer, code text, message text, hint text default null)
returns jsonb
language plpgsql volatile
set search_path = pg_catalog, pg_temp
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


create function widget_internal.unwrap_json(value jsonb)
returns jsonb
language plpgsql immutable
set search_path = pg_catalog, pg_temp
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
