-- track_event() with nothing that protects: it takes any event of anybody. What the door, the refusal counts and the
-- quotas cost is the difference.
create schema unprotected;
grant usage on schema unprotected to anon;

create function unprotected.record_event(
  widget_id uuid, event_type text, session_id text, page_url text, event_id uuid, call_id text, seq integer,
  age_ms bigint, properties jsonb
)
returns jsonb
language plpgsql volatile
security definer
set search_path = ''
as $$
declare
  v_received_at timestamptz;
  v_is_new boolean;
begin
  perform pg_advisory_xact_lock_shared(widget_internal.receipts_key());
  v_received_at := clock_timestamp();
  perform set_config('widget_internal.door_stores', 'yes', true);
  insert into public.widget_analytics (
    id, widget_id, event_type, session_id, page_url, user_agent, "timestamp", call_id, seq, source, received_at, properties
  )
  values (
    record_event.event_id, record_event.widget_id, record_event.event_type, record_event.session_id, record_event.page_url,
    case when event_type = 'widget_load' or seq = 1 then widget_internal.request_header('user-agent') end,
    v_received_at - record_event.age_ms * interval '1 millisecond',
    record_event.call_id, record_event.seq, 'browser', v_received_at, record_event.properties
  )
  on conflict do nothing;
  v_is_new := found;
  perform set_config('widget_internal.door_stores', '', true);
  if not v_is_new then
    return '{"accepted": 0, "duplicates": 1, "rejected": []}'::jsonb;
  end if;
  return '{"accepted": 1, "duplicates": 0, "rejected": []}'::jsonb;
end
$$;

create function unprotected.track_event(
  widget_id uuid, event_type text, session_id text, page_url text default null, event_id uuid default null,
  call_id text default null, seq integer default null, age_ms bigint default 0, properties jsonb default null
)
returns jsonb
language plpgsql volatile
set search_path = ''
as $$
begin
  return unprotected.record_event(
    track_event.widget_id, track_event.event_type, track_event.session_id, track_event.page_url,
    track_event.event_id, track_event.call_id, track_event.seq, track_event.age_ms, track_event.properties
  );
end
$$;
