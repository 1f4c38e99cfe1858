-- What is asked of a session in the archive is refused by name, not answered as if there were no such session.

create function widget_internal.refuse_archived_session(widget_id uuid, session_id text)
returns void
language plpgsql stable
set search_path = ''
as $$
begin
  if exists (
    select from widget_internal.archived_sessions a
    where a.session_key = widget_internal.archived_session_key(
      refuse_archived_session.widget_id, refuse_archived_session.session_id
    )
  ) then
    raise exception 'session_id: this session is in the archive' using errcode = 'invalid_parameter_value',
      hint = 'Bring it back with `widget-analytics restore`, then send this again.';
  end if;
end
$$;

comment on function widget_internal.refuse_archived_session(uuid, text) is 'Raises for a session that is in the archive.';

revoke all on function widget_internal.refuse_archived_session(uuid, text) from public, anon, authenticated, service_role;


create or replace function public.correct_widget_call(
  widget_id uuid, session_id text, call_id text, duration_seconds numeric, reason text, corrected_by text
)
returns jsonb
language plpgsql volatile
-- definer because service_role has no right to write the ledger
security definer
set search_path = ''
as $$
declare
  v_problem constant text := case
    when correct_widget_call.duration_seconds is null
      or not correct_widget_call.duration_seconds between 0 and (
        select extract(epoch from s.max_call_duration) from widget_internal.settings s
      )
      then 'duration_seconds: must be from 0, which voids the call, to the longest that a call can be'
    when coalesce(correct_widget_call.reason, '') !~ '\S' or length(correct_widget_call.reason) > 1000
      then 'reason: must say why, in at most 1000 characters'
    when coalesce(correct_widget_call.corrected_by, '') !~ '\S' or length(correct_widget_call.corrected_by) > 255
      then 'corrected_by: must say who, in at most 255 characters'
  end;
begin
  if v_problem is not null then
    raise exception '%', v_problem using errcode = 'invalid_parameter_value';
  end if;

  perform widget_internal.refuse_archived_session(correct_widget_call.widget_id, correct_widget_call.session_id);
  perform widget_internal.lock_sessions(
    array[widget_internal.session_key(correct_widget_call.widget_id, correct_widget_call.session_id)]
  );
  -- Its timestamp is that of the decision, so that by R5 the latest decision wins; how long the call was, it states.
  insert into public.widget_analytics (widget_id, session_id, call_id, source, event_type, "timestamp", properties)
  select c.widget_id, c.session_id, c.call_id, 'operator', 'call_end',
    greatest(clock_timestamp(), max(e."timestamp") + interval '1 microsecond'),
    jsonb_build_object(
      'duration_seconds', trim_scale(correct_widget_call.duration_seconds),
      'reason', correct_widget_call.reason, 'corrected_by', correct_widget_call.corrected_by, 'login', session_user
    )
  from public.widget_calls c
  left join public.widget_analytics e
    on e.widget_id = c.widget_id and e.session_id = c.session_id and e.source = 'operator'
    and e.event_type in ('call_end', 'call_error')
  where c.widget_id = correct_widget_call.widget_id and c.session_id = correct_widget_call.session_id
    and c.call_id = correct_widget_call.call_id
  group by c.widget_id, c.session_id, c.call_id;
  if not found then
    raise exception 'call_id: there is no such call in widget_calls' using errcode = 'invalid_parameter_value';
  end if;
  return (
    select to_jsonb(c) from public.widget_calls c
    where c.widget_id = correct_widget_call.widget_id and c.session_id = correct_widget_call.session_id
      and c.call_id = correct_widget_call.call_id
  );
end
$$;


create or replace function widget_internal.erase_session(widget_id uuid, session_id text)
returns jsonb
language plpgsql volatile
-- definer because nobody but its owner has the right to change the ledger
security definer
set search_path = ''
as $$
declare
  v_claims constant jsonb := nullif(current_setting('request.jwt.claims', true), '')::jsonb;
  v_erased integer;
begin
  if (widget_internal.widget_door(erase_session.widget_id)).is_active is null then
    raise exception 'widget_id: this widget is unknown, or not yours' using errcode = 'insufficient_privilege';
  elsif coalesce(length(erase_session.session_id), 0) not between 1 and 255 then
    raise exception 'session_id: must have 1 to 255 characters' using errcode = 'invalid_parameter_value';
  end if;

  perform widget_internal.refuse_archived_session(erase_session.widget_id, erase_session.session_id);
  perform widget_internal.lock_sessions(
    array[widget_internal.session_key(erase_session.widget_id, erase_session.session_id)]
  );
  update public.widget_analytics e
  set page_url = null, user_agent = null, properties = widget_internal.billing_facts(e.source, e.properties)
  where e.widget_id = erase_session.widget_id
    and e.session_id = erase_session.session_id
    and (
      e.page_url is not null or e.user_agent is not null
      or e.properties is distinct from widget_internal.billing_facts(e.source, e.properties)
    );
  get diagnostics v_erased = row_count;

  if v_erased > 0 then
    insert into public.widget_erasures (widget_id, session_id, erased_by, events)
    values (
      erase_session.widget_id, erase_session.session_id,
      concat_ws(' ', session_user, v_claims ->> 'role', v_claims ->> 'sub'), v_erased
    );
  end if;
  return jsonb_build_object('erased', v_erased);
end
$$;
