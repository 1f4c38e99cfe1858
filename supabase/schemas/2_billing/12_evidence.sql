-- What the company knows better than a browser: its server's record of a call, the call provider's, a person's decision.
-- Each is plain events of a higher source.

create function widget_internal.events_of_record(
  record_id text, started_at timestamptz, ended_at timestamptz, outcome text
)
returns table (event_type text, at timestamptz, properties jsonb)
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select r.event_type, r.at, jsonb_build_object('record_id', events_of_record.record_id)
  from (values
    ('call_start', events_of_record.started_at),
    (case events_of_record.outcome when 'failed' then 'call_error' else 'call_end' end, events_of_record.ended_at)
  ) r (event_type, at)
  where r.at is not null;
end
$$;

comment on function widget_internal.events_of_record(text, timestamptz, timestamptz, text) is
  'The events that a record of a call is in the ledger: one for each of its times.';


create function widget_internal.record_problem(
  record_id text, started_at timestamptz, ended_at timestamptz, outcome text
)
returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_earliest constant timestamptz := timestamptz '2000-01-01 00:00Z';
  v_latest constant timestamptz := now() + interval '5 minutes';
begin
  return case
    when coalesce(length(record_id), 0) not between 1 and 255 then 'record_id: must have 1 to 255 characters'
    when started_at is null and ended_at is null then 'started_at: must be there, or ended_at'
    when not isfinite(started_at) or started_at > v_latest then 'started_at: must not be in the future'
    when not isfinite(ended_at) or ended_at > v_latest then 'ended_at: must not be in the future'
    -- A time that was never set, the year 1 or 1970, would move the call into a month that holds up all closings.
    when started_at < v_earliest then 'started_at: must not be before the year 2000'
    when ended_at < v_earliest then 'ended_at: must not be before the year 2000'
    when ended_at < started_at then 'ended_at: must not be before started_at'
    when outcome is null or outcome not in ('completed', 'failed') then 'outcome: must be completed or failed'
  end;
end
$$;

comment on function widget_internal.record_problem(text, timestamptz, timestamptz, text) is
  'What is wrong with what somebody other than the browser says of a call; null where nothing is.';


create function public.record_widget_call_evidence(
  widget_id uuid, session_id text, call_id text, source text, record_id text,
  started_at timestamptz default null, ended_at timestamptz default null, outcome text default 'completed'
)
returns jsonb
language plpgsql volatile
-- definer because service_role has no right to write the ledger
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_given constant integer := num_nonnulls(record_widget_call_evidence.started_at, record_widget_call_evidence.ended_at);
  v_problem text;
  v_known widget_internal.call_states;
  v_accepted integer;
begin
  perform widget_internal.refuse_visitors();
  v_problem := case
    when coalesce(length(session_id), 0) not between 1 and 255 then 'session_id: must have 1 to 255 characters'
    when coalesce(length(call_id), 0) not between 1 and 255 then 'call_id: must have 1 to 255 characters'
    when source is null or source not in ('server', 'provider') then 'source: must be server or provider'
    when (widget_internal.widget_door(widget_id)).is_active is null then 'widget_id: there is no such widget'
    else widget_internal.record_problem(record_id, started_at, ended_at, outcome)
  end;
  if v_problem is not null then
    raise exception '%', v_problem using errcode = 'invalid_parameter_value';
  end if;

  -- A name that a sender could guess must not keep a record out, so it is not the event's id that tells a repeat.
  perform pg_advisory_xact_lock(hashtextextended(
    'widget_internal: record ' || record_widget_call_evidence.widget_id || record_widget_call_evidence.record_id, 0
  ));
  -- Around its time, by the index: what another session calls the same on another day is another call.
  select c.* into v_known
  from widget_internal.call_states c
  cross join lateral (select coalesce(record_widget_call_evidence.started_at, record_widget_call_evidence.ended_at)) r (at)
  where c.widget_id = record_widget_call_evidence.widget_id and c.call_id = record_widget_call_evidence.call_id
    and (c.session_id = record_widget_call_evidence.session_id
      or c.started_at between r.at - interval '1 day' and r.at + interval '1 day')
  order by c.session_id <> record_widget_call_evidence.session_id, c.started_at
  limit 1;
  if v_known.session_id <> record_widget_call_evidence.session_id then
    raise exception 'session_id: call % is known as one of session %', v_known.call_id, v_known.session_id
      using errcode = 'invalid_parameter_value', hint = 'Give that session_id: a second call would be billed as well.';
  end if;

  insert into public.widget_analytics (widget_id, session_id, call_id, source, event_type, "timestamp", properties)
  select record_widget_call_evidence.widget_id, record_widget_call_evidence.session_id, record_widget_call_evidence.call_id,
    record_widget_call_evidence.source, r.event_type, r.at, r.properties
  from widget_internal.events_of_record(
    record_widget_call_evidence.record_id, record_widget_call_evidence.started_at, record_widget_call_evidence.ended_at,
    record_widget_call_evidence.outcome
  ) r
  where not exists (
    select from public.widget_analytics e
    where e.widget_id = v_known.widget_id and e."timestamp" between v_known.first_event_at and v_known.last_event_at
      and e.session_id = v_known.session_id and e.call_id = v_known.call_id
      and e.source = record_widget_call_evidence.source and e.event_type in ('call_start', 'call_end', 'call_error')
      and (e.event_type = 'call_start') = (r.event_type = 'call_start')
      and e.properties ->> 'record_id' = record_widget_call_evidence.record_id
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
  '"duplicates", "call"}: the call as it now is, null as long as it has no start. Of several records of one source the '
  'earliest start and the latest end count. 400 (22023): the message names the field; session_id, where another session '
  'of the widget knows that call.';


create function public.correct_widget_call(
  widget_id uuid, session_id text, call_id text, duration_seconds numeric, reason text, corrected_by text
)
returns jsonb
language plpgsql volatile
-- definer because service_role has no right to write the ledger
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_problem text;
begin
  perform widget_internal.refuse_visitors();
  v_problem := case
    when correct_widget_call.duration_seconds is null
      or not correct_widget_call.duration_seconds between 0 and (
        select extract(epoch from s.max_call_duration) from widget_internal.settings s
      )
      then 'duration_seconds: must be from 0, which voids the call, to the longest that a call can be'
    when coalesce(correct_widget_call.reason, '') !~ '[^[:space:]]' or length(correct_widget_call.reason) > 1000
      then 'reason: must say why, in at most 1000 characters'
    when coalesce(correct_widget_call.corrected_by, '') !~ '[^[:space:]]' or length(correct_widget_call.corrected_by) > 255
      then 'corrected_by: must say who, in at most 255 characters'
  end;
  if v_problem is not null then
    raise exception '%', v_problem using errcode = 'invalid_parameter_value';
  end if;

  -- Start and end of one decision carry one moment of receipt, later than that of the decision before it: the latest counts.
  insert into public.widget_analytics (
    widget_id, session_id, call_id, source, event_type, "timestamp", received_at, properties
  )
  select c.widget_id, c.session_id, c.call_id, 'operator', e.event_type, c.started_at + e.after,
    greatest(widget_internal.receipt_time(), timestamptz 'epoch' + (c.end_claim[2] + 1) * interval '1 microsecond'),
    jsonb_build_object(
      'reason', correct_widget_call.reason, 'corrected_by', correct_widget_call.corrected_by, 'login', session_user
    )
  from widget_internal.call_states c
  cross join (values
    ('call_start', interval '0'),
    ('call_end', correct_widget_call.duration_seconds * interval '1 second')
  ) e (event_type, after)
  where c.widget_id = correct_widget_call.widget_id and c.session_id = correct_widget_call.session_id
    and c.call_id = correct_widget_call.call_id and c.started_at is not null;
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

comment on function public.correct_widget_call(uuid, text, text, numeric, text, text) is
  'Sets how long a call was, whatever else is said of it; 0 voids it: it is billed at nothing under any plan. The latest '
  'correction counts; who and why stand in the rule that bills show. Answers the call as it now is. In a closed month '
  'it becomes an adjustment. 400 (22023): the message names the field.';
