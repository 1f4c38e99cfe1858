-- One event in: what widgets call over REST. The wrapper in public runs as its caller; only what it calls may write.

create function widget_internal.record_event(
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
  v_page_host constant text := widget_internal.page_host();
  v_verdict constant text := widget_internal.ask_door(record_event.widget_id, v_page_host);
  v_properties constant jsonb := widget_internal.unwrap_json(record_event.properties);
  v_problem text;
  v_event public.widget_analytics;
  v_stored integer := 1;
begin
  if v_verdict not in ('open', 'demo') then
    perform widget_internal.count_refusals(
      array[widget_internal.door_refusal(v_verdict, record_event.widget_id, v_page_host)]
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
    v_event := widget_internal.new_event(
      record_event.widget_id, record_event.event_type, record_event.session_id, record_event.page_url,
      record_event.event_id, record_event.call_id, record_event.seq, record_event.age_ms, v_properties
    );
    insert into public.widget_analytics values (v_event.*) on conflict do nothing;
    get diagnostics v_stored = row_count;
  end if;
  return jsonb_build_object('accepted', v_stored, 'duplicates', 1 - v_stored, 'rejected', '[]'::jsonb);
end
$$;

comment on function widget_internal.record_event(uuid, text, text, text, uuid, text, integer, bigint, jsonb) is
  'What track_event() does, with the right to write the ledger.';

revoke all on function widget_internal.record_event(uuid, text, text, text, uuid, text, integer, bigint, jsonb)
  from public, anon, authenticated, service_role;
grant execute on function widget_internal.record_event(uuid, text, text, text, uuid, text, integer, bigint, jsonb)
  to anon, authenticated, service_role;


create function public.track_event(
  widget_id uuid, event_type text, session_id text, page_url text default null, event_id uuid default null,
  call_id text default null, seq integer default null, age_ms bigint default 0, properties jsonb default null
)
returns jsonb
language plpgsql volatile
set search_path = ''
as $$
begin
  return widget_internal.record_event(
    track_event.widget_id, track_event.event_type, track_event.session_id, track_event.page_url,
    track_event.event_id, track_event.call_id, track_event.seq, track_event.age_ms, track_event.properties
  );
end
$$;

comment on function public.track_event(uuid, text, text, text, uuid, text, integer, bigint, jsonb) is
  'Takes one event of a widget (R1, R3, R8). age_ms: how long ago it happened, by the sender''s own clock. '
  'Answers {"accepted", "duplicates", "rejected"}: an event_id that is there already is a success and changes nothing. '
  'HTTP 403 (42501): the widget is unknown, not active or not allowed on the page''s domain. 400 (22023): the message '
  'names the field. What is refused is counted in widget_refusals.';

revoke all on function public.track_event(uuid, text, text, text, uuid, text, integer, bigint, jsonb)
  from public, anon, authenticated, service_role;
grant execute on function public.track_event(uuid, text, text, text, uuid, text, integer, bigint, jsonb)
  to anon, authenticated, service_role;
