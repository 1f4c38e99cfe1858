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


create or replace function widget_internal.lock_sessions(session_keys bigint[])
returns void
language plpgsql volatile
set search_path = ''
as $$
declare
  v_every_session constant bigint := hashtextextended('widget_internal: every session', 0);
  v_key bigint;
begin
  -- The server's lock table is small: who needs very many sessions takes all there are with one lock.
  if session_keys is null or cardinality(session_keys) > 500 then
    perform pg_advisory_xact_lock(v_every_session);
    return;
  end if;

  perform pg_advisory_xact_lock_shared(v_every_session);
  if cardinality(session_keys) > 1 then
    -- In one order everywhere: two batches that share two sessions must not wait for each other.
    session_keys := array(select distinct k from unnest(session_keys) k order by k);
  end if;
  foreach v_key in array session_keys loop
    perform pg_advisory_xact_lock(v_key);
  end loop;
end
$$;


create or replace function widget_internal.keep_widget_calls()
returns trigger
language plpgsql volatile
-- definer because who may add an event need have no right on widget_calls
security definer
set search_path = ''
as $$
declare
  v_session record;
begin
  if not exists (
    select from changed_events e where e.event_type in ('call_start', 'call_heartbeat', 'call_end', 'call_error')
  ) then
    return null;
  end if;

  -- Repeatable read cannot see what the transaction that held the session before this one has just added.
  if current_setting('transaction_isolation') = 'repeatable read' then
    raise exception 'call events cannot be added in a repeatable read transaction'
      using errcode = 'feature_not_supported', hint = 'Use read committed or serializable.';
  end if;
  perform widget_internal.lock_sessions(array(
    select widget_internal.session_key(s.widget_id, s.session_id)
    from (
      select distinct e.widget_id, e.session_id
      from changed_events e
      where e.event_type in ('call_start', 'call_heartbeat', 'call_end', 'call_error')
    ) s
  ));

  for v_session in
    select e.widget_id, e.session_id, bool_and(e.event_type = 'call_heartbeat') as only_heartbeats
    from changed_events e
    where e.event_type in ('call_start', 'call_heartbeat', 'call_end', 'call_error')
    group by e.widget_id, e.session_id
  loop
    if tg_op <> 'INSERT' then
      delete from public.widget_calls c
      where c.widget_id = v_session.widget_id and c.session_id = v_session.session_id;
    -- A heartbeat moves a call's end only where that end was inferred; most heartbeats change nothing.
    elsif v_session.only_heartbeats and not exists (
      select from public.widget_calls c
      where c.widget_id = v_session.widget_id
        and c.session_id = v_session.session_id
        and c.evidence in ('heartbeat', 'assumed')
    ) then
      continue;
    end if;
    perform widget_internal.refresh_session_calls(v_session.widget_id, v_session.session_id);
  end loop;
  return null;
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
  v_origin constant text := widget_internal.request_header('origin');
begin
  return case
    when v_door.is_active is null then 'unknown_widget'
    when not v_door.is_active then 'widget_inactive'
    when v_door.is_demo then 'demo'
    -- Most pages: https, no port, a host that the widget names as it is. Nothing needs to be taken apart.
    when starts_with(v_origin, 'https://') and substr(v_origin, 9) = any (v_door.allowed_domains)
      and position('*' in v_origin) = 0 then 'open'
    when widget_internal.is_host_allowed(widget_internal.page_host(), v_door.allowed_domains) then 'open'
    else 'domain_not_allowed'
  end;
end
$$;

comment on function widget_internal.ask_door(uuid) is
  'Whether this request''s page may store an event of the widget: open, demo (taken, not stored), or the reason why not.';

revoke all on function widget_internal.ask_door(uuid) from public, anon, authenticated, service_role;


create or replace function widget_internal.new_event(
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
  if new_event.page_url is not null then
    v_event.page_url := left(
      regexp_replace(substring(new_event.page_url from '^[^?#]*'), '^([a-z][a-z0-9+.-]*://)[^/\\]*@', '\1', 'i'), 2048
    );
  end if;
  -- It is the longest field: a session has it once.
  if new_event.event_type = 'widget_load' or coalesce(new_event.seq, 1) = 1 then
    v_event.user_agent := nullif(left(widget_internal.request_header('user-agent'), 512), '');
  end if;
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

comment on column public.widget_analytics.user_agent is
  'The request''s User-Agent header. On the session''s widget_load and first event (seq 1), and where there is no seq.';
