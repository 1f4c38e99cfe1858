-- What every event passes through, made cheap: each of these says what it said before, at a fraction of the time
-- (docs/performance.md has the figures).

create or replace function widget_internal.uuid_v7()
returns uuid
language plpgsql volatile parallel safe
set search_path = ''
as $$
declare
  v_milliseconds constant bigint := date_part('epoch', clock_timestamp()) * 1000;
begin
  -- 12 hexadecimal digits of time and the version, over a random UUID, which brings the variant.
  return overlay(gen_random_uuid()::text placing lpad(to_hex(v_milliseconds), 12, '0') || '7' from 1 for 15)::uuid;
end
$$;


create or replace function widget_internal.request_header(name text)
returns text
language plpgsql stable
set search_path = ''
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


create or replace function widget_internal.receipt_time()
returns timestamptz
language plpgsql volatile
set search_path = ''
as $$
declare
  v_microseconds bigint := nullif(current_setting('widget_internal.receipt_time', true), '')::bigint;
begin
  -- One moment for the whole transaction: the ages in a batch count from the same receipt.
  if v_microseconds is null then
    perform pg_advisory_xact_lock_shared(widget_internal.receipts_key());
    v_microseconds := date_part('epoch', clock_timestamp()) * 1000000;
    perform set_config('widget_internal.receipt_time', v_microseconds::text, true);
  end if;
  return timestamptz 'epoch' + v_microseconds * interval '1 microsecond';
end
$$;


drop function widget_internal.ask_door(uuid, text);

create function widget_internal.ask_door(widget_id uuid)
returns text
language plpgsql stable
set search_path = ''
as $$
declare
  v_door constant record := widget_internal.widget_door(ask_door.widget_id);
begin
  return case
    when v_door.is_active is null then 'unknown_widget'
    when not v_door.is_active then 'widget_inactive'
    when v_door.is_demo then 'demo'
    when widget_internal.is_host_allowed(widget_internal.page_host(), v_door.allowed_domains) then 'open'
    else 'domain_not_allowed'
  end;
end
$$;

comment on function widget_internal.ask_door(uuid) is
  'Whether this request''s page may store an event of the widget: open, demo (taken, not stored), or the reason why not.';


create function widget_internal.bare_page_url(page_url text)
returns text
language plpgsql immutable
set search_path = ''
as $$
begin
  -- Query, fragment, user and password may hold what is nobody's business. A long rest is cut, not refused: no event
  -- that bills may fail on a field that does not.
  return left(
    regexp_replace(
      substring(bare_page_url.page_url from '^[^?#]*'), '^([a-z][a-z0-9+.-]*://)[^/\\]*@', '\1', 'i'
    ),
    2048
  );
end
$$;

comment on function widget_internal.bare_page_url(text) is
  'A page''s address without query string, fragment, user and password, of 2048 characters at most.';


create function widget_internal.bare_user_agent()
returns text
language plpgsql stable
set search_path = ''
as $$
begin
  return nullif(left(widget_internal.request_header('user-agent'), 512), '');
end
$$;

comment on function widget_internal.bare_user_agent() is
  'The User-Agent of this request, 512 characters of it at most; null where it names none.';


-- The door builds the row itself.
drop function widget_internal.new_event(uuid, text, text, text, uuid, text, integer, bigint, jsonb);

comment on column public.widget_analytics.user_agent is
  'The request''s User-Agent header. On the session''s widget_load and first event (seq 1), and where there is no seq.';

revoke all on function widget_internal.ask_door(uuid) from public, anon, authenticated, service_role;
revoke all on function widget_internal.bare_page_url(text) from public, anon, authenticated, service_role;
revoke all on function widget_internal.bare_user_agent() from public, anon, authenticated, service_role;
