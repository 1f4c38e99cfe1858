-- A correction of a call in the archive says where the call is.

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
  if not found and exists (
    select from widget_internal.archived_sessions a
    where a.session_key = widget_internal.archived_session_key(
      correct_widget_call.widget_id, correct_widget_call.session_id
    )
  ) then
    raise exception 'session_id: this session is in the archive' using errcode = 'invalid_parameter_value',
      hint = 'Bring it back with `widget-analytics restore`, then send this again.';
  elsif not found then
    raise exception 'call_id: there is no such call in widget_calls' using errcode = 'invalid_parameter_value';
  end if;
  return (
    select to_jsonb(c) from public.widget_calls c
    where c.widget_id = correct_widget_call.widget_id and c.session_id = correct_widget_call.session_id
      and c.call_id = correct_widget_call.call_id
  );
end
$$;
