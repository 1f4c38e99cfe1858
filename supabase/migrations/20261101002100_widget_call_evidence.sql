-- What the company's own backend knows better than a browser: its server's record of a call, or the call provider's.

create function widget_internal.evidence_problem(
  session_id text, call_id text, source text, record_id text, started_at timestamptz, ended_at timestamptz, outcome text
)
returns text
language plpgsql stable
set search_path = ''
as $$
begin
  return case
    when coalesce(length(session_id), 0) not between 1 and 255 then 'session_id: must have 1 to 255 characters'
    when coalesce(length(call_id), 0) not between 1 and 255 then 'call_id: must have 1 to 255 characters'
    when source is null or source not in ('server', 'provider') then 'source: must be server or provider'
    when coalesce(length(record_id), 0) not between 1 and 255 then 'record_id: must have 1 to 255 characters'
    when started_at is null and ended_at is null then 'started_at: must be there, or ended_at'
    when not isfinite(started_at) or started_at > now() + interval '5 minutes' then 'started_at: must not be in the future'
    when not isfinite(ended_at) or ended_at > now() + interval '5 minutes' then 'ended_at: must not be in the future'
    when ended_at < started_at then 'ended_at: must not be before started_at'
    when outcome is null or outcome not in ('completed', 'failed') then 'outcome: must be completed or failed'
  end;
end
$$;

comment on function widget_internal.evidence_problem(text, text, text, text, timestamptz, timestamptz, text) is
  'What is wrong with a record of a call: the field, a colon, what it must be; null where nothing is.';


create function public.record_widget_call_evidence(
  widget_id uuid, session_id text, call_id text, source text, record_id text,
  started_at timestamptz default null, ended_at timestamptz default null, outcome text default 'completed'
)
returns jsonb
language plpgsql volatile
-- definer because service_role has no right to write the ledger
security definer
set search_path = ''
as $$
#variable_conflict use_column
declare
  v_problem constant text := widget_internal.evidence_problem(
    record_widget_call_evidence.session_id, record_widget_call_evidence.call_id, record_widget_call_evidence.source,
    record_widget_call_evidence.record_id, record_widget_call_evidence.started_at, record_widget_call_evidence.ended_at,
    record_widget_call_evidence.outcome
  );
  v_properties constant jsonb := jsonb_strip_nulls(jsonb_build_object(
    'record_id', record_widget_call_evidence.record_id, 'duration_seconds',
    trim_scale(extract(epoch from record_widget_call_evidence.ended_at - record_widget_call_evidence.started_at))
  ));
  v_given integer := num_nonnulls(record_widget_call_evidence.started_at, record_widget_call_evidence.ended_at);
  v_accepted integer;
begin
  if v_problem is not null then
    raise exception '%', v_problem using errcode = 'invalid_parameter_value';
  elsif (widget_internal.widget_door(record_widget_call_evidence.widget_id)).is_active is null then
    raise exception 'widget_id: there is no such widget' using errcode = 'invalid_parameter_value';
  end if;

  -- A name that a sender could guess must not keep a record out, so it is not the event's id (R1) that tells a repeat.
  perform widget_internal.lock_sessions(
    array[widget_internal.session_key(record_widget_call_evidence.widget_id, record_widget_call_evidence.session_id)]
  );
  insert into public.widget_analytics (widget_id, session_id, call_id, source, event_type, "timestamp", properties)
  select record_widget_call_evidence.widget_id, record_widget_call_evidence.session_id, record_widget_call_evidence.call_id,
    record_widget_call_evidence.source, r.event_type, r.at, v_properties - r.dropped
  from (values
    ('call_start', record_widget_call_evidence.started_at, 'duration_seconds'),
    (case record_widget_call_evidence.outcome when 'failed' then 'call_error' else 'call_end' end,
      record_widget_call_evidence.ended_at, '')
  ) r (event_type, at, dropped)
  where r.at is not null and not exists (
    select from public.widget_analytics e
    where e.widget_id = record_widget_call_evidence.widget_id and e.session_id = record_widget_call_evidence.session_id
      and e.event_type in ('call_start', 'call_end', 'call_error')
      and (e.event_type = 'call_start') = (r.event_type = 'call_start')
      and e.source = record_widget_call_evidence.source and e.properties ->> 'record_id' = record_widget_call_evidence.record_id
  );
  get diagnostics v_accepted = row_count;
  return jsonb_build_object('accepted', v_accepted, 'duplicates', v_given - v_accepted, 'call', (
    select to_jsonb(c) from public.widget_calls c
    where c.widget_id = record_widget_call_evidence.widget_id and c.session_id = record_widget_call_evidence.session_id
      and c.call_id = record_widget_call_evidence.call_id
  ));
end
$$;

comment on function public.record_widget_call_evidence(uuid, text, text, text, text, timestamptz, timestamptz, text) is
  'Adds what your server or the call provider (source) knows of a call: its true start, end or both; a call that is not '
  'known yet begins so. record_id: the record''s name at its source; sent again, it changes nothing. Answers {"accepted", '
  '"duplicates", "call"}: the call as it now is, null as long as it has no start. Where both times are given, the call '
  'lasts exactly that long, though it began when it was first heard of (R4). 400 (22023): the message names the field.';

revoke all on function widget_internal.evidence_problem(text, text, text, text, timestamptz, timestamptz, text)
  from public, anon, authenticated, service_role;
revoke all on function public.record_widget_call_evidence(uuid, text, text, text, text, timestamptz, timestamptz, text)
  from public, anon, authenticated, service_role;
grant execute on function public.record_widget_call_evidence(uuid, text, text, text, text, timestamptz, timestamptz, text)
  to service_role;
