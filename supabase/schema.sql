-- Made from supabase/migrations by scripts/schema, for reading and reviewing; never applied, never edited.

CREATE SCHEMA public;

COMMENT ON SCHEMA public IS 'standard public schema';

CREATE SCHEMA widget_internal;

COMMENT ON SCHEMA widget_internal IS 'Internals of widget analytics. Never expose it through the API: what callers may use is in public.';

CREATE DOMAIN widget_internal.call_id AS text COLLATE pg_catalog."C"
	CONSTRAINT call_id_has_1_to_255_characters CHECK (((length(VALUE) >= 1) AND (length(VALUE) <= 255)));

COMMENT ON DOMAIN widget_internal.call_id IS 'The sender''s name for a call of its session.';

CREATE DOMAIN widget_internal.event_properties AS jsonb
	CONSTRAINT properties_are_an_object CHECK ((jsonb_typeof(VALUE) = 'object'::text));

COMMENT ON DOMAIN widget_internal.event_properties IS 'Small extras of an event.';

CREATE DOMAIN widget_internal.event_seq AS integer
	CONSTRAINT seq_starts_at_1 CHECK ((VALUE >= 1));

COMMENT ON DOMAIN widget_internal.event_seq IS 'The sender''s running number in its session.';

CREATE DOMAIN widget_internal.event_source AS text
	CONSTRAINT source_is_known CHECK ((VALUE = ANY (ARRAY['browser'::text, 'server'::text, 'provider'::text, 'operator'::text, 'inferred'::text])));

COMMENT ON DOMAIN widget_internal.event_source IS 'Who says so: operator, provider, server, browser, or inferred by the cleanup; the earlier in this list outranks (R5).';

CREATE DOMAIN widget_internal.event_timestamp AS timestamp with time zone
	CONSTRAINT timestamp_is_finite CHECK (isfinite(VALUE));

COMMENT ON DOMAIN widget_internal.event_timestamp IS 'A moment at which an event happened.';

CREATE DOMAIN widget_internal.event_type AS text
	CONSTRAINT event_type_is_known CHECK ((VALUE = ANY (ARRAY['widget_load'::text, 'widget_open'::text, 'call_start'::text, 'call_heartbeat'::text, 'call_end'::text, 'call_error'::text])));

COMMENT ON DOMAIN widget_internal.event_type IS 'What a widget can report.';

CREATE TYPE widget_internal.refusal AS (
	widget_id uuid,
	reason text,
	detail text
);

COMMENT ON TYPE widget_internal.refusal IS 'One refused event. detail: the page''s host, the field that was wrong, or the unknown widget''s id.';

CREATE DOMAIN widget_internal.session_id AS text COLLATE pg_catalog."C"
	CONSTRAINT session_id_has_1_to_255_characters CHECK (((length(VALUE) >= 1) AND (length(VALUE) <= 255)));

COMMENT ON DOMAIN widget_internal.session_id IS 'The sender''s name for one load of a widget.';

CREATE TYPE widget_internal.session_name AS (
	widget_id uuid,
	session_id text
);

COMMENT ON TYPE widget_internal.session_name IS 'A session: its widget, and the name that its sender gave it.';

CREATE FUNCTION public.broken_widget_statements() RETURNS TABLE(period date, widget_id uuid, usage_period date)
    LANGUAGE plpgsql STABLE
    SET search_path TO ''
    AS $$
begin
  return query
  select c.period, c.widget_id, c.usage_period
  from public.widget_statement_charges c
  where c.content_hash <> widget_internal.sha256_hex(widget_internal.charge_content(c))
  union all
  select p.period, null, null
  from public.widget_billing_periods p
  where p.content_hash <> widget_internal.sha256_hex(widget_internal.period_content(p));
end
$$;

COMMENT ON FUNCTION public.broken_widget_statements() IS 'Charges, and months (without widget_id), that are not what was closed, by their hashes. Good: no rows.';

CREATE FUNCTION public.close_widget_billing_period(period text) RETURNS TABLE(month date, answer text, as_of timestamp with time zone, closed_at timestamp with time zone, closed_by text, content_hash text, calls bigint, adjustments bigint)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO ''
    AS $$
#variable_conflict use_column
declare
  v_month constant date := widget_internal.to_month(close_widget_billing_period.period);
  v_bounds constant record := widget_internal.month_bounds(v_month);
  v_claims constant jsonb := nullif(current_setting('request.jwt.claims', true), '')::jsonb;
  v_as_of timestamptz;
begin
  if current_setting('transaction_isolation') not in ('read committed', 'read uncommitted') then
    raise exception 'a month is closed in a read committed transaction only' using errcode = 'feature_not_supported';
  end if;

  -- Two closings at once: the second waits, and then finds the month closed.
  perform pg_advisory_xact_lock(widget_internal.closing_key());
  if not exists (select from public.widget_billing_periods p where p.period = v_month) then
    perform widget_internal.refuse_to_close(v_month);
    v_as_of := widget_internal.cut_off();
    perform widget_internal.write_lines(v_month, v_as_of);
    perform widget_internal.write_charges(v_month);
    insert into public.widget_billing_periods (period, period_start, period_end, as_of, closed_by, content_hash)
    values (
      v_month, v_bounds.period_start, v_bounds.period_end, v_as_of,
      concat_ws(' ', session_user, v_claims ->> 'role', v_claims ->> 'sub'), ''
    );
  end if;

  return query
  select
    p.period, case when v_as_of is null then 'was closed already; nothing was changed' else 'closed now' end,
    p.as_of, p.closed_at, p.closed_by, p.content_hash,
    count(l.period) filter (where l.usage_period = l.period), count(l.period) filter (where l.usage_period < l.period)
  from public.widget_billing_periods p
  left join public.widget_statement_lines l on l.period = p.period
  where p.period = v_month
  group by p.period;
end
$$;

COMMENT ON FUNCTION public.close_widget_billing_period(period text) IS 'Writes the statement of a month (2026-10) that is over, for all widgets: widget_billing_periods, its charges and its lines, which nothing changes afterwards. What later arrivals changed in earlier closed months is in it as adjustments. Closing again changes nothing and says so. Refused: a month that is not over, or has an earlier one with calls that is not closed (22023); a transaction that keeps writing events (55P03). There is no way to open it again.';

CREATE FUNCTION public.complete_stale_sessions(stale_after interval DEFAULT '00:30:00'::interval) RETURNS TABLE(calls_checked integer, calls_completed integer, calls_still_active integer)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO ''
    AS $$
#variable_conflict use_column
declare
  v_run public.widget_cleanup_runs;
begin
  if complete_stale_sessions.stale_after is null or complete_stale_sessions.stale_after < interval '0' then
    raise exception 'stale_after: must be an interval of zero or more'
      using errcode = 'invalid_parameter_value', hint = 'Leave it out for 30 minutes.';
  end if;

  insert into public.widget_cleanup_runs default values returning * into v_run;
  begin
    select c.calls_checked, c.calls_completed
    into v_run.calls_checked, v_run.calls_completed
    from widget_internal.complete_stale_calls(complete_stale_sessions.stale_after) c;
  exception when others then
    -- Not raised again: that would undo the record of the failure.
    v_run.error := sqlstate || ': ' || sqlerrm;
    perform set_config('response.status', '500', true);
    raise warning 'complete_stale_sessions failed: %', v_run.error;
  end;

  update public.widget_cleanup_runs r
  set finished_at = clock_timestamp(), error = v_run.error,
    calls_checked = v_run.calls_checked, calls_completed = v_run.calls_completed,
    calls_still_active = v_run.calls_checked - v_run.calls_completed
  where r.id = v_run.id
  returning r.* into v_run;
  return query select v_run.calls_checked, v_run.calls_completed, v_run.calls_still_active;
end
$$;

COMMENT ON FUNCTION public.complete_stale_sessions(stale_after interval) IS 'Gives each call that is open for longer than stale_after, with no heartbeat since, an inferred call_end: at its last heartbeat, else at its start plus stale_after (R7). Safe at any moment, twice at once, after days without a run. Every run leaves a row in widget_cleanup_runs; one that fails changes nothing else and answers HTTP 500.';

CREATE FUNCTION public.correct_widget_call(widget_id uuid, session_id text, call_id text, duration_seconds numeric, reason text, corrected_by text) RETURNS jsonb
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO ''
    AS $$
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

COMMENT ON FUNCTION public.correct_widget_call(widget_id uuid, session_id text, call_id text, duration_seconds numeric, reason text, corrected_by text) IS 'Sets how long a call was, whatever else is said of it; 0 voids it: it is billed at nothing under any plan. The latest correction counts; who and why stand in the rule that bills show. Answers the call as it now is. In a closed month it becomes an adjustment. 400 (22023): the message names the field.';

CREATE FUNCTION public.disable_widget_alerts() RETURNS void
    LANGUAGE plpgsql
    SET search_path TO ''
    AS $$
begin
  delete from widget_internal.alert_settings;
  delete from widget_internal.standing_alarms;
  delete from widget_internal.alert_posts;
  perform cron.unschedule(j.jobid) from cron.job j where j.jobname = 'widget_send_alerts';
end
$$;

COMMENT ON FUNCTION public.disable_widget_alerts() IS 'For the SQL editor: posts no alerts any more, and forgets the URL.';

CREATE FUNCTION public.enable_widget_alerts(url text, min_delivery_rate numeric DEFAULT 0.95, min_completion_rate numeric DEFAULT 0.8, min_cases integer DEFAULT 20, repeat_after interval DEFAULT '06:00:00'::interval) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO ''
    AS $_$
begin
  if enable_widget_alerts.url is null or enable_widget_alerts.url !~ '^https?://[^[:space:]]+$' then
    raise exception 'url: must be an http or https URL' using errcode = 'invalid_parameter_value';
  elsif not exists (
    select from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace
    where n.nspname = 'net' and p.proname = 'http_post'
  ) then
    raise exception 'alerts need the extension pg_net'
      using errcode = 'undefined_function', hint = 'create extension pg_net, then try again.';
  end if;

  insert into widget_internal.alert_settings as s (url, min_delivery_rate, min_completion_rate, min_cases, repeat_after)
  values (
    enable_widget_alerts.url, enable_widget_alerts.min_delivery_rate, enable_widget_alerts.min_completion_rate,
    enable_widget_alerts.min_cases, enable_widget_alerts.repeat_after
  )
  on conflict (only_row) do update set
    url = excluded.url, min_delivery_rate = excluded.min_delivery_rate,
    min_completion_rate = excluded.min_completion_rate, min_cases = excluded.min_cases,
    repeat_after = excluded.repeat_after;
  perform cron.schedule('widget_send_alerts', '*/5 * * * *', 'select widget_internal.send_alerts()');
end
$_$;

COMMENT ON FUNCTION public.enable_widget_alerts(url text, min_delivery_rate numeric, min_completion_rate numeric, min_cases integer, repeat_after interval) IS 'For the SQL editor: from now on every five minutes what widget_alarms() finds is posted to this URL, once, again after repeat_after, and when it is well again. Called again, it changes the settings. No API role may call it.';

CREATE FUNCTION public.erase_widget_session(widget_id uuid, session_id text) RETURNS jsonb
    LANGUAGE plpgsql
    SET search_path TO ''
    AS $$
begin
  if has_function_privilege('widget_internal.erase_session(uuid, text)', 'execute') then
    return widget_internal.erase_session(erase_widget_session.widget_id, erase_widget_session.session_id);
  end if;
  return widget_internal.erase_own_session(erase_widget_session.widget_id, erase_widget_session.session_id);
end
$$;

COMMENT ON FUNCTION public.erase_widget_session(widget_id uuid, session_id text) IS 'Erases page, agent and properties of all events of a session: for the widget''s owner, and service_role. Ids, times, types, sources and what bills rest on stay, so calls, bills and closed months do not change. Answers {"erased": n}, how many events lost something; again, 0. Each time that it erases leaves a row in widget_erasures. What arrives in the days after is erased by the daily job widget_prune. 42501: the widget is unknown, or not yours. 400 (22023): session_id is none.';

CREATE FUNCTION public.record_widget_call_evidence(widget_id uuid, session_id text, call_id text, source text, record_id text, started_at timestamp with time zone DEFAULT NULL::timestamp with time zone, ended_at timestamp with time zone DEFAULT NULL::timestamp with time zone, outcome text DEFAULT 'completed'::text) RETURNS jsonb
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO ''
    AS $$
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

COMMENT ON FUNCTION public.record_widget_call_evidence(widget_id uuid, session_id text, call_id text, source text, record_id text, started_at timestamp with time zone, ended_at timestamp with time zone, outcome text) IS 'Adds what your server or the call provider (source) knows of a call: its true start, end or both; a call that is not known yet begins so. record_id: the record''s name at its source; sent again, it changes nothing. Answers {"accepted", "duplicates", "call"}: the call as it now is, null as long as it has no start. Where both times are given, the call lasts exactly that long, though it began when it was first heard of (R4). 400 (22023): the message names the field.';

CREATE FUNCTION public.refresh_widget_health(OUT counted_to timestamp with time zone, OUT events_counted bigint) RETURNS record
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO ''
    AS $$
declare
  v_from timestamptz;
begin
  if current_setting('transaction_isolation') not in ('read committed', 'read uncommitted') then
    -- It would not see what is committed between its beginning and the cut-off, and nobody would count that again.
    raise exception 'health is counted in a read committed transaction only' using errcode = 'feature_not_supported';
  end if;

  -- One refresh at a time: the next one goes on where this one ends.
  select s.counted_to into v_from from widget_internal.health_state s for update;
  refresh_widget_health.counted_to := widget_internal.cut_off();
  refresh_widget_health.events_counted := widget_internal.count_events(v_from, refresh_widget_health.counted_to);
  if refresh_widget_health.events_counted > 0 then
    perform widget_internal.rank_response_times(v_from, refresh_widget_health.counted_to);
    perform widget_internal.count_sessions(v_from, refresh_widget_health.counted_to);
    perform widget_internal.count_calls(v_from, refresh_widget_health.counted_to);
  end if;
  update widget_internal.health_state s set counted_to = refresh_widget_health.counted_to;
end
$$;

COMMENT ON FUNCTION public.refresh_widget_health(OUT counted_to timestamp with time zone, OUT events_counted bigint) IS 'Brings widget_health, widget_pages and widget_response_times up to now. Reads what was received since the last time, not the ledger; pg_cron runs it every five minutes. Answers up to when, and how many events were new.';

CREATE FUNCTION public.track_event(widget_id uuid, event_type text, session_id text, page_url text DEFAULT NULL::text, event_id uuid DEFAULT NULL::uuid, call_id text DEFAULT NULL::text, seq integer DEFAULT NULL::integer, age_ms bigint DEFAULT 0, properties jsonb DEFAULT NULL::jsonb) RETURNS jsonb
    LANGUAGE plpgsql
    SET search_path TO ''
    AS $$
begin
  return widget_internal.record_event(
    track_event.widget_id, track_event.event_type, track_event.session_id, track_event.page_url,
    track_event.event_id, track_event.call_id, track_event.seq, track_event.age_ms, track_event.properties
  );
end
$$;

COMMENT ON FUNCTION public.track_event(widget_id uuid, event_type text, session_id text, page_url text, event_id uuid, call_id text, seq integer, age_ms bigint, properties jsonb) IS 'Takes one event of a widget (R1, R3, R8). age_ms: how long ago it happened, by the sender''s own clock. Answers {"accepted", "duplicates", "rejected"}: an event_id that is there already is a success and changes nothing. HTTP 403 (42501): the widget is unknown, not active or not allowed on the page''s domain. 400 (22023): the message names the field. 429 (53400): over quota; Retry-After and retry_after say for how many seconds. 503 (25006): the database is read-only just now. What is refused is counted in widget_refusals.';

CREATE FUNCTION public.track_events(events jsonb) RETURNS jsonb
    LANGUAGE plpgsql
    SET search_path TO ''
    AS $$
begin
  return widget_internal.record_events(track_events.events);
end
$$;

COMMENT ON FUNCTION public.track_events(events jsonb) IS 'Takes up to 1000 events: an array of objects with the arguments of track_event() as keys. Answers {"accepted": n, "duplicates": n, "rejected": [{"index": i, "reason": "field: why"}]}; one bad event never costs another. HTTP 400 (22023): not an array. 413 (54000): too many. 429 (53400): at least one is over quota; the others are stored. Send all again after Retry-After (in the body: retry_after) seconds.';

CREATE FUNCTION public.widget_alarms(min_delivery_rate numeric DEFAULT 0.95, min_completion_rate numeric DEFAULT 0.8, min_cases integer DEFAULT 20, period interval DEFAULT '24:00:00'::interval) RETURNS TABLE(alarm text, widget_id uuid, message text)
    LANGUAGE plpgsql STABLE
    SET search_path TO ''
    AS $$
#variable_conflict use_column
declare
  v_run public.widget_cleanup_runs;
  v_counted_to timestamptz;
begin
  select r.* into v_run from public.widget_cleanup_runs r order by r.id desc limit 1;
  if v_run.started_at is null or v_run.started_at < now() - interval '35 minutes' then
    return query select 'cleanup_late', null::uuid, format(
      'the cleanup is late, it should run every 30 minutes and last ran %s: look at cron.job_run_details, or at '
      'whatever calls the Edge Function',
      coalesce('at ' || to_char(v_run.started_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI') || ' UTC', 'never')
    );
  end if;
  if v_run.error is not null then
    return query select 'cleanup_failed', null::uuid, 'the last cleanup failed: ' || v_run.error;
  end if;

  select s.counted_to into v_counted_to from widget_internal.health_state s;
  if v_counted_to < now() - interval '20 minutes' then
    return query select 'health_late', null::uuid,
      'health is not counted, refresh_widget_health() should run every 5 minutes: look at cron.job_run_details';
  end if;

  return query
  with rates as materialized (select r.* from public.widget_rates(now() - widget_alarms.period) r)
  select 'delivery_low', r.widget_id, format(
    '%s: %s %% of the events arrived, expected at least %s %%', coalesce('widget ' || r.widget_id, 'all widgets'),
    round(100 * r.delivery_rate, 1), round(100 * widget_alarms.min_delivery_rate, 1)
  )
  from rates r
  where r.events_expected >= widget_alarms.min_cases and r.delivery_rate < widget_alarms.min_delivery_rate
  union all
  select 'completion_low', r.widget_id, format(
    '%s: %s %% of the calls that are over ended as somebody observed, expected at least %s %%',
    coalesce('widget ' || r.widget_id, 'all widgets'),
    round(100 * r.completion_rate, 1), round(100 * widget_alarms.min_completion_rate, 1)
  )
  from rates r
  where r.calls_started - r.calls_open >= widget_alarms.min_cases
    and r.completion_rate < widget_alarms.min_completion_rate
  order by 1 desc, 2 nulls first;
end
$$;

COMMENT ON FUNCTION public.widget_alarms(min_delivery_rate numeric, min_completion_rate numeric, min_cases integer, period interval) IS 'What is not well: cleanup_late, cleanup_failed, health_late, and for each widget, and all of them together (no widget_id), delivery_low and completion_low, of the last 24 hours, where there were at least min_cases events expected, or calls that are over. Good: no rows.';

CREATE FUNCTION public.widget_billing_calls(period_start timestamp with time zone, period_end timestamp with time zone, as_of timestamp with time zone DEFAULT NULL::timestamp with time zone) RETURNS TABLE(widget_id uuid, session_id text, call_id text, started_at timestamp with time zone, ended_at timestamp with time zone, outcome text, evidence text, duration_seconds numeric, billable_seconds numeric, rule text, amount numeric, currency text)
    LANGUAGE plpgsql STABLE
    SET search_path TO ''
    AS $$
begin
  perform widget_internal.refuse_archived_period(widget_billing_calls.period_start);
  return query
  select
    c.widget_id, c.session_id, c.call_id, c.started_at, c.ended_at, c.outcome, c.evidence, c.duration_seconds,
    c.billable_seconds, c.rule, round(c.billable_seconds * (c.plan).price_per_minute / 60, 6), (c.plan).currency
  from widget_internal.rated_calls(
    widget_billing_calls.period_start, widget_billing_calls.period_end,
    widget_internal.counted_as_of(widget_billing_calls.as_of)
  ) c;
end
$$;

COMMENT ON FUNCTION public.widget_billing_calls(period_start timestamp with time zone, period_end timestamp with time zone, as_of timestamp with time zone) IS 'The calls that started in [period_start, period_end), one row each: billable_seconds, and rule, which says why. amount: these seconds at the plan''s price, to six decimals; included seconds and the rounding of money come in where a month is summed up, in widget_billing_usage(). as_of counts only events received by then, so that a past bill can be made again; left out: all events. Owners see their widgets'' calls, service_role all.';

CREATE FUNCTION public.widget_billing_period(period text, OUT period_start timestamp with time zone, OUT period_end timestamp with time zone, OUT time_zone text) RETURNS record
    LANGUAGE plpgsql STABLE
    SET search_path TO ''
    AS $$
begin
  select b.period_start, b.period_end, s.billing_time_zone
  into widget_billing_period.period_start, widget_billing_period.period_end, widget_billing_period.time_zone
  from widget_internal.month_bounds(widget_internal.to_month(widget_billing_period.period)) b
  cross join widget_internal.settings s;
end
$$;

COMMENT ON FUNCTION public.widget_billing_period(period text, OUT period_start timestamp with time zone, OUT period_end timestamp with time zone, OUT time_zone text) IS 'The bounds of a billing month (2026-10), as widget_billing_calls() and widget_billing_usage() take them.';

CREATE FUNCTION public.widget_billing_usage(period_start timestamp with time zone, period_end timestamp with time zone, as_of timestamp with time zone DEFAULT NULL::timestamp with time zone) RETURNS TABLE(widget_id uuid, calls bigint, billable_seconds numeric, observed_calls bigint, observed_seconds numeric, provider_calls bigint, provider_seconds numeric, operator_calls bigint, operator_seconds numeric, heartbeat_calls bigint, heartbeat_seconds numeric, assumed_calls bigint, assumed_seconds numeric, open_calls bigint, failed_calls bigint, charged_seconds numeric, amount numeric, currency text)
    LANGUAGE plpgsql STABLE
    SET search_path TO ''
    AS $$
begin
  perform widget_internal.refuse_archived_period(widget_billing_usage.period_start);
  return query
  with parts as (
    select r.widget_id, r.month, r.plan, r.outcome, r.evidence, r.calls, r.billable_seconds * r.times as seconds
    from widget_internal.priced_calls(
      widget_billing_usage.period_start, widget_billing_usage.period_end,
      case when widget_billing_usage.as_of is not null then widget_internal.counted_as_of(widget_billing_usage.as_of) end,
      in_sums => true
    ) r
  ),
  months as (
    select r.widget_id, r.plan, sum(r.seconds) as seconds from parts r group by r.widget_id, r.month, r.plan
  ),
  charges as (
    select
      m.widget_id,
      sum(greatest(m.seconds - coalesce((m.plan).included_seconds, 0), 0)) as charged_seconds,
      sum(widget_internal.charge(m.seconds, m.plan)) filter (where (m.plan).currency is not null) as amount,
      min((m.plan).currency) as currency,
      -- A month without a plan has no amount, and euros are not added to dollars.
      count((m.plan).currency) = count(*) and min((m.plan).currency) = max((m.plan).currency) as has_amount
    from months m
    group by m.widget_id
  ),
  sums as (
    select
      r.widget_id, sum(r.calls) as calls, sum(r.seconds) as seconds,
      sum(r.calls) filter (where r.evidence = 'observed') as observed_calls,
      sum(r.seconds) filter (where r.evidence = 'observed') as observed_seconds,
      sum(r.calls) filter (where r.evidence = 'provider') as provider_calls,
      sum(r.seconds) filter (where r.evidence = 'provider') as provider_seconds,
      sum(r.calls) filter (where r.evidence = 'operator') as operator_calls,
      sum(r.seconds) filter (where r.evidence = 'operator') as operator_seconds,
      sum(r.calls) filter (where r.evidence = 'heartbeat') as heartbeat_calls,
      sum(r.seconds) filter (where r.evidence = 'heartbeat') as heartbeat_seconds,
      sum(r.calls) filter (where r.evidence = 'assumed') as assumed_calls,
      sum(r.seconds) filter (where r.evidence = 'assumed') as assumed_seconds,
      sum(r.calls) filter (where r.outcome = 'open') as open_calls,
      sum(r.calls) filter (where r.outcome = 'failed') as failed_calls
    from parts r
    group by r.widget_id
  )
  select
    s.widget_id, s.calls::bigint, s.seconds,
    coalesce(s.observed_calls, 0)::bigint, coalesce(s.observed_seconds, 0),
    coalesce(s.provider_calls, 0)::bigint, coalesce(s.provider_seconds, 0),
    coalesce(s.operator_calls, 0)::bigint, coalesce(s.operator_seconds, 0),
    coalesce(s.heartbeat_calls, 0)::bigint, coalesce(s.heartbeat_seconds, 0),
    coalesce(s.assumed_calls, 0)::bigint, coalesce(s.assumed_seconds, 0),
    coalesce(s.open_calls, 0)::bigint, coalesce(s.failed_calls, 0)::bigint,
    c.charged_seconds,
    case when c.has_amount then c.amount end,
    case when c.has_amount then c.currency end
  from sums s
  join charges c on c.widget_id = s.widget_id;
end
$$;

COMMENT ON FUNCTION public.widget_billing_usage(period_start timestamp with time zone, period_end timestamp with time zone, as_of timestamp with time zone) IS 'The sums of widget_billing_calls() per widget: all calls of the period, their billable seconds, and both by evidence. charged_seconds and amount: month by month what exceeds the plan''s included seconds, and its price, rounded to the currency''s decimals; null unless all months have a plan, and all in one currency.';

CREATE FUNCTION public.widget_busiest_hosts(first_day date, last_day date, only_widget_id uuid DEFAULT NULL::uuid) RETURNS TABLE(widget_id uuid, host text, sessions bigint, loads bigint, opens bigint, calls bigint)
    LANGUAGE plpgsql STABLE
    SET search_path TO ''
    AS $$
begin
  return query
  select
    p.widget_id, nullif(p.host, ''),
    sum(p.sessions)::bigint, sum(p.loads)::bigint, sum(p.opens)::bigint, sum(p.calls)::bigint
  from widget_internal.health_pages p
  where p.day between widget_busiest_hosts.first_day and widget_busiest_hosts.last_day
    and (widget_busiest_hosts.only_widget_id is null or p.widget_id = widget_busiest_hosts.only_widget_id)
    and p.sessions > 0
  group by p.widget_id, p.host
  order by 3 desc, 6 desc, 2;
end
$$;

COMMENT ON FUNCTION public.widget_busiest_hosts(first_day date, last_day date, only_widget_id uuid) IS 'The domains of a period of UTC days, both included, of one widget or of all, the busiest first.';

CREATE FUNCTION public.widget_busiest_pages(first_day date, last_day date, only_widget_id uuid DEFAULT NULL::uuid, max_pages integer DEFAULT 20) RETURNS TABLE(widget_id uuid, host text, page_url text, sessions bigint, loads bigint, opens bigint, calls bigint)
    LANGUAGE plpgsql STABLE
    SET search_path TO ''
    AS $$
begin
  return query
  select
    p.widget_id, nullif(p.host, ''), nullif(p.page_url, ''),
    sum(p.sessions)::bigint, sum(p.loads)::bigint, sum(p.opens)::bigint, sum(p.calls)::bigint
  from widget_internal.health_pages p
  where p.day between widget_busiest_pages.first_day and widget_busiest_pages.last_day
    and (widget_busiest_pages.only_widget_id is null or p.widget_id = widget_busiest_pages.only_widget_id)
    and p.sessions > 0
  group by p.widget_id, p.host, p.page_url
  order by 4 desc, 7 desc, 3
  limit widget_busiest_pages.max_pages;
end
$$;

COMMENT ON FUNCTION public.widget_busiest_pages(first_day date, last_day date, only_widget_id uuid, max_pages integer) IS 'The busiest pages of a period of UTC days, both included, of one widget or of all, exact: like widget_pages, but summed up over the days.';

CREATE FUNCTION public.widget_busiest_places(period_start timestamp with time zone, period_end timestamp with time zone, only_widget uuid DEFAULT NULL::uuid, by text DEFAULT 'page'::text, row_limit integer DEFAULT 10) RETURNS TABLE(place text, loads bigint, opens bigint, calls bigint)
    LANGUAGE plpgsql STABLE
    SET search_path TO ''
    AS $$
begin
  if not coalesce(widget_busiest_places.by in ('page', 'host'), false) then
    raise exception 'by: must be page or host' using errcode = 'invalid_parameter_value';
  elsif not coalesce(widget_busiest_places.row_limit between 1 and 1000, false) then
    raise exception 'row_limit: must be 1 to 1000' using errcode = 'invalid_parameter_value';
  end if;

  return query
  select
    case widget_busiest_places.by when 'page' then p.page_url else p.host end,
    sum(p.loads)::bigint, sum(p.opens)::bigint, sum(p.calls)::bigint
  from widget_internal.health_pages p
  -- Days of another zone than UTC are taken for those of UTC that they share more hours with.
  where p.day >= ((widget_busiest_places.period_start + interval '12 hours') at time zone 'UTC')::date
    and p.day < ((widget_busiest_places.period_end + interval '12 hours') at time zone 'UTC')::date
    and p.sessions > 0
    and (widget_busiest_places.only_widget is null or p.widget_id = widget_busiest_places.only_widget)
  group by 1
  order by 4 desc, 2 desc, 3 desc, 1
  limit widget_busiest_places.row_limit;
end
$$;

COMMENT ON FUNCTION public.widget_busiest_places(period_start timestamp with time zone, period_end timestamp with time zone, only_widget uuid, by text, row_limit integer) IS 'The pages (by => ''page'') or hosts (by => ''host'') with the most calls, then loads, on the UTC days of which the period has the greater part. place is empty where no event named a page. Whoever sends events decides what stands in it: show it as text.';

CREATE FUNCTION public.widget_call_list(period_start timestamp with time zone, period_end timestamp with time zone, only_widget uuid DEFAULT NULL::uuid, only_calls text DEFAULT NULL::text, after_cursor text DEFAULT NULL::text, page_size integer DEFAULT 50) RETURNS TABLE(widget_id uuid, session_id text, call_id text, started_at timestamp with time zone, ended_at timestamp with time zone, outcome text, evidence text, duration_seconds numeric, billable_seconds numeric, rule text, amount numeric, currency text, cursor text)
    LANGUAGE plpgsql STABLE
    SET search_path TO ''
    AS $$
#variable_conflict use_column
declare
  v_after constant jsonb := widget_call_list.after_cursor::jsonb;
  v_after_at constant timestamptz := coalesce((v_after ->> 0)::timestamptz, 'infinity');
  v_keys public.widget_calls[];
begin
  if not coalesce(widget_call_list.page_size between 1 and 1000, false) then
    raise exception 'page_size: must be 1 to 1000' using errcode = 'invalid_parameter_value';
  end if;

  perform widget_internal.refuse_archived_period(widget_call_list.period_start);
  -- Widget by widget, each from its own end of the index: a page costs the same at any size of the table.
  v_keys := array(
    select k
    from widget_internal.owned_widget_ids() w (id)
    cross join lateral (
      select c.*
      from public.widget_calls c
      where c.widget_id = w.id
        and c.started_at >= widget_call_list.period_start and c.started_at < widget_call_list.period_end
        and c.started_at <= v_after_at
        and (v_after is null or (c.started_at, c.widget_id, c.session_id, c.call_id)
          < (v_after_at, (v_after ->> 1)::uuid, v_after ->> 2, v_after ->> 3))
        and (widget_call_list.only_calls is null or widget_call_list.only_calls in (c.outcome, c.evidence))
      order by c.started_at desc, c.session_id desc, c.call_id desc
      limit widget_call_list.page_size
    ) k
    where widget_call_list.only_widget is null or w.id = widget_call_list.only_widget
    order by k.started_at desc, k.widget_id desc, k.session_id desc, k.call_id desc
    limit widget_call_list.page_size
  );

  return query
  select b.*, jsonb_build_array(b.started_at, b.widget_id, b.session_id, b.call_id)::text
  from (select min(k.started_at) as first_at, max(k.started_at) as last_at from unnest(v_keys) k) p
  cross join lateral public.widget_billing_calls(p.first_at, p.last_at + interval '1 microsecond') b
  join unnest(v_keys) k
    on k.widget_id = b.widget_id and k.session_id = b.session_id collate "C" and k.call_id = b.call_id collate "C"
  where p.first_at is not null
  order by b.started_at desc, b.widget_id desc, b.session_id collate "C" desc, b.call_id collate "C" desc;
end
$$;

COMMENT ON FUNCTION public.widget_call_list(period_start timestamp with time zone, period_end timestamp with time zone, only_widget uuid, only_calls text, after_cursor text, page_size integer) IS 'Rows of widget_billing_calls(), latest first, page by page: the next page is the one after the cursor of the last row. only_widget: of that widget alone. only_calls: of one outcome or one evidence alone, such as failed or assumed.';

CREATE FUNCTION public.widget_call_story(widget_id uuid, session_id text, call_id text) RETURNS jsonb
    LANGUAGE plpgsql STABLE
    SET search_path TO ''
    AS $$
declare
  v_call record;
  v_bill jsonb;
begin
  select c.* into v_call
  from widget_internal.session_calls(widget_call_story.widget_id, widget_call_story.session_id) c
  where c.call_id = widget_call_story.call_id;
  if v_call.call_id is null then
    return null;
  end if;

  select to_jsonb(b) into v_bill
  from public.widget_billing_calls(v_call.started_at, v_call.started_at + interval '1 microsecond') b
  where b.widget_id = widget_call_story.widget_id
    and b.session_id = widget_call_story.session_id
    and b.call_id = widget_call_story.call_id;

  return v_bill || jsonb_build_object(
    'ended_by', v_call.ended_by,
    'last_heartbeat_at', v_call.last_heartbeat_at,
    'is_capped', (
      select coalesce(v_call.ended_at >= v_call.started_at + s.max_call_duration, false) from widget_internal.settings s
    ),
    'events', (
      select coalesce(jsonb_agg(to_jsonb(e) - 'widget_id' order by e."timestamp", e.seq, e.id), '[]')
      from (
        select e.* from public.widget_analytics e
        where e.widget_id = widget_call_story.widget_id and e.session_id = widget_call_story.session_id
          and e.event_type in ('call_start', 'call_heartbeat', 'call_end', 'call_error')
          and (e.call_id is null or e.call_id = widget_call_story.call_id)
        union all
        -- Loads and opens are found by their time: there is no index on the sessions of all events.
        select e.* from public.widget_analytics e
        where e.widget_id = widget_call_story.widget_id and e.session_id = widget_call_story.session_id
          and e.event_type in ('widget_load', 'widget_open')
          and e."timestamp" between v_call.started_at - interval '2 hours' and v_call.started_at
      ) e
    )
  );
end
$$;

COMMENT ON FUNCTION public.widget_call_story(widget_id uuid, session_id text, call_id text) IS 'One call: its row of widget_billing_calls() with ended_by (the event that was believed, R5), last_heartbeat_at, is_capped (cut at max_call_duration), and events: those of the call, those of its session that name no call, and what was loaded and opened in the two hours before. Null for a call that the caller may not see.';

CREATE FUNCTION public.widget_daily_usage(period_start timestamp with time zone, period_end timestamp with time zone, only_widget uuid DEFAULT NULL::uuid) RETURNS TABLE(day date, calls bigint, billable_seconds numeric, observed_calls bigint, observed_seconds numeric, provider_calls bigint, provider_seconds numeric, operator_calls bigint, operator_seconds numeric, heartbeat_calls bigint, heartbeat_seconds numeric, assumed_calls bigint, assumed_seconds numeric, open_calls bigint, failed_calls bigint)
    LANGUAGE plpgsql STABLE
    SET search_path TO ''
    AS $$
declare
  v_zone constant text := (select s.billing_time_zone from widget_internal.settings s);
begin
  perform widget_internal.refuse_archived_period(widget_daily_usage.period_start);
  return query
  with parts as (
    select
      (r.started_at at time zone v_zone)::date as day, r.outcome, r.evidence,
      count(*) as calls, sum(r.billable_seconds) as seconds
    from widget_internal.priced_calls(widget_daily_usage.period_start, widget_daily_usage.period_end, null) r
    where widget_daily_usage.only_widget is null or r.widget_id = widget_daily_usage.only_widget
    group by 1, 2, 3
  )
  select
    p.day, sum(p.calls)::bigint, sum(p.seconds),
    coalesce(sum(p.calls) filter (where p.evidence = 'observed'), 0)::bigint,
    coalesce(sum(p.seconds) filter (where p.evidence = 'observed'), 0),
    coalesce(sum(p.calls) filter (where p.evidence = 'provider'), 0)::bigint,
    coalesce(sum(p.seconds) filter (where p.evidence = 'provider'), 0),
    coalesce(sum(p.calls) filter (where p.evidence = 'operator'), 0)::bigint,
    coalesce(sum(p.seconds) filter (where p.evidence = 'operator'), 0),
    coalesce(sum(p.calls) filter (where p.evidence = 'heartbeat'), 0)::bigint,
    coalesce(sum(p.seconds) filter (where p.evidence = 'heartbeat'), 0),
    coalesce(sum(p.calls) filter (where p.evidence = 'assumed'), 0)::bigint,
    coalesce(sum(p.seconds) filter (where p.evidence = 'assumed'), 0),
    coalesce(sum(p.calls) filter (where p.outcome = 'open'), 0)::bigint,
    coalesce(sum(p.calls) filter (where p.outcome = 'failed'), 0)::bigint
  from parts p
  group by p.day
  order by p.day;
end
$$;

COMMENT ON FUNCTION public.widget_daily_usage(period_start timestamp with time zone, period_end timestamp with time zone, only_widget uuid) IS 'widget_billing_usage() by day instead of by widget: one row for each day of the billing time zone that has calls. only_widget: of that widget alone; left out: of all that the caller may see.';

CREATE FUNCTION public.widget_month_to_date(only_widget uuid DEFAULT NULL::uuid) RETURNS TABLE(month date, period_start timestamp with time zone, period_end timestamp with time zone, to_date_end timestamp with time zone, calls bigint, billable_seconds numeric, amounts jsonb, calls_to_date bigint, billable_seconds_to_date numeric)
    LANGUAGE plpgsql STABLE
    SET search_path TO ''
    AS $$
begin
  return query
  with bounds as (
    select m.month::date, b.period_start, b.period_end, n.age
    from widget_internal.settings s
    cross join lateral (
      select now() - date_trunc('month', now(), s.billing_time_zone) as age,
        date_trunc('month', now() at time zone s.billing_time_zone) as this_month
    ) n
    cross join lateral unnest(array[n.this_month - interval '1 month', n.this_month]) m (month)
    cross join lateral widget_internal.month_bounds(m.month::date) b
  ),
  sums as (
    select
      r.month, r.widget_id, count(*) as calls, sum(r.billable_seconds) as seconds,
      count(*) filter (where r.started_at < b.period_start + b.age) as calls_to_date,
      sum(r.billable_seconds) filter (where r.started_at < b.period_start + b.age) as seconds_to_date
    from widget_internal.priced_calls(
      (select min(b.period_start) from bounds b), (select max(b.period_end) from bounds b), null
    ) r
    join bounds b on b.month = r.month
    where widget_month_to_date.only_widget is null or r.widget_id = widget_month_to_date.only_widget
    group by r.month, r.widget_id
  ),
  -- Each widget by its own plan: included seconds and the rounding of money are a widget's.
  charges as (
    select s.*, (v.plan).currency, widget_internal.charge(s.seconds, v.plan) as amount
    from sums s
    left join widget_internal.plan_validity v
      on v.widget_id = s.widget_id and s.month >= v.valid_from and s.month < v.valid_until
  ),
  amounts as (
    select a.month, jsonb_object_agg(a.currency, a.amount) as amounts
    from (
      select c.month, c.currency, sum(c.amount) as amount
      from charges c
      where c.currency is not null
      group by c.month, c.currency
    ) a
    group by a.month
  )
  select
    b.month, b.period_start, b.period_end, least(b.period_start + b.age, b.period_end),
    coalesce(sum(c.calls), 0)::bigint, coalesce(sum(c.seconds), 0), coalesce(a.amounts, '{}'),
    coalesce(sum(c.calls_to_date), 0)::bigint, coalesce(sum(c.seconds_to_date), 0)
  from bounds b
  left join charges c on c.month = b.month
  left join amounts a on a.month = b.month
  group by b.month, b.period_start, b.period_end, b.age, a.amounts
  order by b.month;
end
$$;

COMMENT ON FUNCTION public.widget_month_to_date(only_widget uuid) IS 'Last month and this one, as billed by now: calls, billable seconds, and amounts by currency of the widgets that have a plan; of all that the caller may see or of only_widget. …_to_date: those of the month up to to_date_end, as far into it as this month is now, so that the two compare.';

CREATE FUNCTION public.widget_pending_adjustments() RETURNS TABLE(usage_period date, widget_id uuid, session_id text, call_id text, started_at timestamp with time zone, ended_at timestamp with time zone, outcome text, evidence text, duration_seconds numeric, old_seconds numeric, new_seconds numeric, difference_seconds numeric, rule text, event_ids uuid[])
    LANGUAGE plpgsql STABLE
    SET search_path TO ''
    AS $$
begin
  return query
  select
    c.usage_period, c.widget_id, c.session_id, c.call_id, c.started_at, c.ended_at, c.outcome, c.evidence,
    c.duration_seconds, c.old_seconds, c.new_seconds, c.new_seconds - c.old_seconds, c.rule,
    widget_internal.late_events(c.widget_id, c.session_id, c.call_id, c.billed_as_of, null)
  from widget_internal.late_changes('infinity', null) c;
end
$$;

COMMENT ON FUNCTION public.widget_pending_adjustments() IS 'What late arrivals have changed in closed months, and what no statement shows yet: the adjustments that the next closed months will have. Owners see their widgets'', service_role all.';

CREATE FUNCTION public.widget_rates(since timestamp with time zone) RETURNS TABLE(widget_id uuid, events_received bigint, events_numbered bigint, events_expected bigint, delivery_rate numeric, calls_started bigint, calls_open bigint, calls_observed bigint, completion_rate numeric, orphan_ends bigint, refusals bigint, response_ms_median integer, response_ms_p95 integer)
    LANGUAGE plpgsql STABLE
    SET search_path TO ''
    AS $$
#variable_conflict use_column
declare
  v_since constant timestamptz := date_trunc('hour', widget_rates.since, 'UTC');
begin
  return query
  with rates as (
    select
      h.widget_id, coalesce(sum(h.events_received), 0)::bigint as events_received,
      coalesce(sum(h.events_numbered), 0)::bigint as events_numbered,
      coalesce(sum(h.events_expected), 0)::bigint as events_expected,
      coalesce(sum(h.calls_started), 0)::bigint as calls_started, coalesce(sum(h.calls_open), 0)::bigint as calls_open,
      coalesce(sum(h.calls_observed + h.calls_provider + h.calls_operator), 0)::bigint as calls_observed,
      coalesce(sum(h.orphan_ends), 0)::bigint as orphan_ends, coalesce(sum(h.refusals), 0)::bigint as refusals
    from public.widget_health h
    where h.hour >= v_since
    group by grouping sets ((), (h.widget_id))
  ),
  -- All in one pass: widget by widget it would be read as often as there are widgets.
  answers as (
    select
      r.widget_id, r.bucket, sum(sum(r.answers)) over (partition by r.widget_id order by r.bucket) as up_to,
      sum(sum(r.answers)) over (partition by r.widget_id) as all_of_them
    from widget_internal.health_response_times r
    where r.hour >= v_since
    group by grouping sets ((r.bucket), (r.widget_id, r.bucket))
  ),
  response_times as (
    select
      a.widget_id, min(a.bucket) filter (where a.up_to >= 0.5 * a.all_of_them) as median,
      min(a.bucket) filter (where a.up_to >= 0.95 * a.all_of_them) as p95
    from answers a
    group by a.widget_id
  )
  select
    r.widget_id, r.events_received, r.events_numbered, r.events_expected,
    round(r.events_numbered::numeric / nullif(r.events_expected, 0), 6),
    r.calls_started, r.calls_open, r.calls_observed,
    round(r.calls_observed::numeric / nullif(r.calls_started - r.calls_open, 0), 6), r.orphan_ends, r.refusals,
    round(power(1.1::double precision, t.median - 0.5))::integer, round(power(1.1::double precision, t.p95 - 0.5))::integer
  from rates r
  -- No widget: all of them.
  left join response_times t on coalesce(t.widget_id::text, '') = coalesce(r.widget_id::text, '');
end
$$;

COMMENT ON FUNCTION public.widget_rates(since timestamp with time zone) IS 'widget_health summed up from the hour of that moment on: a row for each widget, and one with no widget_id for all of them. completion_rate leaves calls out that are still open, unlike widget_health; calls_observed counts ends that browser, server, provider or operator reported. Good: delivery_rate above 0.99, completion_rate above 0.95.';

CREATE FUNCTION public.widget_refusal_totals(period_start timestamp with time zone, period_end timestamp with time zone, only_widget uuid DEFAULT NULL::uuid, row_limit integer DEFAULT 100) RETURNS TABLE(widget_id uuid, reason text, detail text, refusals bigint, last_hour timestamp with time zone)
    LANGUAGE plpgsql STABLE
    SET search_path TO ''
    AS $$
begin
  if not coalesce(widget_refusal_totals.row_limit between 1 and 1000, false) then
    raise exception 'row_limit: must be 1 to 1000' using errcode = 'invalid_parameter_value';
  end if;

  return query
  select r.widget_id, r.reason, r.detail, sum(r.refusals)::bigint, max(r.hour)
  from public.widget_refusals r
  where r.hour >= widget_refusal_totals.period_start and r.hour < widget_refusal_totals.period_end
    and (widget_refusal_totals.only_widget is null or r.widget_id = widget_refusal_totals.only_widget)
  group by r.widget_id, r.reason, r.detail
  order by (r.reason = 'domain_not_allowed') desc, 4 desc, r.reason, r.detail, r.widget_id
  limit widget_refusal_totals.row_limit;
end
$$;

COMMENT ON FUNCTION public.widget_refusal_totals(period_start timestamp with time zone, period_end timestamp with time zone, only_widget uuid, row_limit integer) IS 'widget_refusals summed up over a period, domains that are not allowed first: with detail the host to add to allowed_domains.';

CREATE FUNCTION public.widget_traffic(period_start timestamp with time zone, period_end timestamp with time zone, only_widget uuid DEFAULT NULL::uuid) RETURNS TABLE(events_received bigint, loads bigint, opens bigint, calls_started bigint, calls_completed bigint, calls_confirmed bigint, completion_rate numeric, delivery_rate numeric)
    LANGUAGE plpgsql STABLE
    SET search_path TO ''
    AS $$
begin
  return query
  with sums as (
    select
      coalesce(sum(h.events_received), 0)::bigint as events_received,
      coalesce(sum(h.loads), 0)::bigint as loads, coalesce(sum(h.opens), 0)::bigint as opens,
      coalesce(sum(h.calls_started), 0)::bigint as calls_started,
      coalesce(sum(h.calls_started - h.calls_open - h.calls_failed), 0)::bigint as calls_completed,
      coalesce(sum(h.calls_observed + h.calls_provider + h.calls_operator), 0)::bigint as calls_confirmed,
      coalesce(sum(h.calls_open), 0) as calls_open,
      sum(h.events_numbered) as events_numbered, sum(h.events_expected) as events_expected
    from public.widget_health h
    where h.hour >= widget_traffic.period_start and h.hour < widget_traffic.period_end
      and (widget_traffic.only_widget is null or h.widget_id = widget_traffic.only_widget)
  )
  select
    s.events_received, s.loads, s.opens, s.calls_started, s.calls_completed, s.calls_confirmed,
    round(s.calls_confirmed / nullif(s.calls_started - s.calls_open, 0), 6),
    round(s.events_numbered / nullif(s.events_expected, 0), 6)
  from sums s;
end
$$;

COMMENT ON FUNCTION public.widget_traffic(period_start timestamp with time zone, period_end timestamp with time zone, only_widget uuid) IS 'widget_health summed up over the hours that begin in the period, one row: loads, opens and calls of all widgets that the caller may see or of only_widget. calls_completed: ended, and not by call_error. calls_confirmed: their end was observed; over the calls that are not open any more that is completion_rate, as in widget_rates().';

CREATE FUNCTION widget_internal.alert_body(alarms jsonb, cleared jsonb) RETURNS jsonb
    LANGUAGE plpgsql STABLE
    SET search_path TO ''
    AS $$
begin
  return jsonb_build_object(
    'text', (
      select string_agg(l.line, E'\n')
      from (
        (select 'Widget analytics: ' || (a.value ->> 'message') as line
          from jsonb_array_elements(alert_body.alarms) a limit 20)
        union all
        (select 'Widget analytics: well again: ' || (c.value ->> 'message')
          from jsonb_array_elements(alert_body.cleared) c limit 20)
      ) l
    ),
    'alarms', coalesce(alert_body.alarms, '[]'),
    'cleared', coalesce(alert_body.cleared, '[]')
  );
end
$$;

COMMENT ON FUNCTION widget_internal.alert_body(alarms jsonb, cleared jsonb) IS 'The message for the webhook: text, as Slack and its like show it, and the same for programs.';

CREATE FUNCTION widget_internal.apply_quotas() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO ''
    AS $$
begin
  -- Whoever is over the new quota is throttled again at its next event that is counted.
  delete from widget_internal.throttles;
  -- A sample is a fair estimate of a large number only.
  update widget_internal.settings s set events_per_count = coalesce(
    (
      select greatest(1, least(64, min(quota.one_in)))
      from (
        select s.events_per_widget_per_day / 4096
        union all select s.events_per_sender_per_minute / 64
        union all select q.events_per_day / 4096 from public.widget_quotas q
      ) quota (one_in)
    ),
    64
  );
  return null;
end
$$;

COMMENT ON FUNCTION widget_internal.apply_quotas() IS 'After a quota changed: lifts what rested on the old one.';

CREATE FUNCTION widget_internal.archive_sums(first_chunk integer, last_chunk integer, as_of timestamp with time zone) RETURNS TABLE(chunk integer, events bigint, digest_sum text)
    LANGUAGE plpgsql STABLE
    SET search_path TO ''
    AS $$
begin
  return query
  select e.chunk, count(*),
    -- The sums of two numbers of 60 bits each: the same rows in any order, and no others, give them.
    concat_ws(
      '-', sum(('x0' || substr(e.digest, 1, 15))::bit(64)::bigint), sum(('x0' || substr(e.digest, 16, 15))::bit(64)::bigint)
    )
  from widget_internal.events_to_archive e
  where e.chunk between archive_sums.first_chunk and archive_sums.last_chunk
    and e.received_at <= archive_sums.as_of
  group by e.chunk;
end
$$;

COMMENT ON FUNCTION widget_internal.archive_sums(first_chunk integer, last_chunk integer, as_of timestamp with time zone) IS 'How many events the ledger has of each chunk, and the sum of their digests.';

CREATE FUNCTION widget_internal.archived_session_key(widget_id uuid, session_id text) RETURNS uuid
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    SET search_path TO ''
    AS $$
begin
  return substr(
    sha256(uuid_send(archived_session_key.widget_id) || convert_to(archived_session_key.session_id, 'UTF8'))::text, 3, 32
  )::uuid;
end
$$;

COMMENT ON FUNCTION widget_internal.archived_session_key(widget_id uuid, session_id text) IS 'The first half of a SHA-256: short, and no two sessions share it.';

CREATE FUNCTION widget_internal.are_bare_hosts(hosts text[]) RETURNS boolean
    LANGUAGE plpgsql IMMUTABLE
    SET search_path TO ''
    AS $_$
begin
  return not exists (
    select from unnest(are_bare_hosts.hosts) host
    where host is null
      or host !~* '^(\*|(\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*\.?|\[[0-9a-f:.]+\])$'
  );
end
$_$;

COMMENT ON FUNCTION widget_internal.are_bare_hosts(hosts text[]) IS 'Whether each of these is a host, "*." and a host, or "*": what could match a page''s host (R8).';

CREATE FUNCTION widget_internal.as_text(value timestamp with time zone) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path TO ''
    AS $$
begin
  return to_char(as_text.value at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"');
end
$$;

COMMENT ON FUNCTION widget_internal.as_text(value timestamp with time zone) IS 'A moment in one way of writing: UTC, to the microsecond.';

CREATE FUNCTION widget_internal.ask_door(widget_id uuid) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path TO ''
    AS $$
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

COMMENT ON FUNCTION widget_internal.ask_door(widget_id uuid) IS 'Whether this request''s page may store an event of the widget: open, demo (taken, not stored), or the reason why not.';

CREATE FUNCTION widget_internal.bare_page_url(page_url text) RETURNS text
    LANGUAGE plpgsql IMMUTABLE
    SET search_path TO ''
    AS $$
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

COMMENT ON FUNCTION widget_internal.bare_page_url(page_url text) IS 'A page''s address without query string, fragment, user and password, of 2048 characters at most.';

CREATE FUNCTION widget_internal.bare_user_agent() RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path TO ''
    AS $$
begin
  return nullif(left(widget_internal.request_header('user-agent'), 512), '');
end
$$;

COMMENT ON FUNCTION widget_internal.bare_user_agent() IS 'The User-Agent of this request, 512 characters of it at most; null where it names none.';

CREATE FUNCTION widget_internal.billing_facts(source text, properties jsonb) RETURNS jsonb
    LANGUAGE plpgsql IMMUTABLE
    SET search_path TO ''
    AS $$
begin
  -- A browser's properties never count (R5): only who may correct a bill says in them what it rests on.
  if billing_facts.source not in ('operator', 'provider', 'server') then
    return null;
  end if;
  return (
    select jsonb_object_agg(p.key, p.value)
    from jsonb_each(billing_facts.properties) p
    where p.key in ('duration_seconds', 'record_id', 'reason', 'corrected_by', 'login')
  );
end
$$;

COMMENT ON FUNCTION widget_internal.billing_facts(source text, properties jsonb) IS 'What of an event''s properties bills need: a stated duration, the record that tells a repeat, who corrected and why.';

CREATE FUNCTION widget_internal.calls_as_of(period_start timestamp with time zone, period_end timestamp with time zone, as_of timestamp with time zone, only_sessions widget_internal.session_name[] DEFAULT NULL::widget_internal.session_name[]) RETURNS TABLE(widget_id uuid, session_id text, call_id text, started_at timestamp with time zone, ended_at timestamp with time zone, outcome text, evidence text, duration_seconds numeric)
    LANGUAGE plpgsql STABLE
    SET search_path TO ''
    AS $$
declare
  v_widget_ids uuid[];
  v_session_ids text[];
begin
  if calls_as_of.period_start is null or calls_as_of.period_end is null
    or calls_as_of.period_end <= calls_as_of.period_start
  then
    raise exception 'period_end: must be after period_start' using errcode = 'invalid_parameter_value';
  end if;

  -- Some thousands at a time: what has to be sorted for them stays in memory.
  for v_widget_ids, v_session_ids in
    with sessions as (
      -- A call starts with its earliest call_start, so a session with none in the period has no call in it.
      select distinct e.widget_id, e.session_id::text
      from public.widget_analytics e
      where e.event_type = 'call_start'
        and e."timestamp" >= calls_as_of.period_start
        and e."timestamp" < calls_as_of.period_end
        and e.received_at <= calls_as_of.as_of
        and calls_as_of.only_sessions is null
      union
      select o.widget_id, o.session_id from unnest(calls_as_of.only_sessions) o
    )
    select array_agg(s.widget_id), array_agg(s.session_id)
    from (select *, row_number() over () / 5000 as batch from sessions) s
    group by s.batch
  loop
    return query
    select c.widget_id, c.session_id, c.call_id, c.started_at, c.ended_at, c.outcome, c.evidence,
      extract(epoch from c.ended_at - c.started_at)
    from widget_internal.calls_of_sessions(v_widget_ids, v_session_ids, calls_as_of.as_of) c
    where c.started_at >= calls_as_of.period_start and c.started_at < calls_as_of.period_end;
  end loop;
end
$$;

COMMENT ON FUNCTION widget_internal.calls_as_of(period_start timestamp with time zone, period_end timestamp with time zone, as_of timestamp with time zone, only_sessions widget_internal.session_name[]) IS 'The calls that started in [period_start, period_end), by the events received as of a moment, of all sessions or of some. As they are now they stand in widget_calls.';

CREATE TABLE widget_internal.health_calls (
    widget_id uuid NOT NULL,
    hour timestamp with time zone NOT NULL,
    calls_started bigint NOT NULL,
    calls_open bigint NOT NULL,
    calls_observed bigint NOT NULL,
    calls_provider bigint NOT NULL,
    calls_operator bigint NOT NULL,
    calls_heartbeat bigint NOT NULL,
    calls_assumed bigint NOT NULL,
    calls_failed bigint NOT NULL
);

COMMENT ON TABLE widget_internal.health_calls IS 'Calls by widget and the hour in which they started; read them through the view widget_health.';

CREATE FUNCTION widget_internal.calls_of_hour(widget_id uuid, hour timestamp with time zone) RETURNS SETOF widget_internal.health_calls
    LANGUAGE plpgsql STABLE
    SET search_path TO ''
    AS $$
begin
  return query
  select
    calls_of_hour.widget_id, calls_of_hour.hour, count(*), count(*) filter (where c.outcome = 'open'),
    count(*) filter (where c.evidence = 'observed'), count(*) filter (where c.evidence = 'provider'),
    count(*) filter (where c.evidence = 'operator'), count(*) filter (where c.evidence = 'heartbeat'),
    count(*) filter (where c.evidence = 'assumed'), count(*) filter (where c.outcome = 'failed')
  from public.widget_calls c
  where c.widget_id = calls_of_hour.widget_id
    and c.started_at >= calls_of_hour.hour
    and c.started_at < calls_of_hour.hour + interval '1 hour';
end
$$;

COMMENT ON FUNCTION widget_internal.calls_of_hour(widget_id uuid, hour timestamp with time zone) IS 'One widget''s calls that started in one hour, counted.';

CREATE FUNCTION widget_internal.calls_of_sessions(widget_ids uuid[], session_ids text[], as_of timestamp with time zone DEFAULT 'infinity'::timestamp with time zone) RETURNS TABLE(widget_id uuid, session_id text, call_id text, started_at timestamp with time zone, last_heartbeat_at timestamp with time zone, ended_at timestamp with time zone, outcome text, evidence text, ended_by uuid)
    LANGUAGE plpgsql STABLE
    SET search_path TO ''
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
begin
  return query
  -- R4: among the events that name no call, each start opens one. On equal times the sender's running number
  -- decides; without one the start comes first, as no end precedes its own start.
  with numbered as (
    select e.*, count(*) filter (where e.event_type = 'call_start') over (
      partition by e.widget_id, e.session_id, e.call_id is null
      order by e."timestamp", coalesce(e.seq, 0), e.event_type <> 'call_start', e.id
    ) as starts_so_far
    from unnest(calls_of_sessions.widget_ids, calls_of_sessions.session_ids) s (widget_id, session_id)
    -- "offset 0": session by session through their index. A plan that is made while the ledger is small would read all of
    -- it instead, and be kept while it grows.
    cross join lateral (
      select a.* from public.widget_analytics a
      where a.widget_id = s.widget_id and a.session_id = s.session_id
        and a.event_type in ('call_start', 'call_heartbeat', 'call_end', 'call_error')
        and a.received_at <= calls_of_sessions.as_of
      offset 0
    ) e
  ),
  named as (
    select e.widget_id, e.session_id, e.id, e.event_type, e.source, e."timestamp", e.properties, coalesce(
      e.call_id,
      case when e.starts_so_far > 0 then first_value(e.id) over (
        partition by e.widget_id, e.session_id, e.call_id is null, e.starts_so_far
        order by e.event_type <> 'call_start'
      )::text end
    ) as call_id
    from numbered e
  ),
  -- R5: of the events that say that a call is over, one is believed.
  ranked as (
    select e.*, e.event_type in ('call_end', 'call_error') and 1 = row_number() over (
      partition by e.widget_id, e.session_id, e.call_id
      order by
        e.event_type not in ('call_end', 'call_error'),
        array_position(array['operator', 'provider', 'server', 'browser', 'inferred'], e.source),
        e.event_type = 'call_error', e."timestamp" desc, e.id
    ) as is_believed
    from named e
    where e.call_id is not null
  ),
  calls as (
    select
      e.widget_id, e.session_id, e.call_id,
      min(e."timestamp") filter (where e.event_type = 'call_start') as started_at,
      max(e."timestamp") filter (where e.event_type = 'call_heartbeat') as last_heartbeat_at,
      max(e."timestamp") filter (where e.is_believed) as said_to_end_at,
      max(e.event_type) filter (where e.is_believed) as end_type,
      max(e.source) filter (where e.is_believed) as end_source,
      (array_agg(e.id) filter (where e.is_believed))[1] as ended_by,
      -- Who is trusted with it may know how long the call was, whatever the browser took for its start.
      max(case when e.is_believed and e.source in ('operator', 'provider', 'server')
        and jsonb_typeof(e.properties -> 'duration_seconds') = 'number'
        then (e.properties ->> 'duration_seconds')::numeric end) as stated_seconds
    from ranked e
    group by e.widget_id, e.session_id, e.call_id
  )
  select
    c.widget_id, c.session_id::text, c.call_id, c.started_at, c.last_heartbeat_at,
    -- An inferred end knows only that the call is over; its last sign of life says when.
    case when c.end_type is not null then least(
      greatest(
        c.started_at,
        case
          when c.stated_seconds is not null
            then c.started_at
              + greatest(least(c.stated_seconds, extract(epoch from s.max_call_duration)), 0) * interval '1 second'
          when c.end_source = 'inferred' then coalesce(c.last_heartbeat_at, c.said_to_end_at)
          else c.said_to_end_at
        end
      ),
      c.started_at + s.max_call_duration
    ) end,
    case c.end_type when 'call_end' then 'completed' when 'call_error' then 'failed' else 'open' end,
    case
      when c.end_source in ('browser', 'server') then 'observed'
      when c.end_source = 'inferred' then case when c.last_heartbeat_at is null then 'assumed' else 'heartbeat' end
      else c.end_source
    end,
    c.ended_by
  from calls c
  cross join widget_internal.settings s
  where c.started_at is not null;
end
$$;

COMMENT ON FUNCTION widget_internal.calls_of_sessions(widget_ids uuid[], session_ids text[], as_of timestamp with time zone) IS 'The one definition of how sessions'' events, as received by a moment, make calls (R4, R5, R6). The arrays are parallel, and name no session twice. ended_by: the event that is believed. Where that is of source operator, provider or server and its properties state duration_seconds, the call ends that long after its start.';

CREATE TABLE widget_internal.health_sessions (
    widget_id uuid NOT NULL,
    session_id text NOT NULL COLLATE pg_catalog."C",
    first_at timestamp with time zone NOT NULL,
    seqs int4multirange NOT NULL,
    page_at timestamp with time zone,
    page_url text NOT NULL,
    loads integer NOT NULL,
    opens integer NOT NULL,
    calls integer NOT NULL,
    orphan_ends integer NOT NULL
);

COMMENT ON TABLE widget_internal.health_sessions IS 'What is known of each session: what it adds to the counts of its hour, its day and its page is taken from here.';

COMMENT ON COLUMN widget_internal.health_sessions.first_at IS 'Its earliest event; says in which hour and on which day it is counted.';

COMMENT ON COLUMN widget_internal.health_sessions.seqs IS 'Which of the sender''s running numbers have arrived; the holes are lost events.';

COMMENT ON COLUMN widget_internal.health_sessions.page_at IS 'The earliest event that names a page; null where none does.';

COMMENT ON COLUMN widget_internal.health_sessions.page_url IS 'That page, its first 512 characters; empty where none is named.';

CREATE FUNCTION widget_internal.changed_health_sessions(received_after timestamp with time zone, received_to timestamp with time zone) RETURNS SETOF widget_internal.health_sessions
    LANGUAGE plpgsql STABLE
    SET search_path TO ''
    AS $$
begin
  return query
  with new as (
    select
      e.widget_id, e.session_id, min(e."timestamp") as first_at,
      -- Above ten thousand a number is a fault or a forgery, and would drown the rate of its hour.
      range_agg(int4range(e.seq, e.seq, '[]')) filter (where e.seq <= 10000) as seqs,
      (array_agg(e."timestamp" order by e."timestamp", left(e.page_url, 512) collate "C") filter (where e.page_url <> ''))[1] as page_at,
      (array_agg(left(e.page_url, 512) order by e."timestamp", left(e.page_url, 512) collate "C") filter (where e.page_url <> ''))[1] as page_url,
      count(*) filter (where e.event_type = 'widget_load') as loads,
      count(*) filter (where e.event_type = 'widget_open') as opens,
      bool_or(e.event_type in ('call_start', 'call_end', 'call_error')) as calls_changed
    from public.widget_analytics e
    where e.received_at > changed_health_sessions.received_after
      and e.received_at <= changed_health_sessions.received_to
    group by e.widget_id, e.session_id
  )
  select
    n.widget_id, n.session_id::text, least(n.first_at, s.first_at),
    coalesce(n.seqs, '{}') + coalesce(s.seqs, '{}'),
    case when p.is_earlier then n.page_at else s.page_at end,
    coalesce(case when p.is_earlier then n.page_url else s.page_url end, ''),
    n.loads::integer + coalesce(s.loads, 0), n.opens::integer + coalesce(s.opens, 0),
    c.calls::integer,
    case when n.calls_changed then widget_internal.orphan_ends(n.widget_id, n.session_id) else coalesce(s.orphan_ends, 0) end
  from new n
  left join widget_internal.health_sessions s on s.widget_id = n.widget_id and s.session_id = n.session_id
  cross join lateral (
    select s.page_at is null or (n.page_at, n.page_url collate "C") < (s.page_at, s.page_url) as is_earlier
  ) p
  cross join lateral (
    select count(*) as calls
    from public.widget_calls c
    where c.widget_id = n.widget_id and c.session_id = n.session_id
  ) c;
end
$$;

COMMENT ON FUNCTION widget_internal.changed_health_sessions(received_after timestamp with time zone, received_to timestamp with time zone) IS 'The sessions of which events were received in (received_after, received_to], as they are with those.';

CREATE TABLE public.widget_plans (
    widget_id uuid NOT NULL,
    valid_from date NOT NULL,
    name text NOT NULL,
    increment_seconds integer DEFAULT 0 NOT NULL,
    minimum_seconds integer DEFAULT 0 NOT NULL,
    included_seconds integer DEFAULT 0 NOT NULL,
    price_per_minute numeric NOT NULL,
    currency text NOT NULL,
    bills_failed_calls boolean DEFAULT false NOT NULL,
    assumed_calls text DEFAULT 'full'::text NOT NULL,
    CONSTRAINT assumed_calls_are_billed_in_full_or_not CHECK ((assumed_calls = ANY (ARRAY['full'::text, 'none'::text]))),
    CONSTRAINT currency_has_three_letters CHECK ((currency ~ '^[A-Z]{3}$'::text)),
    CONSTRAINT included_seconds_are_not_negative CHECK ((included_seconds >= 0)),
    CONSTRAINT increment_is_not_negative CHECK ((increment_seconds >= 0)),
    CONSTRAINT minimum_is_not_negative CHECK ((minimum_seconds >= 0)),
    CONSTRAINT plan_names_are_one_line CHECK ((name ~ '^[^\n\r]{1,100}$'::text)),
    CONSTRAINT plans_start_with_a_month CHECK ((EXTRACT(day FROM valid_from) = (1)::numeric)),
    CONSTRAINT price_is_a_number_of_zero_or_more CHECK (((price_per_minute >= (0)::numeric) AND (price_per_minute < 'Infinity'::numeric)))
);

COMMENT ON TABLE public.widget_plans IS 'What a widget''s calls cost, by month. A widget without a plan has its completed calls counted to the exact second, and no amount. A plan by which a closed month was billed cannot be changed: add one from a later month.';

COMMENT ON COLUMN public.widget_plans.valid_from IS 'The first day of the month, in the billing time zone, from which it holds: until the widget''s next plan.';

COMMENT ON COLUMN public.widget_plans.increment_seconds IS 'A billed call is rounded up to a multiple of this; 0: exact.';

COMMENT ON COLUMN public.widget_plans.minimum_seconds IS 'A billed call counts at least this, before it is rounded up.';

COMMENT ON COLUMN public.widget_plans.included_seconds IS 'So many of a month''s billable seconds cost nothing.';

COMMENT ON COLUMN public.widget_plans.currency IS 'ISO 4217, such as EUR; it says how many decimals an amount has.';

COMMENT ON COLUMN public.widget_plans.bills_failed_calls IS 'Whether calls that ended by call_error are billed like completed ones.';

COMMENT ON COLUMN public.widget_plans.assumed_calls IS 'Calls whose end nothing tells (evidence assumed): billed in "full" or "none" of them.';

CREATE FUNCTION widget_internal.charge(billable_seconds numeric, plan public.widget_plans) RETURNS numeric
    LANGUAGE plpgsql IMMUTABLE
    SET search_path TO ''
    AS $$
begin
  return round(
    greatest(charge.billable_seconds - plan.included_seconds, 0) * plan.price_per_minute / 60,
    widget_internal.currency_decimals(plan.currency)
  );
end
$$;

COMMENT ON FUNCTION widget_internal.charge(billable_seconds numeric, plan public.widget_plans) IS 'What a widget''s billable seconds of a month cost, less the included ones; null without a plan. Here money is rounded (half up, to the currency''s decimals), and nowhere else.';

CREATE TABLE public.widget_statement_charges (
    period date NOT NULL,
    widget_id uuid NOT NULL,
    usage_period date NOT NULL,
    plan_valid_from date,
    included_seconds integer NOT NULL,
    price_per_minute numeric,
    currency text,
    old_seconds numeric NOT NULL,
    new_seconds numeric NOT NULL,
    difference_seconds numeric GENERATED ALWAYS AS ((new_seconds - old_seconds)) STORED NOT NULL,
    old_amount numeric,
    new_amount numeric,
    difference_amount numeric GENERATED ALWAYS AS ((new_amount - old_amount)) STORED,
    content_hash text NOT NULL,
    CONSTRAINT nothing_is_charged_before_its_month CHECK ((usage_period <= period))
);

COMMENT ON TABLE public.widget_statement_charges IS 'The money on a closed month''s statement, by widget: one row for the month itself, and one for each earlier month that late arrivals changed (usage_period before period). What is to be paid is the sum of difference_amount.';

COMMENT ON COLUMN public.widget_statement_charges.usage_period IS 'The month in which the calls started.';

COMMENT ON COLUMN public.widget_statement_charges.plan_valid_from IS 'The plan of that month; null: none, and so no amounts.';

COMMENT ON COLUMN public.widget_statement_charges.old_seconds IS 'That month''s billable seconds on all statements before.';

COMMENT ON COLUMN public.widget_statement_charges.new_seconds IS 'They are now.';

COMMENT ON COLUMN public.widget_statement_charges.new_amount IS 'Their price beyond the included seconds, rounded once.';

COMMENT ON COLUMN public.widget_statement_charges.difference_amount IS 'What this statement charges or, below zero, credits.';

COMMENT ON COLUMN public.widget_statement_charges.content_hash IS 'SHA-256 of the charge and its lines (docs/billing.md).';

CREATE FUNCTION widget_internal.charge_content(charge public.widget_statement_charges) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path TO ''
    AS $$
begin
  return jsonb_build_array(
    charge.period::text, charge.widget_id::text, charge.usage_period::text, charge.plan_valid_from::text,
    charge.included_seconds::text, trim_scale(charge.price_per_minute)::text, charge.currency,
    trim_scale(charge.old_seconds)::text, trim_scale(charge.new_seconds)::text,
    trim_scale(charge.old_amount)::text, trim_scale(charge.new_amount)::text
  )::text || coalesce((
    select string_agg(
      E'\n' || jsonb_build_array(
        l.session_id, l.call_id, widget_internal.as_text(l.started_at), widget_internal.as_text(l.ended_at),
        l.outcome, l.evidence, trim_scale(l.duration_seconds)::text,
        trim_scale(l.old_seconds)::text, trim_scale(l.new_seconds)::text, l.rule, to_jsonb(l.event_ids)
      )::text, '' order by l.session_id, l.call_id
    )
    from public.widget_statement_lines l
    where l.period = charge.period and l.widget_id = charge.widget_id and l.usage_period = charge.usage_period
  ), '');
end
$$;

COMMENT ON FUNCTION widget_internal.charge_content(charge public.widget_statement_charges) IS 'What a charge''s hash is taken of: a line of JSON for the charge, then one for each call (docs/billing.md).';

CREATE FUNCTION widget_internal.closing_key() RETURNS bigint
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    SET search_path TO ''
    AS $$
begin
  return hashtextextended('widget_internal: closing', 0);
end
$$;

COMMENT ON FUNCTION widget_internal.closing_key() IS 'The key of the advisory lock that who closes a month holds alone, and who changes what bills rest on shares.';

CREATE FUNCTION widget_internal.complete_stale_calls(stale_after interval, OUT calls_checked integer, OUT calls_completed integer) RETURNS record
    LANGUAGE plpgsql
    SET search_path TO ''
    AS $$
#variable_conflict use_column
declare
  v_horizon constant timestamptz := now() - complete_stale_calls.stale_after;
  v_widget_ids uuid[];
  v_session_ids text[];
  -- Any other isolation is left to the trigger, which knows what it needs.
  v_keeps_calls constant boolean := current_setting('transaction_isolation') = 'read committed';
begin
  select array_agg(s.widget_id), array_agg(s.session_id) into v_widget_ids, v_session_ids
  from (
    select distinct c.widget_id, c.session_id
    from public.widget_calls c
    where c.ended_at is null and c.started_at < v_horizon
  ) s;
  if v_widget_ids is null then
    calls_checked := 0;
    calls_completed := 0;
    return;
  end if;
  perform widget_internal.lock_sessions(array(
    select widget_internal.session_key(s.widget_id, s.session_id)
    from unnest(v_widget_ids, v_session_ids) s (widget_id, session_id)
  ));

  perform set_config('widget_internal.door_stores', case when v_keeps_calls then 'yes' else '' end, true);
  -- Only now, with their sessions held, is it certain which of the calls are still open.
  with checked as materialized (
    select c.widget_id, c.session_id, c.call_id, c.started_at, c.last_heartbeat_at
    from widget_internal.calls_of_sessions(v_widget_ids, v_session_ids) c
    where c.ended_at is null and c.started_at < v_horizon
  ),
  inferred as (
    insert into public.widget_analytics (widget_id, event_type, session_id, call_id, source, "timestamp")
    select
      c.widget_id, 'call_end', c.session_id, c.call_id, 'inferred',
      coalesce(c.last_heartbeat_at, c.started_at + complete_stale_calls.stale_after)
    from checked c
    where c.last_heartbeat_at is null or c.last_heartbeat_at <= v_horizon
    returning 1
  )
  select (select count(*) from checked), (select count(*) from inferred)
  into complete_stale_calls.calls_checked, complete_stale_calls.calls_completed;
  perform set_config('widget_internal.door_stores', '', true);
  if v_keeps_calls and complete_stale_calls.calls_completed > 0 then
    perform widget_internal.refresh_calls(v_widget_ids, v_session_ids);
  end if;
end
$$;

COMMENT ON FUNCTION widget_internal.complete_stale_calls(stale_after interval, OUT calls_checked integer, OUT calls_completed integer) IS 'The work of complete_stale_sessions().';

CREATE FUNCTION widget_internal.computed_health() RETURNS TABLE(counted text, widget_id uuid, hour timestamp with time zone, numbers bigint[])
    LANGUAGE plpgsql STABLE
    SET search_path TO ''
    AS $$
begin
  return query
  select 'events', e.widget_id, date_trunc('hour', e."timestamp", 'UTC'), array[
    count(*), count(*) filter (where e.event_type = 'widget_load'), count(*) filter (where e.event_type = 'widget_open')
  ]
  from public.widget_analytics e
  group by 2, 3
  union all
  select 'sessions', s.widget_id, date_trunc('hour', s.first_at, 'UTC'), array[
    count(*), sum(s.numbered), coalesce(sum(s.highest), 0), sum(widget_internal.orphan_ends(s.widget_id, s.session_id))
  ]::bigint[]
  from (
    select
      e.widget_id, e.session_id, min(e."timestamp") as first_at,
      count(distinct e.seq) filter (where e.seq <= 10000) as numbered, max(e.seq) filter (where e.seq <= 10000) as highest
    from public.widget_analytics e
    group by e.widget_id, e.session_id
  ) s
  group by 2, 3
  union all
  select 'calls', c.widget_id, date_trunc('hour', c.started_at, 'UTC'), array[
    count(*), count(*) filter (where c.outcome = 'open'), count(*) filter (where c.evidence = 'observed'),
    count(*) filter (where c.evidence = 'provider'), count(*) filter (where c.evidence = 'operator'),
    count(*) filter (where c.evidence = 'heartbeat'), count(*) filter (where c.evidence = 'assumed'),
    count(*) filter (where c.outcome = 'failed')
  ]
  from public.widget_calls c
  group by 2, 3;
end
$$;

COMMENT ON FUNCTION widget_internal.computed_health() IS 'The counts that health_hours and health_calls should hold. Reads the whole ledger.';

CREATE FUNCTION widget_internal.computed_health_pages() RETURNS TABLE(widget_id uuid, day date, page_url text, numbers bigint[])
    LANGUAGE plpgsql STABLE
    SET search_path TO ''
    AS $$
begin
  return query
  select s.widget_id, (s.first_at at time zone 'UTC')::date, s.page_url, array[
    count(*), sum(s.loads)::bigint, sum(s.opens)::bigint, sum((
      select count(*) from public.widget_calls c where c.widget_id = s.widget_id and c.session_id = s.session_id
    ))::bigint
  ]
  from (
    select
      e.widget_id, e.session_id, min(e."timestamp") as first_at,
      coalesce((
        array_agg(left(e.page_url, 512) order by e."timestamp", left(e.page_url, 512) collate "C")
          filter (where e.page_url <> '')
      )[1], '') as page_url,
      count(*) filter (where e.event_type = 'widget_load') as loads,
      count(*) filter (where e.event_type = 'widget_open') as opens
    from public.widget_analytics e
    group by e.widget_id, e.session_id
  ) s
  group by 1, 2, 3;
end
$$;

COMMENT ON FUNCTION widget_internal.computed_health_pages() IS 'The counts that health_pages should hold. Reads the whole ledger.';

CREATE FUNCTION widget_internal.correction_note(widget_id uuid, session_id text, call_id text, as_of timestamp with time zone) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path TO ''
    AS $$
begin
  return (
    select '; set by ' || (e.properties ->> 'corrected_by') || ': ' || (e.properties ->> 'reason')
    from widget_internal.session_calls(
      correction_note.widget_id, correction_note.session_id, coalesce(correction_note.as_of, 'infinity')
    ) c
    join public.widget_analytics e on e.id = c.ended_by and e.widget_id = correction_note.widget_id
    where c.call_id = correction_note.call_id
  );
end
$$;

COMMENT ON FUNCTION widget_internal.correction_note(widget_id uuid, session_id text, call_id text, as_of timestamp with time zone) IS 'Who corrected a call and why, to be added to its rule; null where its end does not say.';

CREATE FUNCTION widget_internal.count_calls(received_after timestamp with time zone, received_to timestamp with time zone) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO ''
    AS $$
declare
  v_archived_to constant timestamptz := widget_internal.health_archived_to();
begin
  insert into widget_internal.health_calls as k
  select k.*
  from (
    select distinct s.widget_id, h.hour
    from (
      select distinct e.widget_id, e.session_id
      from public.widget_analytics e
      where e.received_at > count_calls.received_after and e.received_at <= count_calls.received_to
        and e.event_type in ('call_start', 'call_heartbeat', 'call_end', 'call_error')
    ) s
    -- Of all its starts, not of its calls: so the hour is counted again too that a call has left for an earlier start.
    cross join lateral (
      select distinct date_trunc('hour', e."timestamp", 'UTC') as hour
      from public.widget_analytics e
      where e.widget_id = s.widget_id and e.session_id = s.session_id and e.event_type = 'call_start'
    ) h
    where h.hour >= v_archived_to
  ) d
  cross join lateral widget_internal.calls_of_hour(d.widget_id, d.hour) k
  on conflict on constraint health_calls_pkey do update set
    calls_started = excluded.calls_started, calls_open = excluded.calls_open, calls_observed = excluded.calls_observed,
    calls_provider = excluded.calls_provider, calls_operator = excluded.calls_operator,
    calls_heartbeat = excluded.calls_heartbeat, calls_assumed = excluded.calls_assumed,
    calls_failed = excluded.calls_failed;
end
$$;

COMMENT ON FUNCTION widget_internal.count_calls(received_after timestamp with time zone, received_to timestamp with time zone) IS 'Counts the hours again in which calls started of which events were received in (received_after, received_to].';

CREATE FUNCTION widget_internal.count_event(widget_id uuid, events bigint) RETURNS timestamp with time zone
    LANGUAGE plpgsql
    SET search_path TO ''
    AS $$
declare
  v_day constant timestamptz := date_trunc('day', clock_timestamp(), 'UTC');
  v_minute constant timestamptz := date_trunc('minute', clock_timestamp());
  v_sender uuid;
  v_quota record;
  v_shard integer;
  v_until timestamptz;
begin
  select
    case when q.widget_id is null then s.events_per_widget_per_day else q.events_per_day end as of_widget,
    s.events_per_sender_per_minute as of_sender, s.events_per_count as weight
  into v_quota
  from widget_internal.settings s
  left join public.widget_quotas q on q.widget_id = count_event.widget_id;

  -- Who counts in a row of its own does not see what others are about to add. Where that could be much of a quota, all
  -- count in one row, one after the other.
  v_shard := case when v_quota.weight = 1 or count_event.events > v_quota.weight then 0 else 1 + pg_backend_pid() % 16 end;

  if v_quota.of_widget is not null then
    v_until := widget_internal.count_towards_quota(
      count_event.widget_id, v_day, v_day + interval '1 day', v_shard, count_event.events,
      -- An estimate from samples is four of its standard deviations off once in 30,000 times: ending so much
      -- earlier, what is stored stays within the quota.
      v_quota.of_widget
        - case when v_quota.weight > 1 then ceil(4 * sqrt(v_quota.weight * v_quota.of_widget))::bigint else 0 end
    );
    update widget_internal.settings s set widgets_throttled_until = v_until where s.widgets_throttled_until < v_until;
  end if;

  -- The company's own backend may speak for many.
  if v_until is null and v_quota.of_sender is not null and current_setting('role') <> 'service_role' then
    v_sender := widget_internal.sender();
    if v_sender is not null then
      v_until := widget_internal.count_towards_quota(
        v_sender, v_minute, v_minute + interval '1 minute', v_shard, count_event.events, v_quota.of_sender
      );
      update widget_internal.settings s set senders_throttled_until = v_until where s.senders_throttled_until < v_until;
    end if;
  end if;
  return v_until;
end
$$;

COMMENT ON FUNCTION widget_internal.count_event(widget_id uuid, events bigint) IS 'Counts so many events of a widget towards its quota and the sender''s; answers until when more are refused, else null.';

CREATE FUNCTION widget_internal.count_events(received_after timestamp with time zone, received_to timestamp with time zone) RETURNS bigint
    LANGUAGE plpgsql
    SET search_path TO ''
    AS $$
declare
  v_events bigint;
begin
  with new as materialized (
    select
      e.widget_id, e.event_type, date_trunc('hour', e."timestamp", 'UTC') as hour,
      case when e.source = 'browser' and jsonb_typeof(e.properties -> 'rtt_ms') = 'number'
        then (e.properties ->> 'rtt_ms')::numeric end as response_ms
    from public.widget_analytics e
    where e.received_at > count_events.received_after and e.received_at <= count_events.received_to
  ),
  hours as (
    insert into widget_internal.health_hours as h (widget_id, hour, events_received, loads, opens)
    select
      n.widget_id, n.hour, count(*),
      count(*) filter (where n.event_type = 'widget_load'), count(*) filter (where n.event_type = 'widget_open')
    from new n
    group by n.widget_id, n.hour
    on conflict on constraint health_hours_pkey do update set
      events_received = h.events_received + excluded.events_received,
      loads = h.loads + excluded.loads, opens = h.opens + excluded.opens
  ),
  response_times as (
    insert into widget_internal.health_response_times as r (widget_id, hour, bucket, answers)
    select n.widget_id, n.hour, ceil(ln(greatest(n.response_ms, 1)::double precision) / ln(1.1::double precision)), count(*)
    from new n
    -- Ten minutes: no sender waits longer, and what says so is made up.
    where n.response_ms between 0 and 600000
    group by 1, 2, 3
    on conflict on constraint health_response_times_pkey do update set answers = r.answers + excluded.answers
  )
  select count(*) into v_events from new;
  return v_events;
end
$$;

COMMENT ON FUNCTION widget_internal.count_events(received_after timestamp with time zone, received_to timestamp with time zone) IS 'Adds the events received in (received_after, received_to] to the counts of their hours, and says how many they were.';

CREATE FUNCTION widget_internal.count_refusals(refusals widget_internal.refusal[]) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO ''
    AS $$
declare
  v_hour constant timestamptz := date_trunc('hour', now(), 'UTC');
  v_shard constant smallint := pg_backend_pid() % 16;
  v_refusal record;
begin
  for v_refusal in
    select r.widget_id, r.reason, left(coalesce(r.detail, ''), 255) as detail, count(*) as n
    from unnest(count_refusals.refusals) r
    group by 1, 2, 3
    order by 1, 2, 3
  loop
    -- Details come from outside: past twenty an hour they are counted together, so that nobody can fill the table.
    if (
      select count(distinct c.detail) >= 20 and not bool_or(c.detail = v_refusal.detail)
      from widget_internal.refusal_counts c
      where c.hour = v_hour and c.widget_id is not distinct from v_refusal.widget_id and c.reason = v_refusal.reason
    ) then
      v_refusal.detail := '(others)';
    end if;

    insert into widget_internal.refusal_counts as c (hour, widget_id, reason, detail, shard, refusals)
    values (v_hour, v_refusal.widget_id, v_refusal.reason, v_refusal.detail, v_shard, v_refusal.n)
    on conflict on constraint refusal_counts_are_one_row_a_shard
    do update set refusals = c.refusals + excluded.refusals;
  end loop;
end
$$;

COMMENT ON FUNCTION widget_internal.count_refusals(refusals widget_internal.refusal[]) IS 'Adds refused events to the counts of this hour.';

CREATE FUNCTION widget_internal.count_sessions(received_after timestamp with time zone, received_to timestamp with time zone) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO ''
    AS $$
begin
  with after as materialized (
    select * from widget_internal.changed_health_sessions(count_sessions.received_after, count_sessions.received_to)
  ),
  before as materialized (
    select s.* from after a join widget_internal.health_sessions s using (widget_id, session_id)
  ),
  stored as (
    insert into widget_internal.health_sessions as s select a.* from after a
    on conflict on constraint health_sessions_pkey do update set
      first_at = excluded.first_at, seqs = excluded.seqs, page_at = excluded.page_at, page_url = excluded.page_url,
      loads = excluded.loads, opens = excluded.opens, calls = excluded.calls,
      orphan_ends = excluded.orphan_ends
  ),
  -- What a session added before is taken away again.
  changes as (select 1 as sign, a.* from after a union all select -1, b.* from before b),
  pages as (
    insert into widget_internal.health_pages as p (widget_id, day, page_url, host, sessions, loads, opens, calls)
    select
      c.widget_id, (c.first_at at time zone 'UTC')::date, c.page_url,
      coalesce(widget_internal.url_host(c.page_url), ''),
      sum(c.sign), sum(c.sign * c.loads), sum(c.sign * c.opens), sum(c.sign * c.calls)
    from changes c
    group by 1, 2, 3
    on conflict on constraint health_pages_pkey do update set
      sessions = p.sessions + excluded.sessions, loads = p.loads + excluded.loads,
      opens = p.opens + excluded.opens, calls = p.calls + excluded.calls
  )
  insert into widget_internal.health_hours as h (widget_id, hour, sessions, events_numbered, events_expected, orphan_ends)
  select
    c.widget_id, date_trunc('hour', c.first_at, 'UTC'), sum(c.sign),
    sum(c.sign * widget_internal.numbers_seen(c.seqs)), sum(c.sign * coalesce(upper(c.seqs) - 1, 0)),
    sum(c.sign * c.orphan_ends)
  from changes c
  group by 1, 2
  on conflict on constraint health_hours_pkey do update set
    sessions = h.sessions + excluded.sessions, events_numbered = h.events_numbered + excluded.events_numbered,
    events_expected = h.events_expected + excluded.events_expected, orphan_ends = h.orphan_ends + excluded.orphan_ends;
end
$$;

COMMENT ON FUNCTION widget_internal.count_sessions(received_after timestamp with time zone, received_to timestamp with time zone) IS 'Brings sessions and pages up to date with the events received in (received_after, received_to].';

CREATE FUNCTION widget_internal.count_towards_quota(subject uuid, window_start timestamp with time zone, window_end timestamp with time zone, shard integer, events bigint, quota bigint) RETURNS timestamp with time zone
    LANGUAGE plpgsql
    SET search_path TO ''
    AS $$
declare
  v_events bigint;
begin
  insert into widget_internal.event_counts as c (subject, window_start, shard, events)
  values (
    count_towards_quota.subject, count_towards_quota.window_start, count_towards_quota.shard, count_towards_quota.events
  )
  on conflict on constraint event_counts_are_one_row_a_shard do update set events = c.events + excluded.events;

  select sum(c.events) into v_events
  from widget_internal.event_counts c
  where c.subject = count_towards_quota.subject and c.window_start = count_towards_quota.window_start;
  if v_events <= count_towards_quota.quota then
    return null;
  end if;

  insert into widget_internal.throttles as t (subject, until)
  values (count_towards_quota.subject, count_towards_quota.window_end)
  on conflict on constraint throttles_pkey do update set until = excluded.until;
  return count_towards_quota.window_end;
end
$$;

COMMENT ON FUNCTION widget_internal.count_towards_quota(subject uuid, window_start timestamp with time zone, window_end timestamp with time zone, shard integer, events bigint, quota bigint) IS 'Adds events to a subject''s count of a window. Where that is then over the quota: throttles the subject until the window''s end, and answers that moment.';

CREATE FUNCTION widget_internal.counted_as_of(as_of timestamp with time zone) RETURNS timestamp with time zone
    LANGUAGE plpgsql STABLE
    SET search_path TO ''
    AS $$
begin
  -- As of now is all that there is to see: also what this very transaction has added since it began.
  return case when counted_as_of.as_of >= now() then 'infinity' else counted_as_of.as_of end;
end
$$;

COMMENT ON FUNCTION widget_internal.counted_as_of(as_of timestamp with time zone) IS 'Up to which receipt a bill asked for as of a moment counts.';

CREATE FUNCTION widget_internal.currency_decimals(currency text) RETURNS integer
    LANGUAGE plpgsql IMMUTABLE
    SET search_path TO ''
    AS $$
begin
  return case
    when currency_decimals.currency in (
      'BIF', 'CLP', 'DJF', 'GNF', 'ISK', 'JPY', 'KMF', 'KRW', 'PYG', 'RWF', 'UGX', 'UYI', 'VND', 'VUV', 'XAF', 'XOF',
      'XPF'
    ) then 0
    when currency_decimals.currency in ('BHD', 'IQD', 'JOD', 'KWD', 'LYD', 'OMR', 'TND') then 3
    when currency_decimals.currency in ('CLF', 'UYW') then 4
    else 2
  end;
end
$$;

COMMENT ON FUNCTION widget_internal.currency_decimals(currency text) IS 'The decimals of an amount, by ISO 4217.';

CREATE FUNCTION widget_internal.cut_off() RETURNS timestamp with time zone
    LANGUAGE plpgsql
    SET search_path TO ''
    AS $$
declare
  v_cut_off timestamptz;
begin
  begin
    -- Whoever waits for a lock holds up those behind: briefly, or not at all.
    perform set_config('lock_timeout', '2s', true);
    perform pg_advisory_xact_lock(widget_internal.receipts_key());
    v_cut_off := clock_timestamp();
    -- Undoing this block gives the lock back at once, and the setting too; the variable keeps its value.
    raise exception using errcode = 'WA001';
  exception
    when sqlstate 'WA001' then
      return v_cut_off;
    when lock_not_available then
      raise exception 'a transaction that writes events has been running for more than 2 seconds; nothing was changed'
        using errcode = 'lock_not_available', hint = 'Try again when it is over.';
  end;
end
$$;

COMMENT ON FUNCTION widget_internal.cut_off() IS 'A moment by which all that was received is committed: a bill as of it, asked for in a later statement, is final.';

CREATE FUNCTION widget_internal.divert_archived_event() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO ''
    AS $$
begin
  -- Such a transaction cannot see what was archived since it began.
  if current_setting('transaction_isolation') in ('repeatable read', 'serializable') then
    raise exception 'events of sessions as old as this cannot be added in a % transaction',
      current_setting('transaction_isolation')
      using errcode = 'feature_not_supported', hint = 'Use read committed.';
  end if;
  -- Held until the transaction ends: who archives waits for those that have looked before it began.
  perform widget_internal.receipt_time();
  if not exists (
    select from widget_internal.archived_sessions a
    where a.session_key = widget_internal.archived_session_key(new.widget_id, new.session_id)
  ) then
    return new;
  elsif new.source in ('server', 'provider', 'operator') then
    raise exception 'session_id: this session is in the archive' using errcode = 'invalid_parameter_value',
      hint = 'Bring it back with `widget-analytics restore`, then send this again.';
  end if;
  insert into public.widget_late_events (id, widget_id, session_id, event)
  values (new.id, new.widget_id, new.session_id, to_jsonb(new))
  on conflict do nothing;
  return null;
end
$$;

COMMENT ON FUNCTION widget_internal.divert_archived_event() IS 'Before an event of a session that is not young is added: one of an archived session goes to widget_late_events; what the company''s own backend sends of it is refused.';

CREATE FUNCTION widget_internal.door_problem() RETURNS text
    LANGUAGE plpgsql IMMUTABLE
    SET search_path TO ''
    AS $$
begin
  return 'widget_id: this widget is unknown, not active, or not allowed on this page''s domain';
end
$$;

COMMENT ON FUNCTION widget_internal.door_problem() IS 'What every sender hears whom the door refuses: the same for all, so that nobody can probe which widgets there are.';

CREATE FUNCTION widget_internal.door_refusal(verdict text, widget_id uuid, page_host text) RETURNS widget_internal.refusal
    LANGUAGE plpgsql IMMUTABLE
    SET search_path TO ''
    AS $$
begin
  return case door_refusal.verdict
    when 'unknown_widget' then (null, door_refusal.verdict, door_refusal.widget_id::text)::widget_internal.refusal
    when 'widget_inactive' then (door_refusal.widget_id, door_refusal.verdict, '')::widget_internal.refusal
    else (door_refusal.widget_id, door_refusal.verdict, door_refusal.page_host)::widget_internal.refusal
  end;
end
$$;

COMMENT ON FUNCTION widget_internal.door_refusal(verdict text, widget_id uuid, page_host text) IS 'What is counted where the door''s verdict was no.';

CREATE FUNCTION widget_internal.empty_widget_calls() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO ''
    AS $$
begin
  delete from public.widget_calls;
  return null;
end
$$;

COMMENT ON FUNCTION widget_internal.empty_widget_calls() IS 'After the ledger was truncated: there are no calls.';

CREATE FUNCTION widget_internal.erase_late_events() RETURNS bigint
    LANGUAGE plpgsql
    SET search_path TO ''
    AS $$
declare
  -- What happened before an erasure arrives at most 7 days after it: two days are left for a daily job that misses a run.
  v_repeated_for constant interval := interval '9 days';
  v_session record;
  v_erased bigint := 0;
begin
  for v_session in
    select r.widget_id, r.session_id
    from (
      select s.widget_id, s.session_id, min(s.erased_at) as erased_at
      from public.widget_erasures s
      where s.erased_at > now() - v_repeated_for
      group by s.widget_id, s.session_id
    ) r
    where exists (
      select from public.widget_analytics e
      where e.widget_id = r.widget_id
        and e.session_id = r.session_id
        and e.received_at >= r.erased_at
        -- Senders are late by 7 days at most (R3), so the index by widget and time finds them.
        and e."timestamp" >= r.erased_at - interval '8 days'
        and (
          e.page_url is not null or e.user_agent is not null
          or e.properties is distinct from widget_internal.billing_facts(e.source, e.properties)
        )
    )
    order by r.widget_id, r.session_id
  loop
    begin
      v_erased := v_erased
        + (widget_internal.erase_session(v_session.widget_id, v_session.session_id) ->> 'erased')::bigint;
    exception
      when invalid_parameter_value then
        raise warning 'session % of widget % was not erased again: %',
          v_session.session_id, v_session.widget_id, sqlerrm;
    end;
  end loop;
  return v_erased;
end
$$;

COMMENT ON FUNCTION widget_internal.erase_late_events() IS 'Erases again what was erased in the last 9 days and has had events since, each with a row in widget_erasures, and says how many events lost something. widget_internal.prune() calls it every day.';

CREATE FUNCTION widget_internal.erase_own_session(widget_id uuid, session_id text) RETURNS jsonb
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO ''
    AS $$
begin
  if erase_own_session.widget_id = any (array(select widget_internal.owned_widget_ids())) then
    return widget_internal.erase_session(erase_own_session.widget_id, erase_own_session.session_id);
  end if;
  raise exception 'widget_id: this widget is unknown, or not yours' using errcode = 'insufficient_privilege';
end
$$;

COMMENT ON FUNCTION widget_internal.erase_own_session(widget_id uuid, session_id text) IS 'What erase_widget_session() does for a signed-in user: only with the user''s own widgets.';

CREATE FUNCTION widget_internal.erase_session(widget_id uuid, session_id text) RETURNS jsonb
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO ''
    AS $$
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

COMMENT ON FUNCTION widget_internal.erase_session(widget_id uuid, session_id text) IS 'What erase_widget_session() does, for callers who may do so with any widget.';

CREATE FUNCTION widget_internal.event_problem(event_type text, session_id text, call_id text, seq integer, age_ms bigint, properties jsonb) RETURNS text
    LANGUAGE plpgsql IMMUTABLE
    SET search_path TO ''
    AS $$
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

COMMENT ON FUNCTION widget_internal.event_problem(event_type text, session_id text, call_id text, seq integer, age_ms bigint, properties jsonb) IS 'What is wrong with an event: the field, a colon, what it must be; null where nothing is.';

CREATE FUNCTION widget_internal.evidence_problem(session_id text, call_id text, source text, record_id text, started_at timestamp with time zone, ended_at timestamp with time zone, outcome text) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path TO ''
    AS $$
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

COMMENT ON FUNCTION widget_internal.evidence_problem(session_id text, call_id text, source text, record_id text, started_at timestamp with time zone, ended_at timestamp with time zone, outcome text) IS 'What is wrong with a record of a call: the field, a colon, what it must be; null where nothing is.';

CREATE FUNCTION widget_internal.finish_archive(month date) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO ''
    AS $$
#variable_conflict use_column
begin
  if exists (select from widget_internal.sessions_to_archive s where s.chunk > 0) then
    raise exception 'sessions of % are still to be released', finish_archive.month
      using errcode = 'object_not_in_prerequisite_state', hint = 'Run `widget-analytics archive` again.';
  end if;
  delete from widget_internal.sessions_to_archive;
  update public.widget_archives a set released_at = clock_timestamp()
  where a.month = finish_archive.month and a.released_at is null;
  perform widget_internal.return_late_events();
end
$$;

COMMENT ON FUNCTION widget_internal.finish_archive(month date) IS 'The last step: nothing of the month is left to release.';

CREATE FUNCTION widget_internal.forget_health_page() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO ''
    AS $$
declare
  v_session widget_internal.health_sessions;
begin
  -- No refresh may read the session before the erasure and write it back after.
  perform from widget_internal.health_state for update;
  select s.* into v_session
  from widget_internal.health_sessions s
  where s.widget_id = new.widget_id and s.session_id = new.session_id and s.page_url <> '';
  if not found then
    return null;
  end if;

  update widget_internal.health_sessions s set page_at = null, page_url = ''
  where s.widget_id = new.widget_id and s.session_id = new.session_id;
  insert into widget_internal.health_pages as p (widget_id, day, page_url, host, sessions, loads, opens, calls)
  select
    v_session.widget_id, (v_session.first_at at time zone 'UTC')::date, c.page_url, '',
    c.sign, c.sign * v_session.loads, c.sign * v_session.opens, c.sign * v_session.calls
  from (values (1, ''), (-1, v_session.page_url)) c (sign, page_url)
  on conflict on constraint health_pages_pkey do update set
    sessions = p.sessions + excluded.sessions, loads = p.loads + excluded.loads,
    opens = p.opens + excluded.opens, calls = p.calls + excluded.calls;
  delete from widget_internal.health_pages p
  where p.widget_id = v_session.widget_id
    and p.day = (v_session.first_at at time zone 'UTC')::date
    and p.page_url = v_session.page_url
    and p.sessions = 0;
  return null;
end
$$;

COMMENT ON FUNCTION widget_internal.forget_health_page() IS 'After erase_widget_session(): counts that session under no page, and drops a page that no other session names.';

CREATE FUNCTION widget_internal.forget_senders() RETURNS void
    LANGUAGE plpgsql
    SET search_path TO ''
    AS $$
declare
  v_today constant timestamptz := date_trunc('day', now(), 'UTC');
begin
  delete from widget_internal.sender_salts s where s.day < v_today at time zone 'UTC';
  delete from widget_internal.throttles t where t.until < now();
  -- A day's counts start at its midnight; all that start at another time of a past hour are of a minute.
  delete from widget_internal.event_counts c
  where c.window_start < v_today or (c.window_start <> v_today and c.window_start < now() - interval '1 hour');
end
$$;

COMMENT ON FUNCTION widget_internal.forget_senders() IS 'Deletes past days'' salts, without which no hash can be traced to an address, and counts that no quota needs.';

CREATE FUNCTION widget_internal.health_archived_to() RETURNS timestamp with time zone
    LANGUAGE plpgsql STABLE
    SET search_path TO ''
    AS $$
declare
  v_month constant date := widget_internal.last_archived_month();
begin
  if isfinite(v_month) then
    return (widget_internal.month_bounds(v_month)).period_end;
  end if;
  return timestamptz '-infinity';
end
$$;

COMMENT ON FUNCTION widget_internal.health_archived_to() IS 'Hours before this moment may have lost events to the archive; -infinity: none has.';

CREATE FUNCTION widget_internal.health_differences() RETURNS TABLE(counted text, widget_id uuid, at text, kept bigint[], computed bigint[])
    LANGUAGE plpgsql STABLE
    SET search_path TO ''
    AS $$
declare
  v_archived_to constant timestamptz := widget_internal.health_archived_to();
begin
  return query
  with kept as (
    select 'events' as counted, h.widget_id, h.hour::text as at, array[h.events_received, h.loads, h.opens] as numbers
    from widget_internal.health_hours h
    where h.hour >= v_archived_to
    union all
    select 'sessions', h.widget_id, h.hour::text, array[h.sessions, h.events_numbered, h.events_expected, h.orphan_ends]
    from widget_internal.health_hours h
    where h.hour >= v_archived_to
    union all
    select 'calls', c.widget_id, c.hour::text, array[
      c.calls_started, c.calls_open, c.calls_observed, c.calls_provider, c.calls_operator, c.calls_heartbeat,
      c.calls_assumed, c.calls_failed
    ]
    from widget_internal.health_calls c
    where c.hour >= v_archived_to
    union all
    select 'pages', p.widget_id, p.day || ' ' || p.page_url, array[p.sessions, p.loads, p.opens, p.calls]
    from widget_internal.health_pages p
    where p.day > (v_archived_to at time zone 'UTC')::date
  ),
  computed as (
    select c.counted, c.widget_id, c.hour::text as at, c.numbers from widget_internal.computed_health() c
    where c.hour >= v_archived_to
    union all
    select 'pages', p.widget_id, p.day || ' ' || p.page_url, p.numbers from widget_internal.computed_health_pages() p
    where p.day > (v_archived_to at time zone 'UTC')::date
  )
  select
    coalesce(k.counted, c.counted), coalesce(k.widget_id, c.widget_id), coalesce(k.at, c.at)::text, k.numbers, c.numbers
  -- Counts that fell to zero stay as such.
  from (select * from kept where 0 < any (kept.numbers)) k
  full join computed c on c.counted = k.counted and c.widget_id = k.widget_id and c.at = k.at
  where k.numbers is distinct from c.numbers;
end
$$;

COMMENT ON FUNCTION widget_internal.health_differences() IS 'Where the counts behind widget_health and widget_pages are not what the ledger gives. Good: no rows, right after refresh_widget_health(). Reads the whole ledger. If there are rows: select widget_internal.rebuild_health().';

CREATE FUNCTION widget_internal.is_host_allowed(host text, allowed_domains text[]) RETURNS boolean
    LANGUAGE plpgsql IMMUTABLE
    SET search_path TO ''
    AS $_$
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
$_$;

COMMENT ON FUNCTION widget_internal.is_host_allowed(host text, allowed_domains text[]) IS 'Whether a widget''s allowed_domains admit a host: itself, "*.parent" for hosts below it, "*" for any and for none named.';

CREATE FUNCTION widget_internal.is_read_only() RETURNS boolean
    LANGUAGE plpgsql STABLE
    SET search_path TO ''
    AS $$
begin
  return current_setting('transaction_read_only')::boolean and current_setting('request.method', true) = 'POST';
end
$$;

COMMENT ON FUNCTION widget_internal.is_read_only() IS 'Whether a request that means to write cannot: the server is read-only, as a full disk makes it.';

CREATE FUNCTION widget_internal.is_young_session(session_id text, born_after timestamp with time zone) RETURNS boolean
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    SET search_path TO ''
    AS $$
begin
  return substr(is_young_session.session_id, 15, 1) = '7' and length(is_young_session.session_id) = 36
    and translate(left(is_young_session.session_id, 13), '-', '')
      >= lpad(to_hex((extract(epoch from is_young_session.born_after) * 1000)::bigint), 12, '0');
end
$$;

COMMENT ON FUNCTION widget_internal.is_young_session(session_id text, born_after timestamp with time zone) IS 'Whether a session id is a UUIDv7 that says that it was made after a moment. Such a session is not archived, whoever made its id.';

CREATE FUNCTION widget_internal.json_event_problem(event jsonb) RETURNS text
    LANGUAGE plpgsql IMMUTABLE
    SET search_path TO ''
    AS $_$
declare
  v_fields constant text[] := array[
    'widget_id', 'event_type', 'session_id', 'page_url', 'event_id', 'call_id', 'seq', 'age_ms', 'properties'
  ];
  v_field record;
begin
  -- One look at all fields; only where one is wrong, which.
  if event - v_fields <> '{}' or array['object', 'array', 'boolean'] && array[
    jsonb_typeof(event -> 'widget_id'), jsonb_typeof(event -> 'event_type'), jsonb_typeof(event -> 'session_id'),
    jsonb_typeof(event -> 'page_url'), jsonb_typeof(event -> 'event_id'), jsonb_typeof(event -> 'call_id'),
    jsonb_typeof(event -> 'seq'), jsonb_typeof(event -> 'age_ms')
  ] then
    for v_field in select f.key, jsonb_typeof(f.value) as type from jsonb_each(json_event_problem.event) f loop
      if v_field.key <> all (v_fields) then
        return left(v_field.key, 64) || ': is not a field of an event';
      elsif v_field.key <> 'properties' and v_field.type in ('object', 'array', 'boolean') then
        return v_field.key || ': must be a string or a number';
      end if;
    end loop;
  end if;

  return case
    when event ->> 'event_id' is not null and widget_internal.to_uuid(event ->> 'event_id') is null
      then 'event_id: must be a UUID, or be left out'
    when event ->> 'seq' !~ '^[0-9]{1,9}$' then 'seq: must be a whole number from 1 to 999999999'
    when event ->> 'age_ms' !~ '^-?[0-9]{1,15}(\.[0-9]+)?$' then 'age_ms: must be a number of milliseconds'
  end;
end
$_$;

COMMENT ON FUNCTION widget_internal.json_event_problem(event jsonb) IS 'What keeps a JSON object from being read as the arguments of track_event(); null where nothing does.';

CREATE FUNCTION widget_internal.keep_billed_plans() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO ''
    AS $$
declare
  v_plan public.widget_plans;
  v_billed date;
begin
  -- A month that is being closed right now is waited for.
  perform pg_advisory_xact_lock_shared(widget_internal.closing_key());
  foreach v_plan in array case tg_op when 'INSERT' then array[new] when 'DELETE' then array[old] else array[old, new] end
  loop
    select max(c.usage_period) into v_billed
    from public.widget_statement_charges c
    where c.widget_id = v_plan.widget_id
      and c.usage_period >= v_plan.valid_from
      and c.usage_period < coalesce((
        select min(p.valid_from) from public.widget_plans p
        where p.widget_id = v_plan.widget_id and p.valid_from > v_plan.valid_from
      ), 'infinity');
    if v_billed is not null then
      raise exception 'valid_from: this plan would hold, or holds, for %, which is closed', to_char(v_billed, 'YYYY-MM')
        using errcode = 'invalid_parameter_value', hint = 'Add a plan that holds from a later month.';
    end if;
  end loop;
  return null;
end
$$;

COMMENT ON FUNCTION widget_internal.keep_billed_plans() IS 'After a plan was added, changed or deleted: refuses that for the months of its widget that are closed.';

CREATE FUNCTION widget_internal.keep_billing_time_zone() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO ''
    AS $$
begin
  perform pg_advisory_xact_lock_shared(widget_internal.closing_key());
  if exists (select from public.widget_billing_periods) then
    raise exception 'billing_time_zone: a month has been closed in %', old.billing_time_zone
      using errcode = 'object_not_in_prerequisite_state', hint = 'The months of closed statements stay what they were.';
  end if;
  return null;
end
$$;

COMMENT ON FUNCTION widget_internal.keep_billing_time_zone() IS 'After billing_time_zone changed: refuses that once a month has been closed.';

CREATE FUNCTION widget_internal.keep_calls(widget_ids uuid[], session_ids text[], have_only_heartbeats boolean[]) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO ''
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
begin
  if cardinality(keep_calls.widget_ids) = 1 then
    perform widget_internal.keep_calls(
      keep_calls.widget_ids[1], keep_calls.session_ids[1], keep_calls.have_only_heartbeats[1]
    );
    return;
  end if;

  perform widget_internal.lock_sessions(array(
    select widget_internal.session_key(s.widget_id, s.session_id)
    from unnest(keep_calls.widget_ids, keep_calls.session_ids) s (widget_id, session_id)
  ));
  select array_agg(s.widget_id), array_agg(s.session_id) into keep_calls.widget_ids, keep_calls.session_ids
  from unnest(keep_calls.widget_ids, keep_calls.session_ids, keep_calls.have_only_heartbeats)
    s (widget_id, session_id, has_only_heartbeats)
  where not s.has_only_heartbeats or exists (
    select from public.widget_calls c
    where c.widget_id = s.widget_id and c.session_id = s.session_id and c.evidence in ('heartbeat', 'assumed')
  );
  if keep_calls.widget_ids is not null then
    perform widget_internal.refresh_calls(keep_calls.widget_ids, keep_calls.session_ids);
  end if;
end
$$;

COMMENT ON FUNCTION widget_internal.keep_calls(widget_ids uuid[], session_ids text[], have_only_heartbeats boolean[]) IS 'The same for many sessions, in parallel arrays that name none twice.';

CREATE FUNCTION widget_internal.keep_calls(widget_id uuid, session_id text, has_only_heartbeats boolean) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO ''
    AS $$
begin
  perform widget_internal.lock_sessions(
    array[widget_internal.session_key(keep_calls.widget_id, keep_calls.session_id)]
  );
  -- A heartbeat moves a call's end only where that end was inferred; most heartbeats change nothing.
  if not keep_calls.has_only_heartbeats or exists (
    select from public.widget_calls c
    where c.widget_id = keep_calls.widget_id
      and c.session_id = keep_calls.session_id
      and c.evidence in ('heartbeat', 'assumed')
  ) then
    perform widget_internal.refresh_calls(array[keep_calls.widget_id], array[keep_calls.session_id]);
  end if;
end
$$;

COMMENT ON FUNCTION widget_internal.keep_calls(widget_id uuid, session_id text, has_only_heartbeats boolean) IS 'Holds a session to which call events were added, and brings its calls up to date.';

CREATE FUNCTION widget_internal.keep_widget_calls() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO ''
    AS $$
declare
  v_widget_ids uuid[];
  v_session_ids text[];
  v_have_only_heartbeats boolean[];
begin
  -- In place of a foreign key (keep_widgets_with_events()): whose widget is gone, or about to go, cannot stay.
  if tg_name in ('keep_widget_calls_on_insert', 'keep_widget_calls_on_update_to_new') then
    perform from public.widgets w where w.id in (select e.widget_id from changed_events e) for key share;
    if exists (
      select from changed_events e where not exists (select from public.widgets w where w.id = e.widget_id)
    ) then
      raise exception 'widget_id: there is no such widget' using errcode = 'foreign_key_violation',
        schema = 'public', table = 'widget_analytics', constraint = 'events_belong_to_a_widget';
    end if;
  end if;

  select array_agg(s.widget_id), array_agg(s.session_id), array_agg(s.has_only_heartbeats)
  into v_widget_ids, v_session_ids, v_have_only_heartbeats
  from (
    select e.widget_id, e.session_id, bool_and(e.event_type = 'call_heartbeat') as has_only_heartbeats
    from changed_events e
    where e.event_type in ('call_start', 'call_heartbeat', 'call_end', 'call_error')
    group by e.widget_id, e.session_id
  ) s;
  if v_widget_ids is null then
    return null;
  end if;

  -- Repeatable read cannot see what the transaction that held the session before this one has just added.
  if current_setting('transaction_isolation') = 'repeatable read' then
    raise exception 'call events cannot be added in a repeatable read transaction'
      using errcode = 'feature_not_supported', hint = 'Use read committed or serializable.';
  end if;
  if tg_op <> 'INSERT' then
    perform widget_internal.lock_sessions(array(
      select widget_internal.session_key(s.widget_id, s.session_id)
      from unnest(v_widget_ids, v_session_ids) s (widget_id, session_id)
    ));
    delete from public.widget_calls c
    using unnest(v_widget_ids, v_session_ids) s (widget_id, session_id)
    where c.widget_id = s.widget_id and c.session_id = s.session_id;
    v_have_only_heartbeats := array_fill(false, array[cardinality(v_widget_ids)]);
  end if;
  perform widget_internal.keep_calls(v_widget_ids, v_session_ids, v_have_only_heartbeats);
  return null;
end
$$;

COMMENT ON FUNCTION widget_internal.keep_widget_calls() IS 'After a statement that changed the ledger: looks for the events'' widgets, and computes the calls of the sessions concerned again.';

CREATE FUNCTION widget_internal.keep_widgets_with_events() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO ''
    AS $$
declare
  v_lock_timeout constant text := current_setting('lock_timeout');
  v_is_left_behind boolean;
begin
  if tg_op = 'TRUNCATE' then
    v_is_left_behind := exists (select from public.widget_analytics);
  else
    if tg_argv[0] = 'at the end' then
      -- An older snapshot would not show what the door has stored since.
      if current_setting('transaction_isolation') <> 'read committed' then
        raise exception 'widgets can only be deleted in a read committed transaction'
          using errcode = 'feature_not_supported';
      end if;
      perform set_config('lock_timeout', '2s', true);
      perform pg_advisory_xact_lock(widget_internal.receipts_key());
      perform set_config('lock_timeout', v_lock_timeout, true);
    end if;
    v_is_left_behind := exists (select from public.widget_analytics e where e.widget_id = old.id)
      and not exists (select from public.widgets w where w.id = old.id);
  end if;

  if v_is_left_behind then
    raise exception 'a widget that has events cannot be deleted' using errcode = 'foreign_key_violation',
      schema = 'public', table = 'widget_analytics', constraint = 'events_belong_to_a_widget',
      hint = 'Its bills rest on them. To end it: update widgets set is_active = false.';
  end if;
  return null;
exception when lock_not_available then
  raise exception 'a transaction that writes events has been running for more than 2 seconds; nothing was deleted'
    using errcode = 'lock_not_available', hint = 'Try again when it is over.';
end
$$;

COMMENT ON FUNCTION widget_internal.keep_widgets_with_events() IS 'Raises (23503) where a widget goes, or changes its id, whose events are in the ledger.';

CREATE FUNCTION widget_internal.last_archived_month() RETURNS date
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO ''
    AS $$
begin
  return (select coalesce(max(a.month), '-infinity') from public.widget_archives a where a.manifest_hash is not null);
end
$$;

COMMENT ON FUNCTION widget_internal.last_archived_month() IS 'Sessions that ended by the end of this month may have left the ledger; -infinity: none has.';

CREATE FUNCTION widget_internal.late_changes(before date, as_of timestamp with time zone) RETURNS TABLE(usage_period date, widget_id uuid, session_id text, call_id text, started_at timestamp with time zone, ended_at timestamp with time zone, outcome text, evidence text, duration_seconds numeric, old_seconds numeric, new_seconds numeric, rule text, billed_as_of timestamp with time zone)
    LANGUAGE plpgsql STABLE
    SET search_path TO ''
    AS $$
declare
  v_last_archived constant date := widget_internal.last_archived_month();
  v_changed widget_internal.session_name[];
begin
  -- The calls as they are kept tell which sessions to look at; the ledger, what they were as of that moment.
  select array_agg(distinct (d.widget_id, d.session_id)::widget_internal.session_name) into v_changed
  from (
    select c.widget_id, c.session_id
    from (
      select r.widget_id, r.session_id, r.call_id, r.month as usage_period, r.billable_seconds as seconds
      from widget_internal.priced_calls('-infinity', 'infinity', null) r
      join public.widget_billing_periods p on p.period = r.month
      union all
      select l.widget_id, l.session_id, l.call_id, l.usage_period, -l.difference_seconds
      from public.widget_statement_lines l
      where l.usage_period > v_last_archived
      union all
      -- A session in the archive was billed in full when it left. Those that are still here, or here again, may change.
      select l.widget_id, l.session_id, l.call_id, l.usage_period, -l.difference_seconds
      from public.widget_statement_lines l
      join (select distinct k.widget_id, k.session_id from public.widget_calls k) k
        on k.widget_id = l.widget_id and k.session_id = l.session_id
      where l.usage_period <= v_last_archived
    ) c
    where c.usage_period < late_changes.before
    group by c.widget_id, c.session_id, c.call_id, c.usage_period
    having sum(c.seconds) <> 0
  ) d;

  return query
  with billed as (
    select l.usage_period, l.widget_id, l.session_id, l.call_id, min(l.started_at) as started_at,
      sum(l.difference_seconds) as seconds, max(p.as_of) as as_of
    from unnest(v_changed) s
    join public.widget_statement_lines l on l.widget_id = s.widget_id and l.session_id = s.session_id
    join public.widget_billing_periods p on p.period = l.period
    where l.usage_period < late_changes.before
    group by 1, 2, 3, 4
  ),
  rated as (
    select p.period as usage_period, p.as_of, r.*
    from widget_internal.rated_calls(
      '-infinity', 'infinity', coalesce(late_changes.as_of, 'infinity'), coalesce(v_changed, '{}')
    ) r
    join public.widget_billing_periods p on p.period = r.month
    where p.period < late_changes.before
  )
  select
    coalesce(r.usage_period, b.usage_period), coalesce(r.widget_id, b.widget_id),
    coalesce(r.session_id, b.session_id)::text, coalesce(r.call_id, b.call_id)::text,
    coalesce(r.started_at, b.started_at), r.ended_at, r.outcome, r.evidence, r.duration_seconds,
    coalesce(b.seconds, 0), coalesce(r.billable_seconds, 0),
    coalesce(r.rule, 'no longer a call of this month'), coalesce(b.as_of, r.as_of)
  from rated r
  full join billed b on b.widget_id = r.widget_id and b.session_id = r.session_id and b.call_id = r.call_id
    and b.usage_period = r.usage_period
  where coalesce(r.billable_seconds, 0) <> coalesce(b.seconds, 0);
end
$$;

COMMENT ON FUNCTION widget_internal.late_changes(before date, as_of timestamp with time zone) IS 'The calls of closed months before one whose billable seconds are no longer those on all statements together, as of a moment; null: of all that is there. billed_as_of: what was received later is what changed them.';

CREATE FUNCTION widget_internal.late_events(widget_id uuid, session_id text, call_id text, received_after timestamp with time zone, as_of timestamp with time zone) RETURNS uuid[]
    LANGUAGE plpgsql STABLE
    SET search_path TO ''
    AS $$
begin
  return array(
    select e.id
    from public.widget_analytics e
    where e.widget_id = late_events.widget_id
      and e.session_id = late_events.session_id
      and e.event_type in ('call_start', 'call_heartbeat', 'call_end', 'call_error')
      and e.received_at > late_events.received_after
      and e.received_at <= coalesce(late_events.as_of, 'infinity')
      -- R4: events that name a call are its own; those that name none may part the session's unnamed calls anew.
      and (
        e.call_id = late_events.call_id
        or (e.call_id is null and exists (
          select from public.widget_analytics s
          where s.widget_id = late_events.widget_id and s.session_id = late_events.session_id
            and s.call_id is null and s.id::text = late_events.call_id and s.event_type = 'call_start'
        ))
      )
    order by e.received_at, e.id
  );
end
$$;

COMMENT ON FUNCTION widget_internal.late_events(widget_id uuid, session_id text, call_id text, received_after timestamp with time zone, as_of timestamp with time zone) IS 'The events received in (received_after, as_of] that a call may have changed by.';

CREATE FUNCTION widget_internal.lock_sessions(session_keys bigint[]) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO ''
    AS $$
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

COMMENT ON FUNCTION widget_internal.lock_sessions(session_keys bigint[]) IS 'Holds these sessions (session_key(); null: every one) until the transaction ends: one at a time computes a session''s calls.';

CREATE FUNCTION widget_internal.month_bounds(month date, OUT period_start timestamp with time zone, OUT period_end timestamp with time zone) RETURNS record
    LANGUAGE plpgsql STABLE
    SET search_path TO ''
    AS $$
begin
  -- Each midnight by its own offset: a month with a change of the clocks is an hour longer or shorter.
  select month_bounds.month::timestamp at time zone s.billing_time_zone,
    (month_bounds.month + interval '1 month') at time zone s.billing_time_zone
  into month_bounds.period_start, month_bounds.period_end
  from widget_internal.settings s;
end
$$;

COMMENT ON FUNCTION widget_internal.month_bounds(month date, OUT period_start timestamp with time zone, OUT period_end timestamp with time zone) IS 'When a month begins and ends, in the billing time zone: [start, end).';

CREATE FUNCTION widget_internal.numbers_seen(seqs int4multirange) RETURNS integer
    LANGUAGE plpgsql IMMUTABLE
    SET search_path TO ''
    AS $$
begin
  return (select coalesce(sum(upper(r) - lower(r)), 0) from unnest(numbers_seen.seqs) r);
end
$$;

COMMENT ON FUNCTION widget_internal.numbers_seen(seqs int4multirange) IS 'How many different numbers there are in it.';

CREATE FUNCTION widget_internal.orphan_ends(widget_id uuid, session_id text) RETURNS integer
    LANGUAGE plpgsql STABLE
    SET search_path TO ''
    AS $$
begin
  return (
    with call_events as (
      select e.*,
        -- As in session_calls(): an end that names no call ends the one that was opened before it, if any.
        count(*) filter (where e.event_type = 'call_start') over (
          partition by e.call_id is null
          order by e."timestamp", coalesce(e.seq, 0), e.event_type <> 'call_start', e.id
        ) as starts_so_far
      from public.widget_analytics e
      where e.widget_id = orphan_ends.widget_id
        and e.session_id = orphan_ends.session_id
        and e.event_type in ('call_start', 'call_heartbeat', 'call_end', 'call_error')
    )
    select count(*)
    from call_events e
    where e.event_type in ('call_end', 'call_error')
      and case
        when e.call_id is null then e.starts_so_far = 0
        else not exists (
          select from public.widget_calls c
          where c.widget_id = e.widget_id and c.session_id = e.session_id and c.call_id = e.call_id
        )
      end
  );
end
$$;

COMMENT ON FUNCTION widget_internal.orphan_ends(widget_id uuid, session_id text) IS 'How many ends of a session belong to no call (R4).';

CREATE FUNCTION widget_internal.over_quota(widget_id uuid, events integer, are_counted boolean) RETURNS timestamp with time zone
    LANGUAGE plpgsql
    SET search_path TO ''
    AS $$
declare
  v_now constant timestamptz := clock_timestamp();
  v_settings record;
  v_until timestamptz;
begin
  select s.events_per_count, s.widgets_throttled_until, s.senders_throttled_until into v_settings
  from widget_internal.settings s;

  if v_settings.widgets_throttled_until > v_now then
    select t.until into v_until from widget_internal.throttles t where t.subject = over_quota.widget_id;
    if v_until > v_now then
      return v_until;
    end if;
  end if;
  if v_settings.senders_throttled_until > v_now then
    select t.until into v_until from widget_internal.throttles t where t.subject = widget_internal.sender();
    if v_until > v_now then
      return v_until;
    end if;
  end if;

  if not over_quota.are_counted then
    return null;
  end if;
  return widget_internal.count_event(
    over_quota.widget_id, greatest(over_quota.events, v_settings.events_per_count)
  );
end
$$;

COMMENT ON FUNCTION widget_internal.over_quota(widget_id uuid, events integer, are_counted boolean) IS 'Until when so many more events of a widget are refused by its quota or the sender''s; null where they may be stored. are_counted: whether these are of the sample that is counted, for all (settings.events_per_count).';

CREATE FUNCTION widget_internal.owned_widget_ids() RETURNS SETOF uuid
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO ''
    AS $$
begin
  return query select w.id from public.widgets w where w.owner_id = (select auth.uid());
end
$$;

COMMENT ON FUNCTION widget_internal.owned_widget_ids() IS 'The widgets of the signed-in user, whose rows that user sees everywhere (R10).';

CREATE FUNCTION widget_internal.page_host() RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path TO ''
    AS $$
begin
  -- An Origin that is there decides, even "null": a page that hides its origin is not asked for its referrer.
  return widget_internal.url_host(
    coalesce(widget_internal.request_header('origin'), widget_internal.request_header('referer'))
  );
end
$$;

COMMENT ON FUNCTION widget_internal.page_host() IS 'The host of the page that sent this request, from Origin, else Referer; null where it names none.';

CREATE TABLE public.widget_billing_periods (
    period date NOT NULL,
    period_start timestamp with time zone NOT NULL,
    period_end timestamp with time zone NOT NULL,
    as_of timestamp with time zone NOT NULL,
    closed_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    closed_by text NOT NULL,
    content_hash text NOT NULL,
    CONSTRAINT months_are_over_when_they_are_closed CHECK ((as_of >= period_end)),
    CONSTRAINT periods_are_months CHECK ((EXTRACT(day FROM period) = (1)::numeric)),
    CONSTRAINT periods_end_after_they_start CHECK ((period_end > period_start))
);

COMMENT ON TABLE public.widget_billing_periods IS 'The closed months. Each stays as it is for ever; see close_widget_billing_period().';

COMMENT ON COLUMN public.widget_billing_periods.period IS 'The first day of the month, in the billing time zone.';

COMMENT ON COLUMN public.widget_billing_periods.as_of IS 'What was received by then is in the statement, and nothing else.';

COMMENT ON COLUMN public.widget_billing_periods.closed_by IS 'The database login, with the role and the user of the request if there was one.';

COMMENT ON COLUMN public.widget_billing_periods.content_hash IS 'SHA-256 of the month and of the hashes of its charges (docs/billing.md).';

CREATE FUNCTION widget_internal.period_content(period public.widget_billing_periods) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path TO ''
    AS $$
declare
  v_period constant date := (period_content.period).period;
begin
  return jsonb_build_array(
    v_period::text, widget_internal.as_text(period.period_start), widget_internal.as_text(period.period_end),
    widget_internal.as_text(period.as_of)
  )::text || coalesce((
    select string_agg(E'\n' || c.content_hash, '' order by c.widget_id, c.usage_period)
    from public.widget_statement_charges c
    where c.period = v_period
  ), '');
end
$$;

COMMENT ON FUNCTION widget_internal.period_content(period public.widget_billing_periods) IS 'What a month''s hash is taken of: a line of JSON for the month, then the hash of each charge (docs/billing.md).';

CREATE FUNCTION widget_internal.post_alert(body jsonb) RETURNS bigint
    LANGUAGE plpgsql
    SET search_path TO ''
    AS $_$
declare
  -- By name at run time: the extension may come after these migrations, or never.
  v_schema constant name := 'net';
  v_request_id bigint;
begin
  execute format('select %I.http_post(url := $1, body := $2, timeout_milliseconds := 5000)', v_schema)
  into v_request_id
  using (select s.url from widget_internal.alert_settings s), post_alert.body;
  return v_request_id;
end
$_$;

COMMENT ON FUNCTION widget_internal.post_alert(body jsonb) IS 'Hands a message for the webhook to pg_net, which sends it after commit.';

CREATE FUNCTION widget_internal.priced_calls(period_start timestamp with time zone, period_end timestamp with time zone, as_of timestamp with time zone, only_sessions widget_internal.session_name[] DEFAULT NULL::widget_internal.session_name[], in_sums boolean DEFAULT false) RETURNS TABLE(widget_id uuid, session_id text, call_id text, started_at timestamp with time zone, ended_at timestamp with time zone, outcome text, evidence text, duration_seconds numeric, month date, plan public.widget_plans, billable_seconds numeric, why_not text, calls bigint, times bigint)
    LANGUAGE plpgsql STABLE
    SET search_path TO ''
    SET plan_cache_mode TO 'force_custom_plan'
    AS $$
declare
  v_zone constant text := (select s.billing_time_zone from widget_internal.settings s);
  -- The billing month, where all of the period lies in one: that spares looking at each call's.
  v_month constant date := (
    select m.first
    from (
      select date_trunc('month', priced_calls.period_start at time zone v_zone)::date as first,
        date_trunc('month', (priced_calls.period_end - interval '1 microsecond') at time zone v_zone)::date as last
    ) m
    where m.first = m.last
  );
  v_rounding constant uuid[] := array(
    select w.widget_id from public.widget_plans w where w.increment_seconds > 0 or w.minimum_seconds > 0
  );
begin
  if priced_calls.period_start is null or priced_calls.period_end is null
    or priced_calls.period_end <= priced_calls.period_start
  then
    raise exception 'period_end: must be after period_start' using errcode = 'invalid_parameter_value';
  end if;

  -- One statement for calls and sums, kept and as of: what a call costs is said once. Whatever is not asked for is not run.
  return query
  with kept as not materialized (
    select c.*
    from public.widget_calls c
    where priced_calls.as_of is null
      and c.started_at >= priced_calls.period_start
      and c.started_at < priced_calls.period_end
  ),
  parts as (
    select
      c.*, coalesce(v_month, date_trunc('month', c.started_at at time zone v_zone)::date) as month,
      1::bigint as calls, 1::bigint as times
    from (
      select k.widget_id, k.session_id::text, k.call_id::text, k.started_at, k.ended_at, k.outcome, k.evidence,
        k.duration_seconds
      from kept k
      where not priced_calls.in_sums
      union all
      select a.*
      from widget_internal.calls_as_of(
        priced_calls.period_start, priced_calls.period_end, priced_calls.as_of, priced_calls.only_sessions
      ) a
      where priced_calls.as_of is not null
    ) c
    union all
    -- Where no plan of the widget rounds, calls of one outcome and evidence are all billed to the exact second or all
    -- not at all, so their sum is priced as one call is.
    select
      k.widget_id, null, null, null, null, k.outcome, k.evidence, sum(k.duration_seconds),
      coalesce(v_month, date_trunc('month', k.started_at at time zone v_zone)::date) as month, count(*), 1
    from kept k
    where priced_calls.in_sums and k.widget_id <> all (v_rounding)
    group by k.widget_id, month, k.outcome, k.evidence
    union all
    -- Where one does, only calls of equal length cost the same.
    select
      k.widget_id, null, null, null, null, k.outcome, k.evidence, k.duration_seconds,
      coalesce(v_month, date_trunc('month', k.started_at at time zone v_zone)::date) as month, count(*), count(*)
    from kept k
    where priced_calls.in_sums and k.widget_id = any (v_rounding)
    group by k.widget_id, month, k.outcome, k.evidence, k.duration_seconds
  ),
  planned as (
    select
      c.*, v.plan,
      coalesce((v.plan).minimum_seconds, 0) as minimum, coalesce((v.plan).increment_seconds, 0) as increment,
      case
        when c.outcome = 'open' then 'open calls are not billed yet'
        -- Before any minimum: an operator who sets a call to nothing means that it costs nothing.
        when c.evidence = 'operator' and c.duration_seconds = 0 then 'void'
        when c.outcome = 'failed' and (v.plan).bills_failed_calls is not true then 'failed calls are not billed'
        when c.evidence = 'assumed' and (v.plan).assumed_calls = 'none' then 'assumed ends are not billed'
      end as why_not
    from parts c
    left join widget_internal.plan_validity v
      on v.widget_id = c.widget_id and c.month >= v.valid_from and c.month < v.valid_until
  )
  select
    p.widget_id, p.session_id, p.call_id, p.started_at, p.ended_at, p.outcome, p.evidence, p.duration_seconds,
    p.month, p.plan,
    case
      when p.why_not is not null then 0
      when p.increment > 0 then ceil(greatest(p.duration_seconds, p.minimum) / p.increment) * p.increment
      else greatest(p.duration_seconds, p.minimum)
    end,
    p.why_not, p.calls, p.times
  from planned p;
end
$$;

COMMENT ON FUNCTION widget_internal.priced_calls(period_start timestamp with time zone, period_end timestamp with time zone, as_of timestamp with time zone, only_sessions widget_internal.session_name[], in_sums boolean) IS 'calls_as_of(), each with its billing month, the plan that holds then, what that plan makes of it, and why that is nothing. in_sums: instead, those that are priced alike in one row: how many calls they are, and how many times the row''s billable_seconds they are billed.';

CREATE FUNCTION widget_internal.prune() RETURNS TABLE(cleanup_runs bigint, refusal_counts bigint, job_runs bigint, erased_events bigint)
    LANGUAGE plpgsql
    SET search_path TO ''
    AS $$
declare
  v_settings widget_internal.settings;
  v_jobs bigint[];
  v_last bigint;
begin
  select s.* into strict v_settings from widget_internal.settings s;

  -- The latest stays, however old: it says since when there was none.
  delete from public.widget_cleanup_runs r
  where r.started_at < now() - v_settings.keep_runs
    and r.id < (select max(l.id) from public.widget_cleanup_runs l);
  get diagnostics prune.cleanup_runs = row_count;

  delete from widget_internal.refusal_counts c where c.hour < now() - v_settings.keep_refusals;
  get diagnostics prune.refusal_counts = row_count;

  prune.job_runs := 0;
  if to_regclass('cron.job_run_details') is not null then
    -- By number up to the youngest that is too old: a run that a crash cut short has no time of its own.
    select array_agg(j.jobid) into v_jobs from cron.job j where j.jobname = any (widget_internal.scheduled_jobs());
    select max(d.runid) into v_last
    from cron.job_run_details d
    where d.jobid = any (v_jobs) and coalesce(d.end_time, d.start_time) < now() - v_settings.keep_runs;
    delete from cron.job_run_details d where d.jobid = any (v_jobs) and d.runid <= v_last;
    get diagnostics prune.job_runs = row_count;
  end if;

  prune.erased_events := widget_internal.erase_late_events();
  return next;
end
$$;

COMMENT ON FUNCTION widget_internal.prune() IS 'Removes notes of runs that are older than settings.keep_runs and counts of refusals older than keep_refusals, and says how many; repeats the erasures of the last days, for events that came late. Touches neither calls nor bills, nor any job that is not ours.';

CREATE FUNCTION widget_internal.quota_refusal(widget_id uuid, until timestamp with time zone, events integer) RETURNS jsonb
    LANGUAGE plpgsql
    SET search_path TO ''
    AS $$
declare
  v_seconds constant integer := greatest(1, ceil(extract(epoch from quota_refusal.until - clock_timestamp())));
  v_detail text;
begin
  -- Whoever floods must not make the database write at each refusal.
  if random() * 16 < quota_refusal.events then
    v_detail := case when exists (
      select from widget_internal.throttles t where t.subject = quota_refusal.widget_id and t.until > clock_timestamp()
    ) then 'widget' else 'sender' end;
    perform widget_internal.count_refusals(array_fill(
      (quota_refusal.widget_id, 'over_quota', v_detail)::widget_internal.refusal,
      array[greatest(16, quota_refusal.events)]
    ));
  end if;

  perform set_config('response.headers', jsonb_build_array(jsonb_build_object('Retry-After', v_seconds::text))::text, true);
  -- A page on another origin cannot read the header, so the body says it too.
  return widget_internal.refusal_answer(
    429, '53400', 'over quota: this widget, or this sender, has sent more events than are taken'
  ) || jsonb_build_object('retry_after', v_seconds);
end
$$;

COMMENT ON FUNCTION widget_internal.quota_refusal(widget_id uuid, until timestamp with time zone, events integer) IS 'Counts so many refused events, and makes the REST answer a 429 with Retry-After, in seconds, in header and body.';

CREATE FUNCTION widget_internal.rank_response_times(received_after timestamp with time zone, received_to timestamp with time zone) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO ''
    AS $$
begin
  update widget_internal.health_hours h
  set response_ms_median = q.median, response_ms_p95 = q.p95
  from (
    select distinct e.widget_id, date_trunc('hour', e."timestamp", 'UTC') as hour
    from public.widget_analytics e
    where e.received_at > rank_response_times.received_after
      and e.received_at <= rank_response_times.received_to
      and e.properties ? 'rtt_ms'
  ) d
  cross join lateral (
    select
      min(t.milliseconds) filter (where t.up_to >= 0.5 * t.all_of_them) as median,
      min(t.milliseconds) filter (where t.up_to >= 0.95 * t.all_of_them) as p95
    from (
      select
        r.milliseconds, sum(r.answers) over (order by r.milliseconds) as up_to, sum(r.answers) over () as all_of_them
      from public.widget_response_times r
      where r.widget_id = d.widget_id and r.hour = d.hour
    ) t
  ) q
  where h.widget_id = d.widget_id and h.hour = d.hour;
end
$$;

COMMENT ON FUNCTION widget_internal.rank_response_times(received_after timestamp with time zone, received_to timestamp with time zone) IS 'Median and 95th percentile of the hours of which response times were received in (received_after, received_to].';

CREATE FUNCTION widget_internal.rated_calls(period_start timestamp with time zone, period_end timestamp with time zone, as_of timestamp with time zone, only_sessions widget_internal.session_name[] DEFAULT NULL::widget_internal.session_name[]) RETURNS TABLE(widget_id uuid, session_id text, call_id text, started_at timestamp with time zone, ended_at timestamp with time zone, outcome text, evidence text, duration_seconds numeric, month date, plan public.widget_plans, billable_seconds numeric, rule text)
    LANGUAGE plpgsql STABLE
    SET search_path TO ''
    AS $$
begin
  return query
  select
    c.widget_id, c.session_id, c.call_id, c.started_at, c.ended_at, c.outcome, c.evidence, c.duration_seconds,
    c.month, c.plan, c.billable_seconds,
    case
      when c.why_not is not null then c.why_not
      when coalesce((c.plan).minimum_seconds, 0) = 0 and coalesce((c.plan).increment_seconds, 0) = 0
        then 'exact duration'
      else concat_ws(
        ', ', 'at least ' || nullif((c.plan).minimum_seconds, 0) || ' s',
        'in steps of ' || nullif((c.plan).increment_seconds, 0) || ' s'
      )
    end
    || coalesce(' (plan "' || (c.plan).name || '" from ' || left((c.plan).valid_from::text, 7) || ')', '')
    || case when c.evidence = 'operator' then coalesce(
      widget_internal.correction_note(c.widget_id, c.session_id, c.call_id, rated_calls.as_of), ''
    ) else '' end
  from widget_internal.priced_calls(
    rated_calls.period_start, rated_calls.period_end, rated_calls.as_of, rated_calls.only_sessions
  ) c;
end
$$;

COMMENT ON FUNCTION widget_internal.rated_calls(period_start timestamp with time zone, period_end timestamp with time zone, as_of timestamp with time zone, only_sessions widget_internal.session_name[]) IS 'priced_calls(), each with the rule that says how its plan came to its seconds.';

CREATE FUNCTION widget_internal.read_only_answer() RETURNS jsonb
    LANGUAGE plpgsql
    SET search_path TO ''
    AS $$
begin
  -- Left to itself the answer would be a 405, which tells a sender to give up.
  return widget_internal.refusal_answer(503, '25006', 'the database is read-only just now', 'Send the same again later.');
end
$$;

COMMENT ON FUNCTION widget_internal.read_only_answer() IS 'Makes the REST answer a 503: the sender is to keep its events.';

CREATE FUNCTION widget_internal.rebuild_health() RETURNS bigint
    LANGUAGE plpgsql
    SET search_path TO ''
    AS $$
begin
  if isfinite(widget_internal.health_archived_to()) then
    raise exception 'health cannot be counted anew: events up to % are in the archive, and their counts would be lost',
      widget_internal.health_archived_to()
      using errcode = 'object_not_in_prerequisite_state', hint = 'What is counted of archived months stays as it is.';
  end if;

  perform from widget_internal.health_state for update;
  delete from widget_internal.health_sessions;
  delete from widget_internal.health_hours;
  delete from widget_internal.health_calls;
  delete from widget_internal.health_response_times;
  delete from widget_internal.health_pages;
  update widget_internal.health_state set counted_to = '-infinity';
  return (select r.events_counted from public.refresh_widget_health() r);
end
$$;

COMMENT ON FUNCTION widget_internal.rebuild_health() IS 'Counts the whole ledger anew. Needed only after somebody changed or deleted events by hand, or gave new ones a received_at of their own that lies in the past: those the refresh cannot notice.';

CREATE FUNCTION widget_internal.receipt_time() RETURNS timestamp with time zone
    LANGUAGE plpgsql
    SET search_path TO ''
    AS $$
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

COMMENT ON FUNCTION widget_internal.receipt_time() IS 'The moment at which the database takes an event in: later than every cut_off() that the event is not counted in.';

CREATE FUNCTION widget_internal.receipts_key() RETURNS bigint
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    SET search_path TO ''
    AS $$
begin
  return hashtextextended('widget_internal: receipts', 0);
end
$$;

COMMENT ON FUNCTION widget_internal.receipts_key() IS 'The key of the advisory lock that writers share, and that cut_off() takes alone.';

CREATE FUNCTION widget_internal.recompute_capped_calls() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO ''
    AS $$
declare
  v_widget_ids uuid[];
  v_session_ids text[];
begin
  perform widget_internal.lock_sessions(null);
  select array_agg(s.widget_id), array_agg(s.session_id) into v_widget_ids, v_session_ids
  from (
    select distinct c.widget_id, c.session_id
    from public.widget_calls c
    where c.ended_at - c.started_at >= least(old.max_call_duration, new.max_call_duration)
  ) s;
  perform widget_internal.refresh_calls(v_widget_ids, v_session_ids);
  return null;
end
$$;

COMMENT ON FUNCTION widget_internal.recompute_capped_calls() IS 'After max_call_duration changed: computes the calls again that the old or the new limit cuts.';

CREATE FUNCTION widget_internal.record_event(widget_id uuid, event_type text, session_id text, page_url text, event_id uuid, call_id text, seq integer, age_ms bigint, properties jsonb) RETURNS jsonb
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO ''
    AS $$
declare
  v_headers constant text := current_setting('request.headers', true);
  v_page_host text;
  v_user_agent text;
  v_door record;
  v_verdict text := 'open';
  v_is_plain boolean;
  v_problem text;
  v_received_at timestamptz;
  v_happened_at timestamptz;
  v_may_be_throttled boolean;
  v_is_counted boolean;
  v_until timestamptz;
  v_keeps_calls boolean;
  v_is_new boolean;
begin
  if current_setting('transaction_read_only') = 'on' then
    if widget_internal.is_read_only() then
      return widget_internal.read_only_answer();
    end if;
  end if;

  -- As receipt_time() does it. Held from here to the end of the transaction: later than every cut_off() that does not count
  -- this event, and before the widget may be deleted (keep_widgets_with_events()).
  if nullif(current_setting('widget_internal.receipt_time', true), '') is not null then
    v_received_at := widget_internal.receipt_time();
  else
    if not pg_try_advisory_xact_lock_shared(widget_internal.receipts_key()) then
      perform pg_advisory_xact_lock_shared(widget_internal.receipts_key());
    end if;
    v_received_at := clock_timestamp();
  end if;

  v_door := widget_internal.widget_door(record_event.widget_id);
  -- Most pages: https, no port, a host that the widget names as it is.
  v_page_host := split_part(split_part(v_headers, '"origin":"https://', 2), '"', 1);
  v_is_plain := v_door.is_active and not v_door.is_demo
    and v_page_host = any (v_door.allowed_domains) and strpos(v_page_host, '*') = 0;
  if v_is_plain is not true then
    v_verdict := widget_internal.ask_door(record_event.widget_id);
    if v_verdict not in ('open', 'demo') then
      perform widget_internal.count_refusals(
        array[widget_internal.door_refusal(v_verdict, record_event.widget_id, widget_internal.page_host())]
      );
      return widget_internal.refusal_answer(403, '42501', widget_internal.door_problem());
    end if;
  end if;

  -- A character has at least one byte.
  v_is_plain := properties is null
    and event_type in ('widget_load', 'widget_open', 'call_start', 'call_heartbeat', 'call_end', 'call_error')
    and octet_length(session_id) <= 255 and session_id <> ''
    and (seq is null or seq >= 1)
    and (age_ms is null or age_ms <= 604800000);
  if v_is_plain and call_id is not null then
    v_is_plain := octet_length(call_id) <= 255 and call_id <> '';
  end if;
  if v_is_plain is not true then
    -- A gateway may pass a form field of JSON on as a string.
    properties := nullif(widget_internal.unwrap_json(properties), 'null');
    v_problem := widget_internal.event_problem(event_type, session_id, call_id, seq, age_ms, properties);
    if v_problem is not null then
      return widget_internal.refuse_input(record_event.widget_id, v_problem);
    end if;
  end if;
  if v_verdict = 'demo' then
    return '{"accepted": 1, "duplicates": 0, "rejected": []}'::jsonb;
  end if;

  select greatest(s.widgets_throttled_until, s.senders_throttled_until) > v_received_at, random() * s.events_per_count < 1
  into v_may_be_throttled, v_is_counted
  from widget_internal.settings s;
  if v_may_be_throttled or v_is_counted then
    v_until := widget_internal.over_quota(record_event.widget_id, 1, v_is_counted);
    if v_until is not null then
      return widget_internal.quota_refusal(record_event.widget_id, v_until, 1);
    end if;
  end if;

  if event_id is null then
    event_id := widget_internal.uuid_v7();
  end if;
  if page_url ~ '[?#@]' or octet_length(page_url) > 2048 then
    page_url := widget_internal.bare_page_url(page_url);
  end if;
  -- It is the longest field: a session has it once.
  if event_type = 'widget_load' or seq is null or seq = 1 then
    v_user_agent := nullif(split_part(split_part(v_headers, '"user-agent":"', 2), '"', 1), '');
    if v_user_agent is null or strpos(v_user_agent, '\') > 0 or octet_length(v_user_agent) > 512 then
      v_user_agent := widget_internal.bare_user_agent();
    end if;
  end if;
  v_happened_at := v_received_at - greatest(age_ms, 0) * interval '1 millisecond';

  -- Any other isolation is left to the trigger, which knows what it needs.
  v_keeps_calls := current_setting('transaction_isolation') = 'read committed';
  if v_keeps_calls then
    perform set_config('widget_internal.door_stores', 'yes', true);
  end if;
  insert into public.widget_analytics (
    id, widget_id, event_type, session_id, page_url, user_agent, "timestamp", call_id, seq, source, received_at, properties
  )
  values (
    record_event.event_id, record_event.widget_id, record_event.event_type, record_event.session_id,
    record_event.page_url, v_user_agent, v_happened_at, record_event.call_id, record_event.seq, 'browser', v_received_at,
    record_event.properties
  )
  on conflict do nothing;
  v_is_new := found;
  perform set_config('widget_internal.door_stores', '', true);

  if not v_is_new then
    return '{"accepted": 0, "duplicates": 1, "rejected": []}'::jsonb;
  elsif v_keeps_calls and event_type like 'call\_%' then
    perform widget_internal.keep_calls(record_event.widget_id, record_event.session_id, event_type = 'call_heartbeat');
  end if;
  return '{"accepted": 1, "duplicates": 0, "rejected": []}'::jsonb;
end
$$;

COMMENT ON FUNCTION widget_internal.record_event(widget_id uuid, event_type text, session_id text, page_url text, event_id uuid, call_id text, seq integer, age_ms bigint, properties jsonb) IS 'What track_event() does, with the right to write the ledger.';

CREATE FUNCTION widget_internal.record_events(events jsonb) RETURNS jsonb
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO ''
    SET plan_cache_mode TO 'force_generic_plan'
    AS $_$
declare
  v_fields constant text[] := array[
    'widget_id', 'event_type', 'session_id', 'page_url', 'event_id', 'call_id', 'seq', 'age_ms', 'properties'
  ];
  v_a_uuid constant text := '^[0-9a-fA-F]{8}-?([0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}$';
  -- Begins as JSON that is neither string nor number: where it could be one, the functions look.
  v_no_text constant text := '^([{[]|true$|false$)';
  v_events constant jsonb := widget_internal.unwrap_json(record_events.events);
  v_keeps_calls constant boolean := current_setting('transaction_isolation') = 'read committed';
  v_received_at timestamptz;
  v_user_agent text;
  v_index integer := -1;
  v_event jsonb;
  v_widget_id uuid;
  v_asked_for text;
  v_verdict text;
  v_problem text;
  v_seq text;
  v_age_ms text;
  v_refusals widget_internal.refusal[] := array[]::widget_internal.refusal[];
  v_rejected jsonb := jsonb_build_array();
  v_good public.widget_analytics[] := array[]::public.widget_analytics[];
  v_indexes integer[] := array[]::integer[];
  v_quota record;
  v_until timestamptz;
  v_over_quota uuid[] := array[]::uuid[];
  v_quota_refusal jsonb := '{}'::jsonb;
  v_stored record;
  v_demos integer := 0;
begin
  if widget_internal.is_read_only() then
    return widget_internal.read_only_answer();
  elsif jsonb_typeof(v_events) is distinct from 'array' then
    return widget_internal.refusal_answer(400, '22023', 'events: must be a JSON array of events');
  elsif jsonb_array_length(v_events) > 1000 then
    return widget_internal.refusal_answer(413, '54000', 'events: must be at most 1000 in one call');
  end if;

  -- As in record_event(): all that follows is later than earlier bills, and before a widget's end.
  v_received_at := widget_internal.receipt_time();
  v_user_agent := widget_internal.bare_user_agent();

  for v_event in select e.value from jsonb_array_elements(v_events) e loop
    v_index := v_index + 1;
    -- A batch is mostly one widget's: ask once.
    if v_asked_for is distinct from v_event ->> 'widget_id' then
      v_asked_for := v_event ->> 'widget_id';
      v_widget_id := widget_internal.to_uuid(v_asked_for);
      v_verdict := widget_internal.ask_door(v_widget_id);
    end if;

    v_problem := null;
    if v_widget_id is null then
      v_problem := 'widget_id: must be a UUID';
      v_refusals := v_refusals || (null, 'invalid_input', 'widget_id')::widget_internal.refusal;
    elsif v_verdict not in ('open', 'demo') then
      v_problem := widget_internal.door_problem();
      v_refusals := v_refusals || widget_internal.door_refusal(v_verdict, v_widget_id, widget_internal.page_host());
    else
      v_seq := v_event ->> 'seq';
      v_age_ms := v_event ->> 'age_ms';
      -- Nearly all are plainly good; of the others the functions say what is wrong, if anything is.
      if (
        v_event - v_fields = '{}' and not v_event ? 'properties'
        and v_event ->> 'event_type' in ('widget_load', 'widget_open', 'call_start', 'call_heartbeat', 'call_end', 'call_error')
        and length(v_event ->> 'session_id') between 1 and 255 and v_event ->> 'session_id' !~ v_no_text
        and (v_event ->> 'call_id' is null
          or length(v_event ->> 'call_id') between 1 and 255 and v_event ->> 'call_id' !~ v_no_text)
        and (v_event ->> 'event_id' is null or v_event ->> 'event_id' ~ v_a_uuid)
        and (v_event ->> 'page_url' is null or v_event ->> 'page_url' !~ v_no_text)
        and (v_seq is null or v_seq ~ '^[1-9][0-9]{0,8}$')
        and (v_age_ms is null or v_age_ms ~ '^[0-9]{1,8}$')
      ) is not true then
        v_problem := coalesce(
          widget_internal.json_event_problem(v_event),
          widget_internal.event_problem(
            v_event ->> 'event_type', v_event ->> 'session_id', v_event ->> 'call_id', v_seq::integer,
            v_age_ms::numeric::bigint, v_event -> 'properties'
          )
        );
      end if;

      if v_problem is not null then
        v_refusals := v_refusals
          || (v_widget_id, 'invalid_input', split_part(v_problem, ':', 1))::widget_internal.refusal;
      elsif v_verdict = 'demo' then
        v_demos := v_demos + 1;
      else
        v_good := v_good || row(
          coalesce((v_event ->> 'event_id')::uuid, widget_internal.uuid_v7()), v_widget_id, v_event ->> 'event_type',
          v_event ->> 'session_id', widget_internal.bare_page_url(v_event ->> 'page_url'),
          case when v_seq is null or v_seq::integer = 1 or v_event ->> 'event_type' = 'widget_load' then v_user_agent end,
          v_received_at - greatest(v_age_ms::numeric::bigint, 0) * interval '1 millisecond',
          v_event ->> 'call_id', v_seq::integer, 'browser', v_received_at, nullif(v_event -> 'properties', 'null')
        )::public.widget_analytics;
        v_indexes := v_indexes || v_index;
      end if;
    end if;

    if v_problem is not null then
      v_rejected := v_rejected || jsonb_build_object('index', v_index, 'reason', v_problem);
    end if;
  end loop;

  for v_quota in
    select n.widget_id, count(*)::integer as events, random() * s.events_per_count < count(*) as are_counted
    from unnest(v_good) n cross join widget_internal.settings s
    group by n.widget_id, s.events_per_count
    order by n.widget_id
  loop
    v_until := widget_internal.over_quota(v_quota.widget_id, v_quota.events, v_quota.are_counted);
    if v_until is not null then
      v_over_quota := v_over_quota || v_quota.widget_id;
      v_quota_refusal := widget_internal.quota_refusal(v_quota.widget_id, v_until, v_quota.events);
    end if;
  end loop;

  perform set_config('widget_internal.door_stores', case when v_keeps_calls then 'yes' else '' end, true);
  with stored as (
    insert into public.widget_analytics
    select n.* from unnest(v_good) n where n.widget_id <> all (v_over_quota)
    on conflict do nothing
    returning widget_id, session_id, event_type
  ),
  sessions as (
    select
      s.widget_id, s.session_id, count(*) as events, count(*) filter (where s.event_type like 'call\_%') as call_events,
      count(*) filter (where s.event_type = 'call_heartbeat') as heartbeats
    from stored s
    group by s.widget_id, s.session_id
  )
  select
    coalesce(sum(s.events), 0) as events,
    array_agg(s.widget_id) filter (where s.call_events > 0) as widget_ids,
    array_agg(s.session_id::text) filter (where s.call_events > 0) as session_ids,
    array_agg(s.call_events = s.heartbeats) filter (where s.call_events > 0) as have_only_heartbeats
  into v_stored
  from sessions s;
  perform set_config('widget_internal.door_stores', '', true);

  if v_keeps_calls and v_stored.widget_ids is not null then
    perform widget_internal.keep_calls(v_stored.widget_ids, v_stored.session_ids, v_stored.have_only_heartbeats);
  end if;
  if v_refusals <> '{}' then
    perform widget_internal.count_refusals(v_refusals);
  end if;

  -- Sent again as a whole once there is room, the events that are stored now are duplicates then.
  if v_over_quota <> '{}' then
    v_rejected := v_rejected || (
      select jsonb_agg(jsonb_build_object('index', v_indexes[n.ordinality], 'reason', v_quota_refusal ->> 'message'))
      from unnest(v_good) with ordinality n
      where n.widget_id = any (v_over_quota)
    );
  end if;
  return v_quota_refusal || jsonb_build_object(
    'accepted', v_stored.events + v_demos,
    'duplicates', (
      select count(*) filter (where n.widget_id <> all (v_over_quota)) from unnest(v_good) n
    ) - v_stored.events,
    'rejected', v_rejected
  );
end
$_$;

COMMENT ON FUNCTION widget_internal.record_events(events jsonb) IS 'What track_events() does, with the right to write the ledger.';

CREATE FUNCTION widget_internal.refresh_calls(widget_ids uuid[], session_ids text[]) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO ''
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
#variable_conflict use_column
begin
  insert into public.widget_calls as c (widget_id, session_id, call_id, started_at, ended_at, outcome, evidence)
  select s.widget_id, s.session_id, s.call_id, s.started_at, s.ended_at, s.outcome, s.evidence
  from widget_internal.calls_of_sessions(refresh_calls.widget_ids, refresh_calls.session_ids) s
  on conflict (widget_id, session_id, call_id) do update
  set started_at = excluded.started_at, ended_at = excluded.ended_at,
    outcome = excluded.outcome, evidence = excluded.evidence
  where (c.started_at, c.ended_at, c.outcome, c.evidence)
    is distinct from (excluded.started_at, excluded.ended_at, excluded.outcome, excluded.evidence);
end
$$;

COMMENT ON FUNCTION widget_internal.refresh_calls(widget_ids uuid[], session_ids text[]) IS 'Brings widget_calls up to date with these sessions'' events. The arrays are parallel; the caller holds the sessions.';

CREATE FUNCTION widget_internal.refusal_answer(status integer, code text, message text, hint text DEFAULT NULL::text) RETURNS jsonb
    LANGUAGE plpgsql
    SET search_path TO ''
    AS $$
begin
  -- Not raised: that would undo the count of the refusal. The body has the shape of PostgREST's errors.
  perform set_config('response.status', refusal_answer.status::text, true);
  return jsonb_build_object(
    'code', refusal_answer.code, 'message', refusal_answer.message, 'details', null, 'hint', refusal_answer.hint
  );
end
$$;

COMMENT ON FUNCTION widget_internal.refusal_answer(status integer, code text, message text, hint text) IS 'Makes the REST answer one of this HTTP status and returns its body.';

CREATE FUNCTION widget_internal.refuse_addition() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO ''
    AS $$
begin
  -- A statement's month is written last, and with it the statement is complete.
  if exists (select from added a join public.widget_billing_periods p on p.period = a.period) then
    raise exception 'closed statements never change' using errcode = 'object_not_in_prerequisite_state',
      hint = 'What arrives late appears as an adjustment in the next month that is closed.';
  end if;
  return null;
end
$$;

COMMENT ON FUNCTION widget_internal.refuse_addition() IS 'After an insert of charges or lines: refuses those of a closed month.';

CREATE FUNCTION widget_internal.refuse_archived_period(period_start timestamp with time zone) RETURNS void
    LANGUAGE plpgsql STABLE
    SET search_path TO ''
    AS $$
declare
  v_month constant date := widget_internal.last_archived_month();
begin
  if isfinite(v_month) and refuse_archived_period.period_start < (widget_internal.month_bounds(v_month)).period_end then
    raise exception 'period_start: the calls up to the end of % are in the archive, no longer in this database',
      to_char(v_month, 'YYYY-MM')
      using errcode = 'invalid_parameter_value', hint = 'The statements of closed months are still here. For all else '
        'of these months: widget-analytics bill --archive PLACE --month YYYY-MM';
  end if;
end
$$;

COMMENT ON FUNCTION widget_internal.refuse_archived_period(period_start timestamp with time zone) IS 'Raises for a period that begins in the archive: what is left here of it would be too small a bill.';

CREATE FUNCTION widget_internal.refuse_archived_session(widget_id uuid, session_id text) RETURNS void
    LANGUAGE plpgsql STABLE
    SET search_path TO ''
    AS $$
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

COMMENT ON FUNCTION widget_internal.refuse_archived_session(widget_id uuid, session_id text) IS 'Raises for a session that is in the archive.';

CREATE FUNCTION widget_internal.refuse_change() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO ''
    AS $$
begin
  raise exception 'closed statements never change' using errcode = 'object_not_in_prerequisite_state',
    hint = 'What arrives late appears as an adjustment in the next month that is closed.';
end
$$;

COMMENT ON FUNCTION widget_internal.refuse_change() IS 'Before any update, delete or truncate of a statement: refuses it.';

CREATE FUNCTION widget_internal.refuse_input(widget_id uuid, problem text) RETURNS jsonb
    LANGUAGE plpgsql
    SET search_path TO ''
    AS $$
begin
  perform widget_internal.count_refusals(array[
    (refuse_input.widget_id, 'invalid_input', split_part(refuse_input.problem, ':', 1))::widget_internal.refusal
  ]);
  return widget_internal.refusal_answer(400, '22023', refuse_input.problem);
end
$$;

COMMENT ON FUNCTION widget_internal.refuse_input(widget_id uuid, problem text) IS 'Counts an event that is not as it must be, and makes the REST answer a 400.';

CREATE FUNCTION widget_internal.refuse_to_archive(month date) RETURNS void
    LANGUAGE plpgsql STABLE
    SET search_path TO ''
    AS $$
declare
  v_bounds constant record := widget_internal.month_bounds(refuse_to_archive.month);
  v_next date;
  v_problem text;
begin
  select (max(a.month) + interval '1 month')::date into v_next from public.widget_archives a;
  if v_next is null then
    select date_trunc('month', min(e."timestamp") at time zone s.billing_time_zone)::date into v_next
    from public.widget_analytics e cross join widget_internal.settings s
    group by s.billing_time_zone;
  end if;
  v_problem := case
    when not exists (select from public.widget_billing_periods p where p.period = refuse_to_archive.month)
      then 'is not closed; close it first: select * from close_widget_billing_period(''YYYY-MM'')'
    when v_bounds.period_end > now() - interval '35 days'
      then 'ended less than 35 days ago; late events of it are still to be expected'
    when refuse_to_archive.month <> v_next then 'is not the next month to archive, that is ' || to_char(v_next, 'YYYY-MM')
    when exists (select from public.widget_archives a where a.released_at is null)
      then 'has to wait: the archive of the month before it is not finished'
  end;
  if v_problem is not null then
    raise exception 'month: % %', to_char(refuse_to_archive.month, 'YYYY-MM'), v_problem
      using errcode = 'invalid_parameter_value';
  end if;
end
$$;

COMMENT ON FUNCTION widget_internal.refuse_to_archive(month date) IS 'Raises unless the month is closed, long over, and the next one to archive.';

CREATE FUNCTION widget_internal.refuse_to_close(month date) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO ''
    AS $$
declare
  v_end constant timestamptz := (widget_internal.month_bounds(month)).period_end;
  v_earlier date;
begin
  if v_end > clock_timestamp() then
    raise exception 'period: % is not over before %', to_char(month, 'YYYY-MM'), v_end
      using errcode = 'invalid_parameter_value', hint = 'Close it then.';
  end if;

  select min(m.earlier) into v_earlier
  from (
    select distinct date_trunc('month', c.started_at at time zone s.billing_time_zone)::date as earlier
    from public.widget_calls c
    cross join widget_internal.settings s
    where c.started_at < (widget_internal.month_bounds(refuse_to_close.month)).period_start
  ) m
  where not exists (select from public.widget_billing_periods p where p.period = m.earlier);
  if v_earlier is not null then
    raise exception 'period: % has calls and is not closed', to_char(v_earlier, 'YYYY-MM')
      using errcode = 'invalid_parameter_value', hint = 'Close the earlier month first.';
  end if;
end
$$;

COMMENT ON FUNCTION widget_internal.refuse_to_close(month date) IS 'Raises unless the month is over, and all earlier months that have calls are closed.';

CREATE FUNCTION widget_internal.release_archived_chunk(month date, chunk integer, events bigint, digest_sum text) RETURNS bigint
    LANGUAGE plpgsql
    SET search_path TO ''
    AS $$
#variable_conflict use_column
declare
  v_archive public.widget_archives;
  v_deleted bigint;
begin
  select a.* into v_archive from public.widget_archives a where a.month = release_archived_chunk.month for share;
  if v_archive.manifest_hash is null or release_archived_chunk.chunk < 1 then
    raise exception 'chunk % of % is not to be released', release_archived_chunk.chunk, release_archived_chunk.month
      using errcode = 'object_not_in_prerequisite_state', hint = 'Run `widget-analytics archive` from its start.';
  end if;
  -- Whoever closes a month reads the ledger several times, and must see the same.
  perform pg_advisory_xact_lock_shared(widget_internal.closing_key());
  if not exists (
    select from widget_internal.sessions_to_archive s where s.chunk = release_archived_chunk.chunk
  ) then
    return 0;
  end if;
  if not exists (
    select from widget_internal.archive_sums(release_archived_chunk.chunk, release_archived_chunk.chunk, 'infinity') s
    where s.events = release_archived_chunk.events and s.digest_sum = release_archived_chunk.digest_sum
  ) then
    raise exception 'the archive does not hold what the ledger holds of chunk % of %; nothing of it was released',
      release_archived_chunk.chunk, release_archived_chunk.month using errcode = 'data_corrupted';
  end if;

  delete from public.widget_analytics e
  using widget_internal.events_to_archive a
  where a.chunk = release_archived_chunk.chunk and e.id = a.id and e.widget_id = a.widget_id;
  get diagnostics v_deleted = row_count;
  if v_deleted <> release_archived_chunk.events then
    raise exception 'chunk % of % changed while it was released', release_archived_chunk.chunk,
      release_archived_chunk.month using errcode = 'data_corrupted';
  end if;
  delete from widget_internal.sessions_to_archive s where s.chunk = release_archived_chunk.chunk;
  return v_deleted;
end
$$;

COMMENT ON FUNCTION widget_internal.release_archived_chunk(month date, chunk integer, events bigint, digest_sum text) IS 'Deletes a chunk''s events, and with them their calls, if the files'' count and sum are those of the rows that go. Again: changes nothing.';

CREATE FUNCTION widget_internal.repost_alerts() RETURNS void
    LANGUAGE plpgsql
    SET search_path TO ''
    AS $_$
declare
  v_schema constant name := 'net';
begin
  -- pg_net tries once and keeps the answer for some hours: what got no 2xx is posted again, for a day.
  execute format(
    $sql$
      update widget_internal.alert_posts p set taken = true
      from %I._http_response r
      where r.id = p.request_id and not p.taken and r.status_code between 200 and 299
    $sql$,
    v_schema
  );
  update widget_internal.alert_posts p
  set request_id = widget_internal.post_alert(p.body), posted_at = clock_timestamp()
  where not p.taken
    and p.posted_at < clock_timestamp() - interval '1 minute'
    and p.first_posted_at > clock_timestamp() - interval '1 day';
  delete from widget_internal.alert_posts p where p.first_posted_at < clock_timestamp() - interval '30 days';
end
$_$;

COMMENT ON FUNCTION widget_internal.repost_alerts() IS 'Posts again what the webhook did not take.';

CREATE FUNCTION widget_internal.request_header(name text) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path TO ''
    AS $$
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

COMMENT ON FUNCTION widget_internal.request_header(name text) IS 'A header of the REST request, by its lower-case name; null where there is no such header or no request.';

CREATE FUNCTION widget_internal.restore_archived_session(widget_id uuid, session_id text, events jsonb) RETURNS bigint
    LANGUAGE plpgsql
    SET search_path TO ''
    AS $$
#variable_conflict use_column
declare
  v_key constant uuid := widget_internal.archived_session_key(
    restore_archived_session.widget_id, restore_archived_session.session_id
  );
  v_restored bigint;
begin
  if exists (select from public.widget_archives a where a.released_at is null) then
    raise exception 'a month is being archived' using errcode = 'object_not_in_prerequisite_state',
      hint = 'Let `widget-analytics archive` end first.';
  end if;
  delete from widget_internal.archived_sessions a where a.session_key = v_key;
  if not found then
    return 0;
  end if;
  insert into public.widget_analytics
  select e.* from jsonb_populate_recordset(null::public.widget_analytics, restore_archived_session.events) e
  on conflict do nothing;
  get diagnostics v_restored = row_count;
  perform widget_internal.return_late_events();
  return v_restored;
end
$$;

COMMENT ON FUNCTION widget_internal.restore_archived_session(widget_id uuid, session_id text, events jsonb) IS 'Puts a session''s events from the archive back into the ledger, and then those that came late. Again: changes nothing.';

CREATE FUNCTION widget_internal.return_late_events() RETURNS bigint
    LANGUAGE plpgsql
    SET search_path TO ''
    AS $$
declare
  v_returned bigint;
begin
  with returned as (
    delete from public.widget_late_events l
    where not exists (
      select from widget_internal.archived_sessions a
      where a.session_key = widget_internal.archived_session_key(l.widget_id, l.session_id)
    )
    returning l.event
  )
  insert into public.widget_analytics
  select e.* from returned r, jsonb_populate_record(null::public.widget_analytics, r.event) e
  on conflict do nothing;
  get diagnostics v_returned = row_count;
  return v_returned;
end
$$;

COMMENT ON FUNCTION widget_internal.return_late_events() IS 'Puts late events whose sessions are not archived, or no longer, into the ledger.';

CREATE FUNCTION widget_internal.scheduled_jobs() RETURNS text[]
    LANGUAGE plpgsql IMMUTABLE
    SET search_path TO ''
    AS $$
begin
  return array[
    'widget_complete_stale_sessions', 'widget_refresh_health', 'widget_send_alerts', 'widget_forget_senders',
    'widget_prune'
  ];
end
$$;

COMMENT ON FUNCTION widget_internal.scheduled_jobs() IS 'The names of our own pg_cron jobs: of no other job''s runs is a note ever removed.';

CREATE FUNCTION widget_internal.seal_archive(month date, place text) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO ''
    AS $$
#variable_conflict use_column
declare
  v_end constant timestamptz := (widget_internal.month_bounds(seal_archive.month)).period_end;
  v_place text;
begin
  select a.place into v_place from public.widget_archives a where a.month = seal_archive.month;
  if not exists (
    select from pg_trigger t
    where t.tgrelid = 'public.widget_analytics'::regclass and t.tgname = 'divert_archived_events' and t.tgenabled <> 'D'
  ) then
    raise exception 'events of archived sessions would not be noticed' using errcode = 'object_not_in_prerequisite_state',
      hint = 'alter table public.widget_analytics enable trigger divert_archived_events';
  elsif v_place is null then
    perform widget_internal.refuse_to_archive(seal_archive.month);
    insert into public.widget_archives (month, place) values (seal_archive.month, seal_archive.place);
    insert into widget_internal.archived_sessions (session_key, month)
    select widget_internal.archived_session_key(e.widget_id, e.session_id), seal_archive.month
    from public.widget_analytics e
    group by e.widget_id, e.session_id
    having max(e."timestamp") < v_end
      and not widget_internal.is_young_session(e.session_id, now() - interval '35 days');
  elsif v_place <> seal_archive.place then
    raise exception 'place: the archive of % is at %', to_char(seal_archive.month, 'YYYY-MM'), v_place
      using errcode = 'invalid_parameter_value';
  end if;
end
$$;

COMMENT ON FUNCTION widget_internal.seal_archive(month date, place text) IS 'Marks the sessions that may leave with a month: once this is committed, no new transaction adds an event to them.';

CREATE FUNCTION widget_internal.seal_charge() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO ''
    AS $$
begin
  new.content_hash := widget_internal.sha256_hex(widget_internal.charge_content(new));
  return new;
end
$$;

COMMENT ON FUNCTION widget_internal.seal_charge() IS 'Gives a new charge its hash. Its lines are there already.';

CREATE FUNCTION widget_internal.seal_period() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO ''
    AS $$
begin
  new.content_hash := widget_internal.sha256_hex(widget_internal.period_content(new));
  return new;
end
$$;

COMMENT ON FUNCTION widget_internal.seal_period() IS 'Gives a new closed month its hash. Its charges are there already.';

CREATE FUNCTION widget_internal.send_alerts() RETURNS void
    LANGUAGE plpgsql
    SET search_path TO ''
    AS $$
#variable_conflict use_column
declare
  v_settings widget_internal.alert_settings;
  v_alarms jsonb;
  v_cleared jsonb;
begin
  -- One at a time: the lock on the settings is held until the end.
  select s.* into v_settings from widget_internal.alert_settings s for update;
  if not found then
    return;
  end if;
  perform widget_internal.repost_alerts();

  with alarms as materialized (
    select a.* from public.widget_alarms(
      v_settings.min_delivery_rate, v_settings.min_completion_rate, v_settings.min_cases
    ) a
  ),
  told as (
    insert into widget_internal.standing_alarms as s (alarm, widget_id, message)
    select a.alarm, a.widget_id, a.message from alarms a
    on conflict on constraint standing_alarms_stand_once do update
    set message = excluded.message, told_at = excluded.told_at
    where s.told_at <= clock_timestamp() - v_settings.repeat_after
    returning s.alarm, s.widget_id, s.message
  ),
  cleared as (
    delete from widget_internal.standing_alarms s
    where not exists (select from alarms a where a.alarm = s.alarm and a.widget_id is not distinct from s.widget_id)
    returning s.alarm, s.widget_id, s.message
  )
  select
    (select jsonb_agg(to_jsonb(t) order by t.alarm, t.widget_id) from told t),
    (select jsonb_agg(to_jsonb(c) order by c.alarm, c.widget_id) from cleared c)
  into v_alarms, v_cleared;

  if v_alarms is not null or v_cleared is not null then
    insert into widget_internal.alert_posts (body, request_id)
    select b.body, widget_internal.post_alert(b.body)
    from (select widget_internal.alert_body(v_alarms, v_cleared) as body) b;
  end if;
end
$$;

COMMENT ON FUNCTION widget_internal.send_alerts() IS 'Posts what is newly not well, again after repeat_after, and once what is well again; nothing where nothing changed.';

CREATE FUNCTION widget_internal.sender() RETURNS uuid
    LANGUAGE plpgsql
    SET search_path TO ''
    AS $$
declare
  v_network constant text := widget_internal.sender_network();
  v_today constant date := clock_timestamp() at time zone 'UTC';
  v_salt bytea;
begin
  loop
    select s.salt into v_salt from widget_internal.sender_salts s where s.day = v_today;
    exit when found;
    insert into widget_internal.sender_salts (day) values (v_today) on conflict do nothing;
  end loop;
  return encode(substring(sha256(v_salt || convert_to(v_network, 'UTF8')) for 16), 'hex')::uuid;
end
$$;

COMMENT ON FUNCTION widget_internal.sender() IS 'A keyed hash of the sender''s address, another one each day: the address itself is never stored. Null where it is not known.';

CREATE FUNCTION widget_internal.sender_network() RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path TO ''
    AS $$
declare
  v_addresses constant text[] := string_to_array(widget_internal.request_header('x-forwarded-for'), ',');
  v_address text;
begin
  select nullif(trim(v_addresses[cardinality(v_addresses) - s.sender_address_hop + 1]), '') into v_address
  from widget_internal.settings s;
  -- Who has one IPv6 address has the whole /64.
  return case family(v_address::inet) when 6 then network(set_masklen(v_address::inet, 64))::text else host(v_address::inet) end;
exception
  when invalid_text_representation then
    return v_address;
end
$$;

COMMENT ON FUNCTION widget_internal.sender_network() IS 'The sender''s address of this request, IPv6 without its last 64 bits; null where no proxy names one.';

CREATE FUNCTION widget_internal.session_calls(widget_id uuid, session_id text, as_of timestamp with time zone DEFAULT 'infinity'::timestamp with time zone) RETURNS TABLE(call_id text, started_at timestamp with time zone, last_heartbeat_at timestamp with time zone, ended_at timestamp with time zone, outcome text, evidence text, ended_by uuid)
    LANGUAGE plpgsql STABLE
    SET search_path TO ''
    AS $$
begin
  return query
  select c.call_id, c.started_at, c.last_heartbeat_at, c.ended_at, c.outcome, c.evidence, c.ended_by
  from widget_internal.calls_of_sessions(
    array[session_calls.widget_id], array[session_calls.session_id], session_calls.as_of
  ) c;
end
$$;

COMMENT ON FUNCTION widget_internal.session_calls(widget_id uuid, session_id text, as_of timestamp with time zone) IS 'The calls of one session, as calls_of_sessions() gives them.';

CREATE FUNCTION widget_internal.session_key(widget_id uuid, session_id text) RETURNS bigint
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    SET search_path TO ''
    AS $$
begin
  return hashtextextended(session_key.widget_id::text || session_key.session_id, 0);
end
$$;

COMMENT ON FUNCTION widget_internal.session_key(widget_id uuid, session_id text) IS 'The key of a session''s advisory lock.';

CREATE FUNCTION widget_internal.settle_archive(month date) RETURNS timestamp with time zone
    LANGUAGE plpgsql
    SET search_path TO ''
    AS $$
#variable_conflict use_column
declare
  v_bounds constant record := widget_internal.month_bounds(settle_archive.month);
  v_as_of timestamptz;
begin
  select a.as_of into v_as_of from public.widget_archives a where a.month = settle_archive.month;
  if v_as_of is not null then
    return v_as_of;
  end if;
  perform pg_advisory_xact_lock_shared(widget_internal.closing_key());
  -- Those who added events before they could see the marks have committed by then.
  v_as_of := widget_internal.cut_off();
  delete from widget_internal.sessions_to_archive;

  with sessions as (
    select e.widget_id, e.session_id, widget_internal.archived_session_key(e.widget_id, e.session_id) as session_key,
      min(e."timestamp") as first_at, max(e."timestamp") as last_at,
      max(e.received_at) <= v_as_of and isfinite(min(e.received_at)) as has_settled,
      bool_or(e."timestamp" >= v_bounds.period_start and e."timestamp" < v_bounds.period_end) as is_of_month
    from public.widget_analytics e
    group by e.widget_id, e.session_id
    having min(e."timestamp") < v_bounds.period_end
  ),
  -- What no statement shows yet must stay until one does.
  unbilled as materialized (
    select distinct c.widget_id, c.session_id from widget_internal.late_changes('infinity', null) c
    union
    select c.widget_id, c.session_id from public.widget_calls c where c.ended_at is null
  ),
  judged as (
    select s.*, s.last_at < v_bounds.period_end and s.has_settled and u.widget_id is null
      and exists (select from widget_internal.archived_sessions a where a.session_key = s.session_key) as may_go
    from sessions s
    left join unbilled u on u.widget_id = s.widget_id and u.session_id = s.session_id
  )
  insert into widget_internal.sessions_to_archive (chunk, widget_id, session_id, session_key, first_at, last_at)
  select
    case when j.may_go then
      (row_number() over (partition by j.may_go order by j.widget_id, j.first_at, j.session_id) - 1) / 100 + 1
    else 0 end,
    j.widget_id, j.session_id, j.session_key, j.first_at, j.last_at
  from judged j
  where j.may_go or j.is_of_month;

  delete from widget_internal.archived_sessions a
  where a.month = settle_archive.month and not exists (
    select from widget_internal.sessions_to_archive s where s.session_key = a.session_key and s.chunk > 0
  );
  perform widget_internal.return_late_events();
  update public.widget_archives a set as_of = v_as_of where a.month = settle_archive.month;
  return v_as_of;
end
$$;

COMMENT ON FUNCTION widget_internal.settle_archive(month date) IS 'Decides, in a transaction after seal_archive(), which sessions leave and which are only copied, and as of when.';

CREATE FUNCTION widget_internal.sha256_hex(content text) RETURNS text
    LANGUAGE plpgsql IMMUTABLE
    SET search_path TO ''
    AS $$
begin
  return encode(sha256(convert_to(sha256_hex.content, 'UTF8')), 'hex');
end
$$;

COMMENT ON FUNCTION widget_internal.sha256_hex(content text) IS 'SHA-256 of a text in UTF-8, in hexadecimal.';

CREATE FUNCTION widget_internal.to_month(period text) RETURNS date
    LANGUAGE plpgsql IMMUTABLE
    SET search_path TO ''
    AS $_$
begin
  if to_month.period ~ '^[1-9][0-9]{3}-(0[1-9]|1[0-2])(-01)?$' then
    return to_date(left(to_month.period, 7), 'YYYY-MM');
  end if;
  raise exception 'period: must be a month, such as 2026-10' using errcode = 'invalid_parameter_value';
end
$_$;

COMMENT ON FUNCTION widget_internal.to_month(period text) IS 'The first day of a month written as 2026-10 or 2026-10-01.';

CREATE FUNCTION widget_internal.to_uuid(value text) RETURNS uuid
    LANGUAGE plpgsql IMMUTABLE
    SET search_path TO ''
    AS $_$
begin
  if to_uuid.value ~ '^[0-9a-fA-F]{8}-?([0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}$' then
    return to_uuid.value::uuid;
  end if;
  return null;
end
$_$;

COMMENT ON FUNCTION widget_internal.to_uuid(value text) IS 'The UUID that a text is; null where it is none.';

CREATE FUNCTION widget_internal.track_call_times() RETURNS TABLE(called text, calls bigint, mean_ms numeric, stddev_ms numeric, slowest_ms numeric, wal_bytes_per_call numeric)
    LANGUAGE plpgsql STABLE
    SET search_path TO ''
    AS $_$
declare
  v_statistics regclass := (
    select format('%I.pg_stat_statements', n.nspname)::regclass
    from pg_catalog.pg_extension e join pg_catalog.pg_namespace n on n.oid = e.extnamespace
    where e.extname = 'pg_stat_statements'
  );
begin
  if v_statistics is null then
    raise warning 'the extension pg_stat_statements is not there: the database keeps no times of statements';
    return;
  end if;

  for called, calls, mean_ms, stddev_ms, slowest_ms, wal_bytes_per_call in execute format(
    $sql$
      select
        t.called, sum(s.calls)::bigint, round((sum(s.total_exec_time) / sum(s.calls))::numeric, 3),
        round(max(s.stddev_exec_time)::numeric, 3), round(max(s.max_exec_time)::numeric, 3),
        round(sum(s.wal_bytes) / sum(s.calls))
      from %s s
      cross join lateral (select substring(s.query from '\mtrack_events?\M') as called) t
      where s.dbid = (select d.oid from pg_catalog.pg_database d where d.datname = current_database())
        and t.called is not null and s.query !~* '^\s*(create|comment|grant|revoke|alter|drop)\M' and s.toplevel
      group by t.called
      order by t.called
    $sql$,
    v_statistics
  ) loop
    return next;
  end loop;
exception when object_not_in_prerequisite_state then
  raise warning 'pg_stat_statements is not among shared_preload_libraries: the database keeps no times of statements';
end
$_$;

COMMENT ON FUNCTION widget_internal.track_call_times() IS 'What the statements that call track_event() or track_events() took in the database, since its statistics were last reset (pg_stat_statements). Good: a mean below 5 ms. No rows: nobody called, or the extension is not there.';

CREATE FUNCTION widget_internal.unwrap_json(value jsonb) RETURNS jsonb
    LANGUAGE plpgsql IMMUTABLE
    SET search_path TO ''
    AS $$
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

COMMENT ON FUNCTION widget_internal.unwrap_json(value jsonb) IS 'The JSON in a JSON string, or the value itself: a gateway may pass a form field of JSON on as a string.';

CREATE FUNCTION widget_internal.url_host(url text) RETURNS text
    LANGUAGE plpgsql IMMUTABLE
    SET search_path TO ''
    AS $_$
declare
  -- As browsers read it (WHATWG URL): the authority ends at /, \, ? or #; user and password stand before its last @.
  v_authority text := substring(lower(url_host.url) from '^https?://([^/\\?#]*)');
  v_host text := substring(v_authority from '^(?:.*@)?(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::[0-9]*)?$');
begin
  -- "shop.example." is the same host, written to its root.
  return regexp_replace(v_host, '(.)\.$', '\1');
end
$_$;

COMMENT ON FUNCTION widget_internal.url_host(url text) IS 'The host of an http or https URL: lower case, no port, no user, no trailing dot; null where there is none.';

CREATE FUNCTION widget_internal.uuid_v7() RETURNS uuid
    LANGUAGE plpgsql PARALLEL SAFE
    SET search_path TO ''
    AS $$
declare
  v_milliseconds constant bigint := date_part('epoch', clock_timestamp()) * 1000;
begin
  -- 12 hexadecimal digits of time and the version, over a random UUID, which brings the variant.
  return overlay(gen_random_uuid()::text placing lpad(to_hex(v_milliseconds), 12, '0') || '7' from 1 for 15)::uuid;
end
$$;

COMMENT ON FUNCTION widget_internal.uuid_v7() IS 'A UUID version 7 (RFC 9562): milliseconds first, so that new keys land at the right edge of an index.';

CREATE FUNCTION widget_internal.widget_calls_differences() RETURNS TABLE(widget_id uuid, session_id text, call_id text, kept jsonb, computed jsonb)
    LANGUAGE plpgsql STABLE
    SET search_path TO ''
    AS $$
begin
  return query
  with kept as (
    select
      c.widget_id, c.session_id, c.call_id,
      jsonb_build_array(c.started_at, c.ended_at, c.outcome, c.evidence) as call
    from public.widget_calls c
  ),
  computed as (
    select
      e.widget_id, e.session_id, s.call_id,
      jsonb_build_array(s.started_at, s.ended_at, s.outcome, s.evidence) as call
    from (select distinct a.widget_id, a.session_id from public.widget_analytics a where a.event_type = 'call_start') e
    cross join lateral widget_internal.session_calls(e.widget_id, e.session_id) s
  )
  select
    coalesce(k.widget_id, f.widget_id), coalesce(k.session_id, f.session_id)::text,
    coalesce(k.call_id, f.call_id)::text, k.call, f.call
  from kept k
  full join computed f on f.widget_id = k.widget_id and f.session_id = k.session_id and f.call_id = k.call_id
  where k.call is distinct from f.call;
end
$$;

COMMENT ON FUNCTION widget_internal.widget_calls_differences() IS 'Calls whose row is not what the ledger gives, each with [started_at, ended_at, outcome, evidence] as kept and as computed. Good: no rows. Reads the whole ledger.';

CREATE FUNCTION widget_internal.widget_door(widget_id uuid, OUT is_active boolean, OUT is_demo boolean, OUT allowed_domains text[]) RETURNS record
    LANGUAGE plpgsql STABLE
    SET search_path TO ''
    AS $$
begin
  select w.is_active, w.is_demo, w.allowed_domains
  into widget_door.is_active, widget_door.is_demo, widget_door.allowed_domains
  from public.widgets w
  where w.id = widget_door.widget_id;
end
$$;

COMMENT ON FUNCTION widget_internal.widget_door(widget_id uuid, OUT is_active boolean, OUT is_demo boolean, OUT allowed_domains text[]) IS 'What the door (R8) must know of a widget: is it active, is it a demo, which hosts it allows. All null for an unknown one.';

CREATE FUNCTION widget_internal.write_charges(month date) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO ''
    AS $$
begin
  insert into public.widget_statement_charges (
    period, widget_id, usage_period, plan_valid_from, included_seconds, price_per_minute, currency,
    old_seconds, new_seconds, old_amount, new_amount, content_hash
  )
  select
    write_charges.month, l.widget_id, l.usage_period, v.valid_from, coalesce((v.plan).included_seconds, 0),
    (v.plan).price_per_minute, (v.plan).currency,
    coalesce(b.seconds, 0), coalesce(b.seconds, 0) + l.difference_seconds,
    widget_internal.charge(coalesce(b.seconds, 0), v.plan),
    widget_internal.charge(coalesce(b.seconds, 0) + l.difference_seconds, v.plan), ''
  from (
    select n.widget_id, n.usage_period, sum(n.difference_seconds) as difference_seconds
    from public.widget_statement_lines n
    where n.period = write_charges.month
    group by n.widget_id, n.usage_period
  ) l
  left join (
    select c.widget_id, c.usage_period, sum(c.difference_seconds) as seconds
    from public.widget_statement_charges c
    group by c.widget_id, c.usage_period
  ) b on b.widget_id = l.widget_id and b.usage_period = l.usage_period
  left join widget_internal.plan_validity v
    on v.widget_id = l.widget_id and v.valid_from <= l.usage_period and l.usage_period < v.valid_until;
end
$$;

COMMENT ON FUNCTION widget_internal.write_charges(month date) IS 'Sums a statement''s lines up by widget and month of use, and prices what is billed now against what was before.';

CREATE FUNCTION widget_internal.write_lines(month date, as_of timestamp with time zone) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO ''
    AS $$
declare
  v_bounds constant record := widget_internal.month_bounds(write_lines.month);
begin
  insert into public.widget_statement_lines (
    period, usage_period, widget_id, session_id, call_id, started_at, ended_at, outcome, evidence, duration_seconds,
    old_seconds, new_seconds, rule
  )
  select write_lines.month, write_lines.month, r.widget_id, r.session_id, r.call_id, r.started_at, r.ended_at, r.outcome,
    r.evidence, r.duration_seconds, 0, r.billable_seconds, r.rule
  from widget_internal.rated_calls(v_bounds.period_start, v_bounds.period_end, write_lines.as_of) r;

  insert into public.widget_statement_lines (
    period, usage_period, widget_id, session_id, call_id, started_at, ended_at, outcome, evidence, duration_seconds,
    old_seconds, new_seconds, rule, event_ids
  )
  select write_lines.month, c.usage_period, c.widget_id, c.session_id, c.call_id, c.started_at, c.ended_at, c.outcome,
    c.evidence, c.duration_seconds, c.old_seconds, c.new_seconds, c.rule,
    widget_internal.late_events(c.widget_id, c.session_id, c.call_id, c.billed_as_of, write_lines.as_of)
  from widget_internal.late_changes(write_lines.month, write_lines.as_of) c;
end
$$;

COMMENT ON FUNCTION widget_internal.write_lines(month date, as_of timestamp with time zone) IS 'Writes a statement''s lines: the month''s calls, and the adjustments of earlier months.';

CREATE TABLE public.widget_analytics (
    id uuid DEFAULT widget_internal.uuid_v7() NOT NULL,
    widget_id uuid NOT NULL,
    event_type widget_internal.event_type NOT NULL,
    session_id widget_internal.session_id NOT NULL,
    page_url text,
    user_agent text,
    "timestamp" widget_internal.event_timestamp DEFAULT now() NOT NULL,
    call_id widget_internal.call_id,
    seq widget_internal.event_seq,
    source widget_internal.event_source DEFAULT 'browser'::text NOT NULL,
    received_at timestamp with time zone DEFAULT widget_internal.receipt_time() NOT NULL,
    properties widget_internal.event_properties
);

COMMENT ON TABLE public.widget_analytics IS 'The ledger of events, append-only (R2). A correction is a new event of a higher source (R5), never a change.';

COMMENT ON COLUMN public.widget_analytics.id IS 'The sender''s event_id, or one made here: sent again, it is the same row (R1).';

COMMENT ON COLUMN public.widget_analytics.session_id IS 'Groups the events of one widget load; the sender''s choice, best a UUIDv7.';

COMMENT ON COLUMN public.widget_analytics.page_url IS 'The page that embeds the widget, without query string and fragment. On the session''s first event.';

COMMENT ON COLUMN public.widget_analytics.user_agent IS 'The request''s User-Agent header. On the session''s widget_load and first event (seq 1), and where there is no seq.';

COMMENT ON COLUMN public.widget_analytics."timestamp" IS 'When it happened: receipt less the age that the sender gave (R3).';

COMMENT ON COLUMN public.widget_analytics.call_id IS 'Which call of the session; null when the sender has none (R4).';

COMMENT ON COLUMN public.widget_analytics.seq IS 'The sender''s running number in its session, from 1; null when it has none (R9).';

COMMENT ON COLUMN public.widget_analytics.source IS 'Who says so: operator, provider, server, browser, or inferred by the cleanup; the earlier in this list outranks (R5).';

COMMENT ON COLUMN public.widget_analytics.received_at IS 'When the database took it in.';

COMMENT ON COLUMN public.widget_analytics.properties IS 'Small extras, such as an error code.';

CREATE TABLE public.widget_archives (
    month date NOT NULL,
    place text NOT NULL,
    as_of timestamp with time zone,
    manifest_hash text,
    released_at timestamp with time zone,
    CONSTRAINT a_manifest_tells_of_settled_sessions CHECK (((manifest_hash IS NULL) OR (as_of IS NOT NULL))),
    CONSTRAINT archives_are_of_months CHECK ((EXTRACT(day FROM month) = (1)::numeric)),
    CONSTRAINT nothing_is_released_without_a_manifest CHECK (((released_at IS NULL) OR (manifest_hash IS NOT NULL))),
    CONSTRAINT places_are_named CHECK ((place <> ''::text))
);

COMMENT ON TABLE public.widget_archives IS 'The months whose sessions were moved to an archive by `widget-analytics archive`, in order and without gaps.';

COMMENT ON COLUMN public.widget_archives.place IS 'Where the archive is: a folder, or a URL such as s3://bucket/folder.';

COMMENT ON COLUMN public.widget_archives.as_of IS 'What was received by then is in the archive; null as long as that is not settled.';

COMMENT ON COLUMN public.widget_archives.manifest_hash IS 'SHA-256 of the archive''s manifest of the month: all its files were read back and are equal to the ledger.';

COMMENT ON COLUMN public.widget_archives.released_at IS 'When the last of these sessions left the ledger; null before.';

CREATE TABLE public.widget_calls (
    widget_id uuid NOT NULL,
    started_at timestamp with time zone NOT NULL,
    ended_at timestamp with time zone,
    duration_seconds numeric GENERATED ALWAYS AS (EXTRACT(epoch FROM (ended_at - started_at))) STORED,
    session_id text NOT NULL COLLATE pg_catalog."C",
    call_id text NOT NULL COLLATE pg_catalog."C",
    outcome text NOT NULL,
    evidence text,
    CONSTRAINT calls_end_after_they_start CHECK ((ended_at >= started_at)),
    CONSTRAINT every_end_has_evidence CHECK (((ended_at IS NULL) = (evidence IS NULL))),
    CONSTRAINT evidence_is_known CHECK ((evidence = ANY (ARRAY['observed'::text, 'provider'::text, 'operator'::text, 'heartbeat'::text, 'assumed'::text]))),
    CONSTRAINT only_open_calls_lack_an_end CHECK (((outcome = 'open'::text) = (ended_at IS NULL))),
    CONSTRAINT outcome_is_known CHECK ((outcome = ANY (ARRAY['open'::text, 'completed'::text, 'failed'::text])))
);

COMMENT ON TABLE public.widget_calls IS 'One row a call, kept by triggers on the ledger and at every moment equal to what the ledger gives (R4–R6).';

COMMENT ON COLUMN public.widget_calls.started_at IS 'The earliest call_start.';

COMMENT ON COLUMN public.widget_calls.ended_at IS 'When it ended, by the best evidence there is (R5); null while open.';

COMMENT ON COLUMN public.widget_calls.duration_seconds IS 'ended_at less started_at, in seconds; null while open.';

COMMENT ON COLUMN public.widget_calls.call_id IS 'The sender''s call_id; where it names none, the id of the call_start event.';

COMMENT ON COLUMN public.widget_calls.outcome IS 'open, completed, or failed: it ended by a call_error.';

COMMENT ON COLUMN public.widget_calls.evidence IS 'What the end rests on: observed (browser or server), provider, operator, heartbeat (the last sign of life) or assumed (no sign after the start); null while open.';

CREATE TABLE public.widget_cleanup_runs (
    id bigint NOT NULL,
    started_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    finished_at timestamp with time zone,
    calls_checked integer DEFAULT 0 NOT NULL,
    calls_completed integer DEFAULT 0 NOT NULL,
    calls_still_active integer DEFAULT 0 NOT NULL,
    error text,
    CONSTRAINT checked_calls_are_completed_or_active CHECK ((calls_checked = (calls_completed + calls_still_active))),
    CONSTRAINT runs_finish_after_they_start CHECK ((finished_at >= started_at))
);

COMMENT ON TABLE public.widget_cleanup_runs IS 'Each run of complete_stale_sessions(). Good: one at least every 30 minutes, each with no error.';

COMMENT ON COLUMN public.widget_cleanup_runs.calls_checked IS 'Open calls that had started more than stale_after ago.';

COMMENT ON COLUMN public.widget_cleanup_runs.calls_completed IS 'Of these, how many got an inferred end.';

COMMENT ON COLUMN public.widget_cleanup_runs.calls_still_active IS 'Of these, how many had a heartbeat younger than stale_after.';

COMMENT ON COLUMN public.widget_cleanup_runs.error IS 'Why the run failed, and changed nothing; null where it did not.';

ALTER TABLE public.widget_cleanup_runs ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.widget_cleanup_runs_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.widget_erasures (
    id bigint NOT NULL,
    widget_id uuid NOT NULL,
    session_id text NOT NULL COLLATE pg_catalog."C",
    erased_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    erased_by text NOT NULL,
    events integer NOT NULL,
    CONSTRAINT erasures_erase_something CHECK ((events > 0))
);

COMMENT ON TABLE public.widget_erasures IS 'Who erased what of which session, and when: one row each time that erase_widget_session() found something to erase.';

COMMENT ON COLUMN public.widget_erasures.erased_by IS 'The database login, with the role and the user of the request if there was one.';

COMMENT ON COLUMN public.widget_erasures.events IS 'How many events lost their page, agent or properties.';

ALTER TABLE public.widget_erasures ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.widget_erasures_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE widget_internal.health_hours (
    widget_id uuid NOT NULL,
    hour timestamp with time zone NOT NULL,
    events_received bigint DEFAULT 0 NOT NULL,
    loads bigint DEFAULT 0 NOT NULL,
    opens bigint DEFAULT 0 NOT NULL,
    sessions bigint DEFAULT 0 NOT NULL,
    events_numbered bigint DEFAULT 0 NOT NULL,
    events_expected bigint DEFAULT 0 NOT NULL,
    orphan_ends bigint DEFAULT 0 NOT NULL,
    response_ms_median integer,
    response_ms_p95 integer
);

COMMENT ON TABLE widget_internal.health_hours IS 'Events and sessions by widget and hour; read them through the view widget_health.';

COMMENT ON COLUMN widget_internal.health_hours.response_ms_median IS 'Kept beside health_response_times, as ranking these for each hour that is read takes long.';

CREATE TABLE widget_internal.health_state (
    only_row boolean DEFAULT true NOT NULL,
    counted_to timestamp with time zone DEFAULT '-infinity'::timestamp with time zone NOT NULL,
    CONSTRAINT health_state_is_one_row CHECK (only_row)
);

COMMENT ON TABLE widget_internal.health_state IS 'How far refresh_widget_health() has come: exactly one row.';

COMMENT ON COLUMN widget_internal.health_state.counted_to IS 'Every event received by then is counted, and none that came later.';

CREATE TABLE widget_internal.refusal_counts (
    hour timestamp with time zone NOT NULL,
    widget_id uuid,
    reason text NOT NULL,
    detail text NOT NULL,
    shard smallint NOT NULL,
    refusals bigint NOT NULL,
    CONSTRAINT refusal_reason_is_known CHECK ((reason = ANY (ARRAY['unknown_widget'::text, 'widget_inactive'::text, 'domain_not_allowed'::text, 'invalid_input'::text, 'over_quota'::text]))),
    CONSTRAINT refusals_are_positive CHECK ((refusals > 0))
);

COMMENT ON TABLE widget_internal.refusal_counts IS 'Refused events, counted; read them through the view widget_refusals.';

CREATE VIEW public.widget_health WITH (security_invoker='true') AS
 WITH counts AS (
         SELECT h_1.widget_id,
            h_1.hour,
            h_1.events_received,
            h_1.loads,
            h_1.opens,
            h_1.sessions,
            h_1.events_numbered,
            h_1.events_expected,
            h_1.orphan_ends,
            (0)::bigint AS calls_started,
            (0)::bigint AS calls_open,
            (0)::bigint AS calls_observed,
            (0)::bigint AS calls_provider,
            (0)::bigint AS calls_operator,
            (0)::bigint AS calls_heartbeat,
            (0)::bigint AS calls_assumed,
            (0)::bigint AS calls_failed,
            (0)::bigint AS refusals,
            h_1.response_ms_median,
            h_1.response_ms_p95
           FROM widget_internal.health_hours h_1
        UNION ALL
         SELECT c.widget_id,
            c.hour,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            c.calls_started,
            c.calls_open,
            c.calls_observed,
            c.calls_provider,
            c.calls_operator,
            c.calls_heartbeat,
            c.calls_assumed,
            c.calls_failed,
            0,
            NULL::integer,
            NULL::integer
           FROM widget_internal.health_calls c
        UNION ALL
         SELECT r.widget_id,
            r.hour,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            r.refusals,
            NULL::integer,
            NULL::integer
           FROM widget_internal.refusal_counts r
          WHERE (r.widget_id IS NOT NULL)
        ), hours AS (
         SELECT c.widget_id,
            c.hour,
            max(c.events_received) AS events_received,
            max(c.loads) AS loads,
            max(c.opens) AS opens,
            max(c.sessions) AS sessions,
            max(c.events_numbered) AS events_numbered,
            max(c.events_expected) AS events_expected,
            max(c.orphan_ends) AS orphan_ends,
            max(c.calls_started) AS calls_started,
            max(c.calls_open) AS calls_open,
            max(c.calls_observed) AS calls_observed,
            max(c.calls_provider) AS calls_provider,
            max(c.calls_operator) AS calls_operator,
            max(c.calls_heartbeat) AS calls_heartbeat,
            max(c.calls_assumed) AS calls_assumed,
            max(c.calls_failed) AS calls_failed,
            (sum(c.refusals))::bigint AS refusals,
            max(c.response_ms_median) AS response_ms_median,
            max(c.response_ms_p95) AS response_ms_p95
           FROM counts c
          GROUP BY c.widget_id, c.hour
        )
 SELECT h.widget_id,
    h.hour,
    h.events_received,
    h.sessions,
    h.events_numbered,
    h.events_expected,
    round(((h.events_numbered)::numeric / (NULLIF(h.events_expected, 0))::numeric), 6) AS delivery_rate,
    h.loads,
    h.opens,
    h.calls_started,
    h.calls_open,
    h.calls_observed,
    h.calls_provider,
    h.calls_operator,
    h.calls_heartbeat,
    h.calls_assumed,
    h.calls_failed,
    round(((((h.calls_observed + h.calls_provider) + h.calls_operator))::numeric / (NULLIF(h.calls_started, 0))::numeric), 6) AS completion_rate,
    h.orphan_ends,
    h.refusals,
    h.response_ms_median,
    h.response_ms_p95,
    s.counted_to AS as_of
   FROM (hours h
     CROSS JOIN widget_internal.health_state s)
  WHERE ((((h.events_received + h.sessions) + h.calls_started) + h.refusals) > 0);

COMMENT ON VIEW public.widget_health IS 'How well tracking works, by widget and hour (R9), as of as_of: counted every five minutes, so reading it is quick however large the ledger is. An event sent twice is one event. To get a rate of several hours divide the sums.';

COMMENT ON COLUMN public.widget_health.hour IS 'Events by when they happened, calls by when they started, sessions by their first event.';

COMMENT ON COLUMN public.widget_health.events_received IS 'Events that happened in this hour. Good: as in the same hour of last week.';

COMMENT ON COLUMN public.widget_health.sessions IS 'Sessions that began in this hour: one a page view with the widget.';

COMMENT ON COLUMN public.widget_health.events_numbered IS 'Of the sessions that began in this hour: events that arrived with a running number (seq), each number once.';

COMMENT ON COLUMN public.widget_health.events_expected IS 'Of these sessions: the sum of the highest numbers seen. Exact for gaps; knows nothing of events lost at the very end of a session. Numbers above 10,000 are left out.';

COMMENT ON COLUMN public.widget_health.delivery_rate IS 'events_numbered / events_expected. Good: above 0.99, a little lower in the hour that is running. Null: no numbered events. A lost end shows in completion_rate, not here.';

COMMENT ON COLUMN public.widget_health.loads IS 'widget_load events of this hour: the widget stood on a page.';

COMMENT ON COLUMN public.widget_health.opens IS 'widget_open events of this hour: somebody opened it.';

COMMENT ON COLUMN public.widget_health.calls_started IS 'Calls that started in this hour, as widget_calls has them.';

COMMENT ON COLUMN public.widget_health.calls_open IS 'Of these, calls with no end yet. Good: none that started hours ago; else the cleanup does not run.';

COMMENT ON COLUMN public.widget_health.calls_observed IS 'Of these, calls whose end the browser or your server reported. Good: nearly all.';

COMMENT ON COLUMN public.widget_health.calls_provider IS 'Of these, calls that end as the call provider''s record says.';

COMMENT ON COLUMN public.widget_health.calls_operator IS 'Of these, calls that end as a person corrected them. Good: few.';

COMMENT ON COLUMN public.widget_health.calls_heartbeat IS 'Of these, calls that broke off and end at their last sign of life. Good: below 5 in 100.';

COMMENT ON COLUMN public.widget_health.calls_assumed IS 'Of these, calls that broke off without any sign of life and are taken to have lasted 30 minutes. Good: none.';

COMMENT ON COLUMN public.widget_health.calls_failed IS 'Of these, calls that ended by call_error; they have evidence like all others. Good: few.';

COMMENT ON COLUMN public.widget_health.completion_rate IS 'Calls whose end somebody observed (browser, server, provider or operator) over calls started. Good: above 0.95; calls that are still open count as not completed, so the last hours are lower. Null: no calls.';

COMMENT ON COLUMN public.widget_health.orphan_ends IS 'Ends that belong to no call, of the sessions that began in this hour: the start was lost or never sent. Good: none.';

COMMENT ON COLUMN public.widget_health.refusals IS 'Events refused in this hour, by when they came. Good: none; widget_refusals says why.';

COMMENT ON COLUMN public.widget_health.response_ms_median IS 'Half of the senders'' requests were answered within so many milliseconds, by their own clocks (properties.rtt_ms), within 5 %. Good: below 200. Null: no sender said.';

COMMENT ON COLUMN public.widget_health.response_ms_p95 IS 'Nineteen of twenty were answered within so many. Good: below 1000.';

COMMENT ON COLUMN public.widget_health.as_of IS 'What was received by then is counted. Good: less than 10 minutes ago.';

CREATE TABLE public.widget_late_events (
    id uuid NOT NULL,
    widget_id uuid NOT NULL,
    session_id text NOT NULL COLLATE pg_catalog."C",
    event jsonb NOT NULL
);

COMMENT ON TABLE public.widget_late_events IS 'Events that came for sessions in the archive: repeats, or news. `widget-analytics restore` brings their sessions back and puts them into the ledger, where repeats vanish and news become adjustments. Good: no rows.';

COMMENT ON COLUMN public.widget_late_events.event IS 'The row that the ledger would have had.';

CREATE TABLE widget_internal.health_pages (
    widget_id uuid NOT NULL,
    day date NOT NULL,
    page_url text NOT NULL COLLATE pg_catalog."C",
    host text NOT NULL,
    sessions bigint NOT NULL,
    loads bigint NOT NULL,
    opens bigint NOT NULL,
    calls bigint NOT NULL
);

COMMENT ON TABLE widget_internal.health_pages IS 'Sessions by widget, day and page; read them through the view widget_pages.';

CREATE VIEW public.widget_pages WITH (security_invoker='true') AS
 WITH ranked AS (
         SELECT p.widget_id,
            p.day,
            p.page_url,
            p.host,
            p.sessions,
            p.loads,
            p.opens,
            p.calls,
            row_number() OVER (PARTITION BY p.widget_id, p.day, p.host ORDER BY p.sessions DESC, p.calls DESC, p.page_url) AS rank
           FROM widget_internal.health_pages p
          WHERE (p.sessions > 0)
        )
 SELECT r.widget_id,
    r.day,
    NULLIF(r.host, ''::text) AS host,
        CASE
            WHEN (r.rank > 50) THEN '(others)'::text
            ELSE NULLIF(r.page_url, ''::text)
        END AS page_url,
    (sum(r.sessions))::bigint AS sessions,
    (sum(r.loads))::bigint AS loads,
    (sum(r.opens))::bigint AS opens,
    (sum(r.calls))::bigint AS calls
   FROM ranked r
  GROUP BY r.widget_id, r.day, r.host,
        CASE
            WHEN (r.rank > 50) THEN '(others)'::text
            ELSE NULLIF(r.page_url, ''::text)
        END;

COMMENT ON VIEW public.widget_pages IS 'Where each widget is used: sessions, loads, opens and calls by UTC day, host and page. All of a session counts on the day of its first event, and for the page that it names first. Of each host and day the 50 busiest pages stand alone, the rest together as (others). Pages are told apart by their first 512 characters; null: none was named.';

CREATE TABLE public.widget_quotas (
    widget_id uuid NOT NULL,
    events_per_day bigint,
    CONSTRAINT events_per_day_is_positive CHECK ((events_per_day > 0))
);

COMMENT ON TABLE public.widget_quotas IS 'Widgets whose daily quota is not the one of the settings.';

COMMENT ON COLUMN public.widget_quotas.events_per_day IS 'How many events are taken in a day (UTC); null: any number.';

CREATE VIEW public.widget_refusals WITH (security_invoker='true') AS
 SELECT r.widget_id,
    r.reason,
    r.detail,
    r.hour,
    (sum(r.refusals))::bigint AS refusals
   FROM widget_internal.refusal_counts r
  GROUP BY r.widget_id, r.reason, r.detail, r.hour;

COMMENT ON VIEW public.widget_refusals IS 'Events refused, by widget, reason and hour (R8). domain_not_allowed: detail is the host to add to allowed_domains, empty where the page named none. invalid_input: the field. unknown_widget: the id sent. over_quota: whose quota, "widget" or "sender"; about as many as there were, as one refusal in sixteen is counted, for sixteen. Good: no rows.';

CREATE TABLE widget_internal.health_response_times (
    widget_id uuid NOT NULL,
    hour timestamp with time zone NOT NULL,
    bucket smallint NOT NULL,
    answers bigint NOT NULL
);

COMMENT ON TABLE widget_internal.health_response_times IS 'How long senders waited for their answers, in steps of a tenth; read them through the view widget_response_times.';

CREATE VIEW public.widget_response_times WITH (security_invoker='true') AS
 SELECT r.widget_id,
    r.hour,
    (round(power((1.1)::double precision, (((r.bucket)::numeric - 0.5))::double precision)))::integer AS milliseconds,
    r.answers
   FROM widget_internal.health_response_times r;

COMMENT ON VIEW public.widget_response_times IS 'How long widgets waited for the answers to their requests, by their own clocks: by widget and hour, how many answers took about so many milliseconds (within 5 %). Sum up answers to get the median of any period. Good: most below 200.';

CREATE TABLE public.widget_statement_lines (
    period date NOT NULL,
    widget_id uuid NOT NULL,
    usage_period date NOT NULL,
    session_id text NOT NULL COLLATE pg_catalog."C",
    call_id text NOT NULL COLLATE pg_catalog."C",
    started_at timestamp with time zone NOT NULL,
    ended_at timestamp with time zone,
    outcome text,
    evidence text,
    duration_seconds numeric,
    old_seconds numeric NOT NULL,
    new_seconds numeric NOT NULL,
    difference_seconds numeric GENERATED ALWAYS AS ((new_seconds - old_seconds)) STORED NOT NULL,
    rule text NOT NULL,
    event_ids uuid[] DEFAULT '{}'::uuid[] NOT NULL,
    CONSTRAINT adjustments_change_something CHECK (((usage_period = period) OR (new_seconds <> old_seconds)))
);

COMMENT ON TABLE public.widget_statement_lines IS 'The calls on a closed month''s statement: each call of the month, and as an adjustment (usage_period before period) each call of an earlier month whose billable seconds late arrivals changed.';

COMMENT ON COLUMN public.widget_statement_lines.usage_period IS 'The month in which the call started.';

COMMENT ON COLUMN public.widget_statement_lines.outcome IS 'Null where the call is no longer one of that month.';

COMMENT ON COLUMN public.widget_statement_lines.old_seconds IS 'Billable seconds on all statements before; 0 where there are none.';

COMMENT ON COLUMN public.widget_statement_lines.new_seconds IS 'Billable seconds now.';

COMMENT ON COLUMN public.widget_statement_lines.event_ids IS 'Of an adjustment: the call''s events received since it was last billed. None: a setting was changed.';

CREATE TABLE public.widgets (
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    owner_id uuid,
    name text DEFAULT ''::text NOT NULL,
    allowed_domains text[] DEFAULT '{}'::text[] NOT NULL,
    is_active boolean DEFAULT true NOT NULL,
    is_demo boolean DEFAULT false NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT allowed_domains_are_bare_hosts CHECK (widget_internal.are_bare_hosts(allowed_domains))
);

COMMENT ON TABLE public.widgets IS 'The call widgets that a company embeds on its customers'' sites, each with the owner who pays.';

COMMENT ON COLUMN public.widgets.owner_id IS 'Who sees this widget''s rows and pays its bill; null: the company itself.';

COMMENT ON COLUMN public.widgets.allowed_domains IS 'Hosts whose pages may send events (R8): "shop.example" is that host alone, "*.shop.example" its subdomains, "*" any host; {} none. No scheme, port or path; international names in punycode.';

COMMENT ON COLUMN public.widgets.is_active IS 'Events of an inactive widget are refused.';

COMMENT ON COLUMN public.widgets.is_demo IS 'Events of a demo widget are answered with success and not stored.';

CREATE TABLE widget_internal.alert_posts (
    id bigint NOT NULL,
    body jsonb NOT NULL,
    request_id bigint NOT NULL,
    first_posted_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    posted_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    taken boolean DEFAULT false NOT NULL
);

COMMENT ON TABLE widget_internal.alert_posts IS 'What was posted to the webhook in the last 30 days, as which request of pg_net, and whether it was taken.';

ALTER TABLE widget_internal.alert_posts ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME widget_internal.alert_posts_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE widget_internal.alert_settings (
    only_row boolean DEFAULT true NOT NULL,
    url text NOT NULL,
    min_delivery_rate numeric NOT NULL,
    min_completion_rate numeric NOT NULL,
    min_cases integer NOT NULL,
    repeat_after interval NOT NULL,
    CONSTRAINT alert_min_cases_is_positive CHECK ((min_cases > 0)),
    CONSTRAINT alert_rates_are_shares CHECK ((((min_delivery_rate >= (0)::numeric) AND (min_delivery_rate <= (1)::numeric)) AND ((min_completion_rate >= (0)::numeric) AND (min_completion_rate <= (1)::numeric)))),
    CONSTRAINT alert_repeat_after_is_positive CHECK ((repeat_after > '00:00:00'::interval)),
    CONSTRAINT alert_settings_are_one_row CHECK (only_row),
    CONSTRAINT alert_url_is_http CHECK ((url ~ '^https?://[^[:space:]]+$'::text))
);

COMMENT ON TABLE widget_internal.alert_settings IS 'Where alerts go, and when; no row while they are off. The URL is a secret.';

CREATE TABLE widget_internal.archived_sessions (
    session_key uuid NOT NULL,
    month date NOT NULL
);

COMMENT ON TABLE widget_internal.archived_sessions IS 'The sessions that are in the archive and not in the ledger, by archived_session_key(): 76 bytes each, index and all.';

COMMENT ON COLUMN widget_internal.archived_sessions.month IS 'The month whose files hold the session.';

CREATE TABLE widget_internal.event_counts (
    subject uuid NOT NULL,
    window_start timestamp with time zone NOT NULL,
    shard smallint NOT NULL,
    events bigint NOT NULL,
    CONSTRAINT events_are_positive CHECK ((events > 0))
)
WITH (fillfactor='50');

COMMENT ON TABLE widget_internal.event_counts IS 'Events towards a quota, of a widget and day or of a sender and minute.';

CREATE TABLE widget_internal.sessions_to_archive (
    chunk integer NOT NULL,
    widget_id uuid NOT NULL,
    session_id text NOT NULL COLLATE pg_catalog."C",
    session_key uuid NOT NULL,
    first_at timestamp with time zone NOT NULL,
    last_at timestamp with time zone NOT NULL
);

COMMENT ON TABLE widget_internal.sessions_to_archive IS 'The sessions of the month that is being archived. Each chunk from 1 on, of at most 100, leaves the ledger in one transaction; those of chunk 0 are copied and stay.';

CREATE VIEW widget_internal.events_to_archive WITH (security_invoker='true') AS
 WITH rows_of_files AS (
         SELECT s.chunk,
            e.id,
            e.widget_id,
            e.event_type,
            e.session_id,
            e.page_url,
            e.user_agent,
            e."timestamp",
            e.call_id,
            e.seq,
            e.source,
            e.received_at,
            (e.properties)::text AS properties,
            ((EXTRACT(epoch FROM e."timestamp") * (1000000)::numeric))::bigint AS happened_us,
            ((EXTRACT(epoch FROM e.received_at) * (1000000)::numeric))::bigint AS received_us,
                CASE
                    WHEN (((e.event_type)::text = ANY (ARRAY['call_end'::text, 'call_error'::text])) AND ((e.source)::text = ANY (ARRAY['operator'::text, 'provider'::text, 'server'::text])) AND (jsonb_typeof(((e.properties)::jsonb -> 'duration_seconds'::text)) = 'number'::text)) THEN ((EXTRACT(epoch FROM ((LEAST(GREATEST((((e.properties)::jsonb ->> 'duration_seconds'::text))::numeric, (0)::numeric), (1000000000)::numeric))::double precision * '00:00:01'::interval)) * (1000000)::numeric))::bigint
                    ELSE NULL::bigint
                END AS stated_us,
                CASE
                    WHEN ((e.source)::text = 'operator'::text) THEN ((('; set by '::text || ((e.properties)::jsonb ->> 'corrected_by'::text)) || ': '::text) || ((e.properties)::jsonb ->> 'reason'::text))
                    ELSE NULL::text
                END AS note
           FROM (widget_internal.sessions_to_archive s
             CROSS JOIN LATERAL ( SELECT a.id,
                    a.widget_id,
                    a.event_type,
                    a.session_id,
                    a.page_url,
                    a.user_agent,
                    a."timestamp",
                    a.call_id,
                    a.seq,
                    a.source,
                    a.received_at,
                    a.properties
                   FROM public.widget_analytics a
                  WHERE ((a.widget_id = s.widget_id) AND (((a."timestamp")::timestamp with time zone >= s.first_at) AND ((a."timestamp")::timestamp with time zone <= s.last_at)) AND ((a.session_id)::text = s.session_id))
                 OFFSET 0) e)
        )
 SELECT r.chunk,
    r.id,
    r.widget_id,
    r.event_type,
    r.session_id,
    r.page_url,
    r.user_agent,
    r."timestamp",
    r.call_id,
    r.seq,
    r.source,
    r.received_at,
    r.properties,
    r.happened_us,
    r.received_us,
    r.stated_us,
    r.note,
    encode(sha256(convert_to(concat_ws('|'::text, r.id, r.widget_id, r.event_type, r.source, r.happened_us, r.received_us, COALESCE((r.seq)::integer, 0), COALESCE(r.stated_us, ('-1'::integer)::bigint), octet_length((r.session_id)::text), r.session_id, COALESCE(octet_length((r.call_id)::text), '-1'::integer), r.call_id, COALESCE(octet_length(r.page_url), '-1'::integer), r.page_url, COALESCE(octet_length(r.user_agent), '-1'::integer), r.user_agent, COALESCE(octet_length(r.properties), '-1'::integer), r.properties, COALESCE(octet_length(r.note), '-1'::integer), r.note), 'UTF8'::name)), 'hex'::text) AS digest
   FROM rows_of_files r;

COMMENT ON VIEW widget_internal.events_to_archive IS 'The events of sessions_to_archive as the archive''s files hold them, each with the SHA-256 by which it is compared.';

CREATE VIEW widget_internal.plan_validity WITH (security_invoker='true') AS
 SELECT p.widget_id,
    p.valid_from,
    lead(p.valid_from, 1, 'infinity'::date) OVER (PARTITION BY p.widget_id ORDER BY p.valid_from) AS valid_until,
    p.*::public.widget_plans AS plan
   FROM public.widget_plans p;

COMMENT ON VIEW widget_internal.plan_validity IS 'Each plan with the months that it holds for: [valid_from, valid_until).';

CREATE TABLE widget_internal.sender_salts (
    day date NOT NULL,
    salt bytea DEFAULT (uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())) NOT NULL
);

COMMENT ON TABLE widget_internal.sender_salts IS 'The day''s key for hashing addresses. Once it is deleted, nobody can tell whose address a hash was of.';

CREATE TABLE widget_internal.settings (
    only_row boolean DEFAULT true NOT NULL,
    max_call_duration interval DEFAULT '04:00:00'::interval NOT NULL,
    billing_time_zone text DEFAULT 'UTC'::text NOT NULL,
    events_per_widget_per_day bigint DEFAULT 1000000,
    events_per_sender_per_minute bigint DEFAULT 3000,
    sender_address_hop integer DEFAULT 1 NOT NULL,
    events_per_count integer DEFAULT 46 NOT NULL,
    widgets_throttled_until timestamp with time zone DEFAULT '-infinity'::timestamp with time zone NOT NULL,
    senders_throttled_until timestamp with time zone DEFAULT '-infinity'::timestamp with time zone NOT NULL,
    keep_runs interval DEFAULT '90 days'::interval NOT NULL,
    keep_refusals interval DEFAULT '400 days'::interval NOT NULL,
    CONSTRAINT billing_time_zone_is_known CHECK ((('1970-01-01 00:00:00+00'::timestamp with time zone AT TIME ZONE billing_time_zone) IS NOT NULL)),
    CONSTRAINT events_per_count_are_1_to_64 CHECK (((events_per_count >= 1) AND (events_per_count <= 64))),
    CONSTRAINT keep_refusals_is_a_day_at_least CHECK ((keep_refusals >= '1 day'::interval)),
    CONSTRAINT keep_runs_is_a_day_at_least CHECK ((keep_runs >= '1 day'::interval)),
    CONSTRAINT max_call_duration_is_positive CHECK ((max_call_duration > '00:00:00'::interval)),
    CONSTRAINT quotas_are_positive CHECK (((events_per_widget_per_day > 0) AND (events_per_sender_per_minute > 0))),
    CONSTRAINT sender_address_hop_starts_at_1 CHECK ((sender_address_hop >= 1)),
    CONSTRAINT settings_are_one_row CHECK (only_row)
);

COMMENT ON TABLE widget_internal.settings IS 'The settings of widget analytics: exactly one row.';

COMMENT ON COLUMN widget_internal.settings.max_call_duration IS 'No call ends later than this after its start (R5). A change recomputes the calls that it concerns.';

COMMENT ON COLUMN widget_internal.settings.billing_time_zone IS 'The time zone whose months are billed, such as Europe/Vienna. Fixed once a month has been closed.';

COMMENT ON COLUMN widget_internal.settings.events_per_widget_per_day IS 'How many events of a widget are taken in a day (UTC); null: any number. widget_quotas says otherwise for one widget.';

COMMENT ON COLUMN widget_internal.settings.events_per_sender_per_minute IS 'How many events are taken from one network address (IPv6: one /64) in a minute; null: any number.';

COMMENT ON COLUMN widget_internal.settings.sender_address_hop IS 'Which address of X-Forwarded-For is the sender''s, counted from its right end, where the nearest proxy writes: 1 is the last. Anyone can write what stands further left than your own proxies do.';

COMMENT ON COLUMN widget_internal.settings.events_per_count IS 'One event in so many is counted, for so many. Kept by a trigger: 64, or less where a quota is small.';

COMMENT ON COLUMN widget_internal.settings.widgets_throttled_until IS 'Until when some widget is over its quota; kept by the door.';

COMMENT ON COLUMN widget_internal.settings.senders_throttled_until IS 'Until when some sender is over its quota; kept by the door.';

COMMENT ON COLUMN widget_internal.settings.keep_runs IS 'How long widget_cleanup_runs, and pg_cron''s own notes of our jobs, are kept.';

COMMENT ON COLUMN widget_internal.settings.keep_refusals IS 'How long the hours of widget_refusals are kept.';

CREATE TABLE widget_internal.standing_alarms (
    alarm text NOT NULL,
    widget_id uuid,
    message text NOT NULL,
    since timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    told_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);

COMMENT ON TABLE widget_internal.standing_alarms IS 'What was told to be not well, and not yet told to be well again.';

CREATE TABLE widget_internal.throttles (
    subject uuid NOT NULL,
    until timestamp with time zone NOT NULL
);

COMMENT ON TABLE widget_internal.throttles IS 'Who is over quota, and until when: a widget, or a sender().';

ALTER TABLE ONLY public.widget_analytics
    ADD CONSTRAINT widget_analytics_pkey PRIMARY KEY (id, widget_id);

ALTER TABLE ONLY public.widget_archives
    ADD CONSTRAINT widget_archives_pkey PRIMARY KEY (month);

ALTER TABLE ONLY public.widget_billing_periods
    ADD CONSTRAINT widget_billing_periods_pkey PRIMARY KEY (period);

ALTER TABLE ONLY public.widget_statement_lines
    ADD CONSTRAINT widget_calls_have_one_line_a_statement PRIMARY KEY (period, widget_id, usage_period, session_id, call_id);

ALTER TABLE ONLY public.widget_calls
    ADD CONSTRAINT widget_calls_pkey PRIMARY KEY (widget_id, session_id, call_id);

ALTER TABLE ONLY public.widget_cleanup_runs
    ADD CONSTRAINT widget_cleanup_runs_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.widget_erasures
    ADD CONSTRAINT widget_erasures_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.widget_late_events
    ADD CONSTRAINT widget_late_events_pkey PRIMARY KEY (id, widget_id);

ALTER TABLE ONLY public.widget_quotas
    ADD CONSTRAINT widget_quotas_pkey PRIMARY KEY (widget_id);

ALTER TABLE ONLY public.widget_statement_charges
    ADD CONSTRAINT widgets_are_charged_once_for_a_month PRIMARY KEY (period, widget_id, usage_period);

ALTER TABLE ONLY public.widget_plans
    ADD CONSTRAINT widgets_have_one_plan_a_month PRIMARY KEY (widget_id, valid_from);

ALTER TABLE ONLY public.widgets
    ADD CONSTRAINT widgets_pkey PRIMARY KEY (id);

ALTER TABLE ONLY widget_internal.alert_posts
    ADD CONSTRAINT alert_posts_pkey PRIMARY KEY (id);

ALTER TABLE ONLY widget_internal.alert_settings
    ADD CONSTRAINT alert_settings_pkey PRIMARY KEY (only_row);

ALTER TABLE ONLY widget_internal.archived_sessions
    ADD CONSTRAINT archived_sessions_pkey PRIMARY KEY (session_key);

ALTER TABLE ONLY widget_internal.event_counts
    ADD CONSTRAINT event_counts_are_one_row_a_shard PRIMARY KEY (subject, window_start, shard);

ALTER TABLE ONLY widget_internal.health_calls
    ADD CONSTRAINT health_calls_pkey PRIMARY KEY (widget_id, hour);

ALTER TABLE ONLY widget_internal.health_hours
    ADD CONSTRAINT health_hours_pkey PRIMARY KEY (widget_id, hour);

ALTER TABLE ONLY widget_internal.health_pages
    ADD CONSTRAINT health_pages_pkey PRIMARY KEY (widget_id, day, page_url);

ALTER TABLE ONLY widget_internal.health_response_times
    ADD CONSTRAINT health_response_times_pkey PRIMARY KEY (widget_id, hour, bucket);

ALTER TABLE ONLY widget_internal.health_sessions
    ADD CONSTRAINT health_sessions_pkey PRIMARY KEY (widget_id, session_id);

ALTER TABLE ONLY widget_internal.health_state
    ADD CONSTRAINT health_state_pkey PRIMARY KEY (only_row);

ALTER TABLE ONLY widget_internal.refusal_counts
    ADD CONSTRAINT refusal_counts_are_one_row_a_shard UNIQUE NULLS NOT DISTINCT (hour, widget_id, reason, detail, shard);

ALTER TABLE ONLY widget_internal.sender_salts
    ADD CONSTRAINT sender_salts_pkey PRIMARY KEY (day);

ALTER TABLE ONLY widget_internal.sessions_to_archive
    ADD CONSTRAINT sessions_to_archive_pkey PRIMARY KEY (chunk, widget_id, session_id);

ALTER TABLE ONLY widget_internal.settings
    ADD CONSTRAINT settings_pkey PRIMARY KEY (only_row);

ALTER TABLE ONLY widget_internal.standing_alarms
    ADD CONSTRAINT standing_alarms_stand_once UNIQUE NULLS NOT DISTINCT (alarm, widget_id);

ALTER TABLE ONLY widget_internal.throttles
    ADD CONSTRAINT throttles_pkey PRIMARY KEY (subject);

CREATE INDEX widget_analytics_received_at_idx ON public.widget_analytics USING brin (received_at) WITH (pages_per_range='32', autosummarize='on');

COMMENT ON INDEX public.widget_analytics_received_at_idx IS 'Serves refresh_widget_health(): what came in since.';

CREATE INDEX widget_analytics_session_calls_idx ON public.widget_analytics USING btree (widget_id, session_id) WHERE ((event_type)::text = ANY (ARRAY['call_start'::text, 'call_heartbeat'::text, 'call_end'::text, 'call_error'::text]));

COMMENT ON INDEX public.widget_analytics_session_calls_idx IS 'Serves widget_internal.session_calls(): the call events of one session. Stays at its right edge while session ids are time-ordered.';

CREATE INDEX widget_analytics_widget_id_timestamp_idx ON public.widget_analytics USING btree (widget_id, "timestamp");

COMMENT ON INDEX public.widget_analytics_widget_id_timestamp_idx IS 'Serves "what did this widget send, latest first", and keep_widgets_with_events(): has it any events?';

CREATE INDEX widget_calls_open_idx ON public.widget_calls USING btree (started_at) WHERE (ended_at IS NULL);

COMMENT ON INDEX public.widget_calls_open_idx IS 'Serves complete_stale_sessions(): its work follows the open calls alone (R7).';

CREATE INDEX widget_calls_started_at_idx ON public.widget_calls USING btree (started_at);

COMMENT ON INDEX public.widget_calls_started_at_idx IS 'Serves all widgets'' calls of a period: the bill.';

CREATE INDEX widget_calls_widget_id_started_at_idx ON public.widget_calls USING btree (widget_id, started_at) INCLUDE (outcome, evidence, duration_seconds);

COMMENT ON INDEX public.widget_calls_widget_id_started_at_idx IS 'Serves one widget''s calls of a period, and its bill.';

CREATE INDEX widget_cleanup_runs_started_at_idx ON public.widget_cleanup_runs USING btree (started_at);

COMMENT ON INDEX public.widget_cleanup_runs_started_at_idx IS 'Serves widget_internal.prune(), and "the latest runs".';

CREATE INDEX widget_erasures_widget_id_session_id_idx ON public.widget_erasures USING btree (widget_id, session_id);

COMMENT ON INDEX public.widget_erasures_widget_id_session_id_idx IS 'Serves "was this session erased?" and an owner''s own rows.';

CREATE INDEX widgets_owner_id_idx ON public.widgets USING btree (owner_id);

COMMENT ON INDEX public.widgets_owner_id_idx IS 'Serves widget_internal.owned_widget_ids(): which widgets are mine?';

CREATE INDEX health_calls_hour_idx ON widget_internal.health_calls USING brin (hour) WITH (pages_per_range='32', autosummarize='on');

COMMENT ON INDEX widget_internal.health_calls_hour_idx IS 'Serves widget_health: the latest hours of all widgets. Rows stand roughly in the order of hours.';

CREATE INDEX health_hours_hour_idx ON widget_internal.health_hours USING brin (hour) WITH (pages_per_range='32', autosummarize='on');

COMMENT ON INDEX widget_internal.health_hours_hour_idx IS 'Serves widget_health: the latest hours of all widgets. Rows stand roughly in the order of hours.';

CREATE INDEX health_response_times_hour_idx ON widget_internal.health_response_times USING brin (hour) WITH (pages_per_range='32', autosummarize='on');

COMMENT ON INDEX widget_internal.health_response_times_hour_idx IS 'Serves widget_rates(): the latest hours of all widgets. Rows stand roughly in the order of hours.';

CREATE INDEX refusal_counts_widget_id_idx ON widget_internal.refusal_counts USING btree (widget_id, hour);

COMMENT ON INDEX widget_internal.refusal_counts_widget_id_idx IS 'Serves "why is this widget not tracking?".';

CREATE TRIGGER apply_quotas_on_change AFTER INSERT OR DELETE OR UPDATE ON public.widget_quotas FOR EACH STATEMENT EXECUTE FUNCTION widget_internal.apply_quotas();

CREATE TRIGGER billed_plans_stay AFTER INSERT OR DELETE OR UPDATE ON public.widget_plans FOR EACH ROW EXECUTE FUNCTION widget_internal.keep_billed_plans();

CREATE TRIGGER charges_are_sealed BEFORE INSERT ON public.widget_statement_charges FOR EACH ROW EXECUTE FUNCTION widget_internal.seal_charge();

CREATE TRIGGER charges_never_change BEFORE DELETE OR UPDATE OR TRUNCATE ON public.widget_statement_charges FOR EACH STATEMENT EXECUTE FUNCTION widget_internal.refuse_change();

CREATE TRIGGER closed_months_take_no_charges AFTER INSERT ON public.widget_statement_charges REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION widget_internal.refuse_addition();

CREATE TRIGGER closed_months_take_no_lines AFTER INSERT ON public.widget_statement_lines REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION widget_internal.refuse_addition();

CREATE TRIGGER divert_archived_events BEFORE INSERT ON public.widget_analytics FOR EACH ROW WHEN ((NOT widget_internal.is_young_session((new.session_id)::text, (now() - '34 days'::interval)))) EXECUTE FUNCTION widget_internal.divert_archived_event();

ALTER TABLE public.widget_analytics DISABLE TRIGGER divert_archived_events;

CREATE TRIGGER empty_widget_calls_on_truncate AFTER TRUNCATE ON public.widget_analytics FOR EACH STATEMENT EXECUTE FUNCTION widget_internal.empty_widget_calls();

CREATE TRIGGER forget_health_page_on_erasure AFTER INSERT ON public.widget_erasures FOR EACH ROW EXECUTE FUNCTION widget_internal.forget_health_page();

CREATE TRIGGER keep_widget_calls_on_delete AFTER DELETE ON public.widget_analytics REFERENCING OLD TABLE AS changed_events FOR EACH STATEMENT EXECUTE FUNCTION widget_internal.keep_widget_calls();

CREATE TRIGGER keep_widget_calls_on_insert AFTER INSERT ON public.widget_analytics REFERENCING NEW TABLE AS changed_events FOR EACH STATEMENT WHEN ((COALESCE(current_setting('widget_internal.door_stores'::text, true), ''::text) <> 'yes'::text)) EXECUTE FUNCTION widget_internal.keep_widget_calls();

CREATE TRIGGER keep_widget_calls_on_update_of_old AFTER UPDATE ON public.widget_analytics REFERENCING OLD TABLE AS changed_events FOR EACH STATEMENT EXECUTE FUNCTION widget_internal.keep_widget_calls();

CREATE TRIGGER keep_widget_calls_on_update_to_new AFTER UPDATE ON public.widget_analytics REFERENCING NEW TABLE AS changed_events FOR EACH STATEMENT EXECUTE FUNCTION widget_internal.keep_widget_calls();

CREATE TRIGGER lines_never_change BEFORE DELETE OR UPDATE OR TRUNCATE ON public.widget_statement_lines FOR EACH STATEMENT EXECUTE FUNCTION widget_internal.refuse_change();

CREATE TRIGGER periods_are_sealed BEFORE INSERT ON public.widget_billing_periods FOR EACH ROW EXECUTE FUNCTION widget_internal.seal_period();

CREATE TRIGGER periods_never_change BEFORE DELETE OR UPDATE OR TRUNCATE ON public.widget_billing_periods FOR EACH STATEMENT EXECUTE FUNCTION widget_internal.refuse_change();

CREATE TRIGGER widgets_with_events_stay AFTER DELETE OR UPDATE OF id ON public.widgets FOR EACH ROW EXECUTE FUNCTION widget_internal.keep_widgets_with_events();

CREATE CONSTRAINT TRIGGER widgets_with_events_stay_at_the_end AFTER DELETE OR UPDATE OF id ON public.widgets DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION widget_internal.keep_widgets_with_events('at the end');

CREATE TRIGGER widgets_with_events_stay_on_truncate BEFORE TRUNCATE ON public.widgets FOR EACH STATEMENT EXECUTE FUNCTION widget_internal.keep_widgets_with_events();

CREATE TRIGGER apply_quotas_on_change AFTER UPDATE OF events_per_widget_per_day, events_per_sender_per_minute ON widget_internal.settings FOR EACH STATEMENT EXECUTE FUNCTION widget_internal.apply_quotas();

CREATE TRIGGER billing_time_zone_stays AFTER UPDATE OF billing_time_zone ON widget_internal.settings FOR EACH ROW WHEN ((old.billing_time_zone <> new.billing_time_zone)) EXECUTE FUNCTION widget_internal.keep_billing_time_zone();

CREATE TRIGGER recompute_capped_calls_on_change AFTER UPDATE OF max_call_duration ON widget_internal.settings FOR EACH ROW EXECUTE FUNCTION widget_internal.recompute_capped_calls();

ALTER TABLE ONLY public.widget_statement_lines
    ADD CONSTRAINT lines_belong_to_a_charge FOREIGN KEY (period, widget_id, usage_period) REFERENCES public.widget_statement_charges(period, widget_id, usage_period) DEFERRABLE INITIALLY DEFERRED;

ALTER TABLE ONLY public.widget_plans
    ADD CONSTRAINT widget_plans_widget_id_fkey FOREIGN KEY (widget_id) REFERENCES public.widgets(id);

ALTER TABLE ONLY public.widget_statement_charges
    ADD CONSTRAINT widget_statement_charges_period_fkey FOREIGN KEY (period) REFERENCES public.widget_billing_periods(period) DEFERRABLE INITIALLY DEFERRED;

ALTER TABLE ONLY public.widgets
    ADD CONSTRAINT widgets_owner_id_fkey FOREIGN KEY (owner_id) REFERENCES auth.users(id);

CREATE POLICY "owners see the months that they have charges in" ON public.widget_billing_periods FOR SELECT TO authenticated USING ((period IN ( SELECT c.period
   FROM public.widget_statement_charges c)));

CREATE POLICY "owners see their widgets" ON public.widgets FOR SELECT TO authenticated USING ((id = ANY (ARRAY( SELECT widget_internal.owned_widget_ids() AS owned_widget_ids))));

CREATE POLICY "owners see their widgets' calls" ON public.widget_calls FOR SELECT TO authenticated USING ((widget_id = ANY (ARRAY( SELECT widget_internal.owned_widget_ids() AS owned_widget_ids))));

CREATE POLICY "owners see their widgets' charges" ON public.widget_statement_charges FOR SELECT TO authenticated USING ((widget_id = ANY (ARRAY( SELECT widget_internal.owned_widget_ids() AS owned_widget_ids))));

CREATE POLICY "owners see their widgets' erasures" ON public.widget_erasures FOR SELECT TO authenticated USING ((widget_id = ANY (ARRAY( SELECT widget_internal.owned_widget_ids() AS owned_widget_ids))));

CREATE POLICY "owners see their widgets' events" ON public.widget_analytics FOR SELECT TO authenticated USING ((widget_id = ANY (ARRAY( SELECT widget_internal.owned_widget_ids() AS owned_widget_ids))));

CREATE POLICY "owners see their widgets' lines" ON public.widget_statement_lines FOR SELECT TO authenticated USING ((widget_id = ANY (ARRAY( SELECT widget_internal.owned_widget_ids() AS owned_widget_ids))));

CREATE POLICY "owners see their widgets' plans" ON public.widget_plans FOR SELECT TO authenticated USING ((widget_id = ANY (ARRAY( SELECT widget_internal.owned_widget_ids() AS owned_widget_ids))));

CREATE POLICY "owners see their widgets' quotas" ON public.widget_quotas FOR SELECT TO authenticated USING ((widget_id = ANY (ARRAY( SELECT widget_internal.owned_widget_ids() AS owned_widget_ids))));

ALTER TABLE public.widget_analytics ENABLE ROW LEVEL SECURITY;

ALTER TABLE public.widget_archives ENABLE ROW LEVEL SECURITY;

ALTER TABLE public.widget_billing_periods ENABLE ROW LEVEL SECURITY;

ALTER TABLE public.widget_calls ENABLE ROW LEVEL SECURITY;

ALTER TABLE public.widget_cleanup_runs ENABLE ROW LEVEL SECURITY;

ALTER TABLE public.widget_erasures ENABLE ROW LEVEL SECURITY;

ALTER TABLE public.widget_late_events ENABLE ROW LEVEL SECURITY;

ALTER TABLE public.widget_plans ENABLE ROW LEVEL SECURITY;

ALTER TABLE public.widget_quotas ENABLE ROW LEVEL SECURITY;

ALTER TABLE public.widget_statement_charges ENABLE ROW LEVEL SECURITY;

ALTER TABLE public.widget_statement_lines ENABLE ROW LEVEL SECURITY;

ALTER TABLE public.widgets ENABLE ROW LEVEL SECURITY;

ALTER TABLE widget_internal.alert_posts ENABLE ROW LEVEL SECURITY;

ALTER TABLE widget_internal.alert_settings ENABLE ROW LEVEL SECURITY;

ALTER TABLE widget_internal.archived_sessions ENABLE ROW LEVEL SECURITY;

ALTER TABLE widget_internal.event_counts ENABLE ROW LEVEL SECURITY;

ALTER TABLE widget_internal.health_calls ENABLE ROW LEVEL SECURITY;

ALTER TABLE widget_internal.health_hours ENABLE ROW LEVEL SECURITY;

ALTER TABLE widget_internal.health_pages ENABLE ROW LEVEL SECURITY;

ALTER TABLE widget_internal.health_response_times ENABLE ROW LEVEL SECURITY;

ALTER TABLE widget_internal.health_sessions ENABLE ROW LEVEL SECURITY;

ALTER TABLE widget_internal.health_state ENABLE ROW LEVEL SECURITY;

CREATE POLICY "owners see their widgets' calls by hour" ON widget_internal.health_calls FOR SELECT TO authenticated USING ((widget_id = ANY (ARRAY( SELECT widget_internal.owned_widget_ids() AS owned_widget_ids))));

CREATE POLICY "owners see their widgets' hours" ON widget_internal.health_hours FOR SELECT TO authenticated USING ((widget_id = ANY (ARRAY( SELECT widget_internal.owned_widget_ids() AS owned_widget_ids))));

CREATE POLICY "owners see their widgets' pages" ON widget_internal.health_pages FOR SELECT TO authenticated USING ((widget_id = ANY (ARRAY( SELECT widget_internal.owned_widget_ids() AS owned_widget_ids))));

CREATE POLICY "owners see their widgets' refusals" ON widget_internal.refusal_counts FOR SELECT TO authenticated USING ((widget_id = ANY (ARRAY( SELECT widget_internal.owned_widget_ids() AS owned_widget_ids))));

CREATE POLICY "owners see their widgets' response times" ON widget_internal.health_response_times FOR SELECT TO authenticated USING ((widget_id = ANY (ARRAY( SELECT widget_internal.owned_widget_ids() AS owned_widget_ids))));

ALTER TABLE widget_internal.refusal_counts ENABLE ROW LEVEL SECURITY;

ALTER TABLE widget_internal.sender_salts ENABLE ROW LEVEL SECURITY;

ALTER TABLE widget_internal.sessions_to_archive ENABLE ROW LEVEL SECURITY;

ALTER TABLE widget_internal.settings ENABLE ROW LEVEL SECURITY;

ALTER TABLE widget_internal.standing_alarms ENABLE ROW LEVEL SECURITY;

ALTER TABLE widget_internal.throttles ENABLE ROW LEVEL SECURITY;

CREATE POLICY "whoever computes a call sees the settings" ON widget_internal.settings FOR SELECT TO authenticated USING (true);

CREATE POLICY "whoever reads health sees as of when it is" ON widget_internal.health_state FOR SELECT TO authenticated USING (true);

GRANT USAGE ON SCHEMA public TO postgres;
GRANT USAGE ON SCHEMA public TO anon;
GRANT USAGE ON SCHEMA public TO authenticated;
GRANT USAGE ON SCHEMA public TO service_role;

GRANT USAGE ON SCHEMA widget_internal TO anon;
GRANT USAGE ON SCHEMA widget_internal TO authenticated;
GRANT USAGE ON SCHEMA widget_internal TO service_role;

REVOKE ALL ON FUNCTION public.broken_widget_statements() FROM PUBLIC;
GRANT ALL ON FUNCTION public.broken_widget_statements() TO service_role;

REVOKE ALL ON FUNCTION public.close_widget_billing_period(period text) FROM PUBLIC;
GRANT ALL ON FUNCTION public.close_widget_billing_period(period text) TO service_role;

REVOKE ALL ON FUNCTION public.complete_stale_sessions(stale_after interval) FROM PUBLIC;
GRANT ALL ON FUNCTION public.complete_stale_sessions(stale_after interval) TO service_role;

REVOKE ALL ON FUNCTION public.correct_widget_call(widget_id uuid, session_id text, call_id text, duration_seconds numeric, reason text, corrected_by text) FROM PUBLIC;
GRANT ALL ON FUNCTION public.correct_widget_call(widget_id uuid, session_id text, call_id text, duration_seconds numeric, reason text, corrected_by text) TO service_role;

REVOKE ALL ON FUNCTION public.disable_widget_alerts() FROM PUBLIC;

REVOKE ALL ON FUNCTION public.enable_widget_alerts(url text, min_delivery_rate numeric, min_completion_rate numeric, min_cases integer, repeat_after interval) FROM PUBLIC;

REVOKE ALL ON FUNCTION public.erase_widget_session(widget_id uuid, session_id text) FROM PUBLIC;
GRANT ALL ON FUNCTION public.erase_widget_session(widget_id uuid, session_id text) TO authenticated;
GRANT ALL ON FUNCTION public.erase_widget_session(widget_id uuid, session_id text) TO service_role;

REVOKE ALL ON FUNCTION public.record_widget_call_evidence(widget_id uuid, session_id text, call_id text, source text, record_id text, started_at timestamp with time zone, ended_at timestamp with time zone, outcome text) FROM PUBLIC;
GRANT ALL ON FUNCTION public.record_widget_call_evidence(widget_id uuid, session_id text, call_id text, source text, record_id text, started_at timestamp with time zone, ended_at timestamp with time zone, outcome text) TO service_role;

REVOKE ALL ON FUNCTION public.refresh_widget_health(OUT counted_to timestamp with time zone, OUT events_counted bigint) FROM PUBLIC;
GRANT ALL ON FUNCTION public.refresh_widget_health(OUT counted_to timestamp with time zone, OUT events_counted bigint) TO service_role;

REVOKE ALL ON FUNCTION public.track_event(widget_id uuid, event_type text, session_id text, page_url text, event_id uuid, call_id text, seq integer, age_ms bigint, properties jsonb) FROM PUBLIC;
GRANT ALL ON FUNCTION public.track_event(widget_id uuid, event_type text, session_id text, page_url text, event_id uuid, call_id text, seq integer, age_ms bigint, properties jsonb) TO anon;
GRANT ALL ON FUNCTION public.track_event(widget_id uuid, event_type text, session_id text, page_url text, event_id uuid, call_id text, seq integer, age_ms bigint, properties jsonb) TO authenticated;
GRANT ALL ON FUNCTION public.track_event(widget_id uuid, event_type text, session_id text, page_url text, event_id uuid, call_id text, seq integer, age_ms bigint, properties jsonb) TO service_role;

REVOKE ALL ON FUNCTION public.track_events(events jsonb) FROM PUBLIC;
GRANT ALL ON FUNCTION public.track_events(events jsonb) TO anon;
GRANT ALL ON FUNCTION public.track_events(events jsonb) TO authenticated;
GRANT ALL ON FUNCTION public.track_events(events jsonb) TO service_role;

REVOKE ALL ON FUNCTION public.widget_alarms(min_delivery_rate numeric, min_completion_rate numeric, min_cases integer, period interval) FROM PUBLIC;
GRANT ALL ON FUNCTION public.widget_alarms(min_delivery_rate numeric, min_completion_rate numeric, min_cases integer, period interval) TO service_role;

REVOKE ALL ON FUNCTION public.widget_billing_calls(period_start timestamp with time zone, period_end timestamp with time zone, as_of timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION public.widget_billing_calls(period_start timestamp with time zone, period_end timestamp with time zone, as_of timestamp with time zone) TO authenticated;
GRANT ALL ON FUNCTION public.widget_billing_calls(period_start timestamp with time zone, period_end timestamp with time zone, as_of timestamp with time zone) TO service_role;

REVOKE ALL ON FUNCTION public.widget_billing_period(period text, OUT period_start timestamp with time zone, OUT period_end timestamp with time zone, OUT time_zone text) FROM PUBLIC;
GRANT ALL ON FUNCTION public.widget_billing_period(period text, OUT period_start timestamp with time zone, OUT period_end timestamp with time zone, OUT time_zone text) TO authenticated;
GRANT ALL ON FUNCTION public.widget_billing_period(period text, OUT period_start timestamp with time zone, OUT period_end timestamp with time zone, OUT time_zone text) TO service_role;

REVOKE ALL ON FUNCTION public.widget_billing_usage(period_start timestamp with time zone, period_end timestamp with time zone, as_of timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION public.widget_billing_usage(period_start timestamp with time zone, period_end timestamp with time zone, as_of timestamp with time zone) TO authenticated;
GRANT ALL ON FUNCTION public.widget_billing_usage(period_start timestamp with time zone, period_end timestamp with time zone, as_of timestamp with time zone) TO service_role;

REVOKE ALL ON FUNCTION public.widget_busiest_hosts(first_day date, last_day date, only_widget_id uuid) FROM PUBLIC;
GRANT ALL ON FUNCTION public.widget_busiest_hosts(first_day date, last_day date, only_widget_id uuid) TO authenticated;
GRANT ALL ON FUNCTION public.widget_busiest_hosts(first_day date, last_day date, only_widget_id uuid) TO service_role;

REVOKE ALL ON FUNCTION public.widget_busiest_pages(first_day date, last_day date, only_widget_id uuid, max_pages integer) FROM PUBLIC;
GRANT ALL ON FUNCTION public.widget_busiest_pages(first_day date, last_day date, only_widget_id uuid, max_pages integer) TO authenticated;
GRANT ALL ON FUNCTION public.widget_busiest_pages(first_day date, last_day date, only_widget_id uuid, max_pages integer) TO service_role;

REVOKE ALL ON FUNCTION public.widget_busiest_places(period_start timestamp with time zone, period_end timestamp with time zone, only_widget uuid, by text, row_limit integer) FROM PUBLIC;
GRANT ALL ON FUNCTION public.widget_busiest_places(period_start timestamp with time zone, period_end timestamp with time zone, only_widget uuid, by text, row_limit integer) TO authenticated;

REVOKE ALL ON FUNCTION public.widget_call_list(period_start timestamp with time zone, period_end timestamp with time zone, only_widget uuid, only_calls text, after_cursor text, page_size integer) FROM PUBLIC;
GRANT ALL ON FUNCTION public.widget_call_list(period_start timestamp with time zone, period_end timestamp with time zone, only_widget uuid, only_calls text, after_cursor text, page_size integer) TO authenticated;

REVOKE ALL ON FUNCTION public.widget_call_story(widget_id uuid, session_id text, call_id text) FROM PUBLIC;
GRANT ALL ON FUNCTION public.widget_call_story(widget_id uuid, session_id text, call_id text) TO authenticated;

REVOKE ALL ON FUNCTION public.widget_daily_usage(period_start timestamp with time zone, period_end timestamp with time zone, only_widget uuid) FROM PUBLIC;
GRANT ALL ON FUNCTION public.widget_daily_usage(period_start timestamp with time zone, period_end timestamp with time zone, only_widget uuid) TO authenticated;

REVOKE ALL ON FUNCTION public.widget_month_to_date(only_widget uuid) FROM PUBLIC;
GRANT ALL ON FUNCTION public.widget_month_to_date(only_widget uuid) TO authenticated;

REVOKE ALL ON FUNCTION public.widget_pending_adjustments() FROM PUBLIC;
GRANT ALL ON FUNCTION public.widget_pending_adjustments() TO authenticated;
GRANT ALL ON FUNCTION public.widget_pending_adjustments() TO service_role;

REVOKE ALL ON FUNCTION public.widget_rates(since timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION public.widget_rates(since timestamp with time zone) TO authenticated;
GRANT ALL ON FUNCTION public.widget_rates(since timestamp with time zone) TO service_role;

REVOKE ALL ON FUNCTION public.widget_refusal_totals(period_start timestamp with time zone, period_end timestamp with time zone, only_widget uuid, row_limit integer) FROM PUBLIC;
GRANT ALL ON FUNCTION public.widget_refusal_totals(period_start timestamp with time zone, period_end timestamp with time zone, only_widget uuid, row_limit integer) TO authenticated;

REVOKE ALL ON FUNCTION public.widget_traffic(period_start timestamp with time zone, period_end timestamp with time zone, only_widget uuid) FROM PUBLIC;
GRANT ALL ON FUNCTION public.widget_traffic(period_start timestamp with time zone, period_end timestamp with time zone, only_widget uuid) TO authenticated;

REVOKE ALL ON FUNCTION widget_internal.alert_body(alarms jsonb, cleared jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION widget_internal.apply_quotas() FROM PUBLIC;

REVOKE ALL ON FUNCTION widget_internal.archive_sums(first_chunk integer, last_chunk integer, as_of timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION widget_internal.archived_session_key(widget_id uuid, session_id text) FROM PUBLIC;

REVOKE ALL ON FUNCTION widget_internal.are_bare_hosts(hosts text[]) FROM PUBLIC;
GRANT ALL ON FUNCTION widget_internal.are_bare_hosts(hosts text[]) TO service_role;

REVOKE ALL ON FUNCTION widget_internal.as_text(value timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION widget_internal.as_text(value timestamp with time zone) TO service_role;

REVOKE ALL ON FUNCTION widget_internal.ask_door(widget_id uuid) FROM PUBLIC;

REVOKE ALL ON FUNCTION widget_internal.bare_page_url(page_url text) FROM PUBLIC;

REVOKE ALL ON FUNCTION widget_internal.bare_user_agent() FROM PUBLIC;

REVOKE ALL ON FUNCTION widget_internal.billing_facts(source text, properties jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION widget_internal.calls_as_of(period_start timestamp with time zone, period_end timestamp with time zone, as_of timestamp with time zone, only_sessions widget_internal.session_name[]) FROM PUBLIC;
GRANT ALL ON FUNCTION widget_internal.calls_as_of(period_start timestamp with time zone, period_end timestamp with time zone, as_of timestamp with time zone, only_sessions widget_internal.session_name[]) TO authenticated;
GRANT ALL ON FUNCTION widget_internal.calls_as_of(period_start timestamp with time zone, period_end timestamp with time zone, as_of timestamp with time zone, only_sessions widget_internal.session_name[]) TO service_role;

GRANT SELECT ON TABLE widget_internal.health_calls TO authenticated;
GRANT SELECT ON TABLE widget_internal.health_calls TO service_role;

REVOKE ALL ON FUNCTION widget_internal.calls_of_hour(widget_id uuid, hour timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION widget_internal.calls_of_sessions(widget_ids uuid[], session_ids text[], as_of timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION widget_internal.calls_of_sessions(widget_ids uuid[], session_ids text[], as_of timestamp with time zone) TO authenticated;
GRANT ALL ON FUNCTION widget_internal.calls_of_sessions(widget_ids uuid[], session_ids text[], as_of timestamp with time zone) TO service_role;

REVOKE ALL ON FUNCTION widget_internal.changed_health_sessions(received_after timestamp with time zone, received_to timestamp with time zone) FROM PUBLIC;

GRANT SELECT ON TABLE public.widget_plans TO authenticated;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.widget_plans TO service_role;

REVOKE ALL ON FUNCTION widget_internal.charge(billable_seconds numeric, plan public.widget_plans) FROM PUBLIC;
GRANT ALL ON FUNCTION widget_internal.charge(billable_seconds numeric, plan public.widget_plans) TO authenticated;
GRANT ALL ON FUNCTION widget_internal.charge(billable_seconds numeric, plan public.widget_plans) TO service_role;

GRANT SELECT ON TABLE public.widget_statement_charges TO authenticated;
GRANT SELECT ON TABLE public.widget_statement_charges TO service_role;

REVOKE ALL ON FUNCTION widget_internal.charge_content(charge public.widget_statement_charges) FROM PUBLIC;
GRANT ALL ON FUNCTION widget_internal.charge_content(charge public.widget_statement_charges) TO service_role;

REVOKE ALL ON FUNCTION widget_internal.closing_key() FROM PUBLIC;

REVOKE ALL ON FUNCTION widget_internal.complete_stale_calls(stale_after interval, OUT calls_checked integer, OUT calls_completed integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION widget_internal.computed_health() FROM PUBLIC;

REVOKE ALL ON FUNCTION widget_internal.computed_health_pages() FROM PUBLIC;

REVOKE ALL ON FUNCTION widget_internal.correction_note(widget_id uuid, session_id text, call_id text, as_of timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION widget_internal.correction_note(widget_id uuid, session_id text, call_id text, as_of timestamp with time zone) TO authenticated;
GRANT ALL ON FUNCTION widget_internal.correction_note(widget_id uuid, session_id text, call_id text, as_of timestamp with time zone) TO service_role;

REVOKE ALL ON FUNCTION widget_internal.count_calls(received_after timestamp with time zone, received_to timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION widget_internal.count_event(widget_id uuid, events bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION widget_internal.count_events(received_after timestamp with time zone, received_to timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION widget_internal.count_refusals(refusals widget_internal.refusal[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION widget_internal.count_sessions(received_after timestamp with time zone, received_to timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION widget_internal.count_towards_quota(subject uuid, window_start timestamp with time zone, window_end timestamp with time zone, shard integer, events bigint, quota bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION widget_internal.counted_as_of(as_of timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION widget_internal.counted_as_of(as_of timestamp with time zone) TO authenticated;
GRANT ALL ON FUNCTION widget_internal.counted_as_of(as_of timestamp with time zone) TO service_role;

REVOKE ALL ON FUNCTION widget_internal.currency_decimals(currency text) FROM PUBLIC;
GRANT ALL ON FUNCTION widget_internal.currency_decimals(currency text) TO authenticated;
GRANT ALL ON FUNCTION widget_internal.currency_decimals(currency text) TO service_role;

REVOKE ALL ON FUNCTION widget_internal.cut_off() FROM PUBLIC;

REVOKE ALL ON FUNCTION widget_internal.divert_archived_event() FROM PUBLIC;

REVOKE ALL ON FUNCTION widget_internal.door_problem() FROM PUBLIC;

REVOKE ALL ON FUNCTION widget_internal.door_refusal(verdict text, widget_id uuid, page_host text) FROM PUBLIC;

REVOKE ALL ON FUNCTION widget_internal.empty_widget_calls() FROM PUBLIC;

REVOKE ALL ON FUNCTION widget_internal.erase_late_events() FROM PUBLIC;

REVOKE ALL ON FUNCTION widget_internal.erase_own_session(widget_id uuid, session_id text) FROM PUBLIC;
GRANT ALL ON FUNCTION widget_internal.erase_own_session(widget_id uuid, session_id text) TO authenticated;

REVOKE ALL ON FUNCTION widget_internal.erase_session(widget_id uuid, session_id text) FROM PUBLIC;
GRANT ALL ON FUNCTION widget_internal.erase_session(widget_id uuid, session_id text) TO service_role;

REVOKE ALL ON FUNCTION widget_internal.event_problem(event_type text, session_id text, call_id text, seq integer, age_ms bigint, properties jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION widget_internal.evidence_problem(session_id text, call_id text, source text, record_id text, started_at timestamp with time zone, ended_at timestamp with time zone, outcome text) FROM PUBLIC;

REVOKE ALL ON FUNCTION widget_internal.finish_archive(month date) FROM PUBLIC;

REVOKE ALL ON FUNCTION widget_internal.forget_health_page() FROM PUBLIC;

REVOKE ALL ON FUNCTION widget_internal.forget_senders() FROM PUBLIC;

REVOKE ALL ON FUNCTION widget_internal.health_archived_to() FROM PUBLIC;

REVOKE ALL ON FUNCTION widget_internal.health_differences() FROM PUBLIC;

REVOKE ALL ON FUNCTION widget_internal.is_host_allowed(host text, allowed_domains text[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION widget_internal.is_read_only() FROM PUBLIC;

REVOKE ALL ON FUNCTION widget_internal.is_young_session(session_id text, born_after timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION widget_internal.json_event_problem(event jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION widget_internal.keep_billed_plans() FROM PUBLIC;

REVOKE ALL ON FUNCTION widget_internal.keep_billing_time_zone() FROM PUBLIC;

REVOKE ALL ON FUNCTION widget_internal.keep_calls(widget_ids uuid[], session_ids text[], have_only_heartbeats boolean[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION widget_internal.keep_calls(widget_id uuid, session_id text, has_only_heartbeats boolean) FROM PUBLIC;

REVOKE ALL ON FUNCTION widget_internal.keep_widget_calls() FROM PUBLIC;

REVOKE ALL ON FUNCTION widget_internal.keep_widgets_with_events() FROM PUBLIC;

REVOKE ALL ON FUNCTION widget_internal.last_archived_month() FROM PUBLIC;
GRANT ALL ON FUNCTION widget_internal.last_archived_month() TO authenticated;
GRANT ALL ON FUNCTION widget_internal.last_archived_month() TO service_role;

REVOKE ALL ON FUNCTION widget_internal.late_changes(before date, as_of timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION widget_internal.late_changes(before date, as_of timestamp with time zone) TO authenticated;
GRANT ALL ON FUNCTION widget_internal.late_changes(before date, as_of timestamp with time zone) TO service_role;

REVOKE ALL ON FUNCTION widget_internal.late_events(widget_id uuid, session_id text, call_id text, received_after timestamp with time zone, as_of timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION widget_internal.late_events(widget_id uuid, session_id text, call_id text, received_after timestamp with time zone, as_of timestamp with time zone) TO authenticated;
GRANT ALL ON FUNCTION widget_internal.late_events(widget_id uuid, session_id text, call_id text, received_after timestamp with time zone, as_of timestamp with time zone) TO service_role;

REVOKE ALL ON FUNCTION widget_internal.lock_sessions(session_keys bigint[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION widget_internal.month_bounds(month date, OUT period_start timestamp with time zone, OUT period_end timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION widget_internal.month_bounds(month date, OUT period_start timestamp with time zone, OUT period_end timestamp with time zone) TO authenticated;
GRANT ALL ON FUNCTION widget_internal.month_bounds(month date, OUT period_start timestamp with time zone, OUT period_end timestamp with time zone) TO service_role;

REVOKE ALL ON FUNCTION widget_internal.numbers_seen(seqs int4multirange) FROM PUBLIC;

REVOKE ALL ON FUNCTION widget_internal.orphan_ends(widget_id uuid, session_id text) FROM PUBLIC;

REVOKE ALL ON FUNCTION widget_internal.over_quota(widget_id uuid, events integer, are_counted boolean) FROM PUBLIC;

REVOKE ALL ON FUNCTION widget_internal.owned_widget_ids() FROM PUBLIC;
GRANT ALL ON FUNCTION widget_internal.owned_widget_ids() TO authenticated;

REVOKE ALL ON FUNCTION widget_internal.page_host() FROM PUBLIC;

GRANT SELECT ON TABLE public.widget_billing_periods TO authenticated;
GRANT SELECT ON TABLE public.widget_billing_periods TO service_role;

REVOKE ALL ON FUNCTION widget_internal.period_content(period public.widget_billing_periods) FROM PUBLIC;
GRANT ALL ON FUNCTION widget_internal.period_content(period public.widget_billing_periods) TO service_role;

REVOKE ALL ON FUNCTION widget_internal.post_alert(body jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION widget_internal.priced_calls(period_start timestamp with time zone, period_end timestamp with time zone, as_of timestamp with time zone, only_sessions widget_internal.session_name[], in_sums boolean) FROM PUBLIC;
GRANT ALL ON FUNCTION widget_internal.priced_calls(period_start timestamp with time zone, period_end timestamp with time zone, as_of timestamp with time zone, only_sessions widget_internal.session_name[], in_sums boolean) TO authenticated;
GRANT ALL ON FUNCTION widget_internal.priced_calls(period_start timestamp with time zone, period_end timestamp with time zone, as_of timestamp with time zone, only_sessions widget_internal.session_name[], in_sums boolean) TO service_role;

REVOKE ALL ON FUNCTION widget_internal.prune() FROM PUBLIC;

REVOKE ALL ON FUNCTION widget_internal.quota_refusal(widget_id uuid, until timestamp with time zone, events integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION widget_internal.rank_response_times(received_after timestamp with time zone, received_to timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION widget_internal.rated_calls(period_start timestamp with time zone, period_end timestamp with time zone, as_of timestamp with time zone, only_sessions widget_internal.session_name[]) FROM PUBLIC;
GRANT ALL ON FUNCTION widget_internal.rated_calls(period_start timestamp with time zone, period_end timestamp with time zone, as_of timestamp with time zone, only_sessions widget_internal.session_name[]) TO authenticated;
GRANT ALL ON FUNCTION widget_internal.rated_calls(period_start timestamp with time zone, period_end timestamp with time zone, as_of timestamp with time zone, only_sessions widget_internal.session_name[]) TO service_role;

REVOKE ALL ON FUNCTION widget_internal.read_only_answer() FROM PUBLIC;

REVOKE ALL ON FUNCTION widget_internal.rebuild_health() FROM PUBLIC;

REVOKE ALL ON FUNCTION widget_internal.receipt_time() FROM PUBLIC;

REVOKE ALL ON FUNCTION widget_internal.receipts_key() FROM PUBLIC;

REVOKE ALL ON FUNCTION widget_internal.recompute_capped_calls() FROM PUBLIC;

REVOKE ALL ON FUNCTION widget_internal.record_event(widget_id uuid, event_type text, session_id text, page_url text, event_id uuid, call_id text, seq integer, age_ms bigint, properties jsonb) FROM PUBLIC;
GRANT ALL ON FUNCTION widget_internal.record_event(widget_id uuid, event_type text, session_id text, page_url text, event_id uuid, call_id text, seq integer, age_ms bigint, properties jsonb) TO anon;
GRANT ALL ON FUNCTION widget_internal.record_event(widget_id uuid, event_type text, session_id text, page_url text, event_id uuid, call_id text, seq integer, age_ms bigint, properties jsonb) TO authenticated;
GRANT ALL ON FUNCTION widget_internal.record_event(widget_id uuid, event_type text, session_id text, page_url text, event_id uuid, call_id text, seq integer, age_ms bigint, properties jsonb) TO service_role;

REVOKE ALL ON FUNCTION widget_internal.record_events(events jsonb) FROM PUBLIC;
GRANT ALL ON FUNCTION widget_internal.record_events(events jsonb) TO anon;
GRANT ALL ON FUNCTION widget_internal.record_events(events jsonb) TO authenticated;
GRANT ALL ON FUNCTION widget_internal.record_events(events jsonb) TO service_role;

REVOKE ALL ON FUNCTION widget_internal.refresh_calls(widget_ids uuid[], session_ids text[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION widget_internal.refusal_answer(status integer, code text, message text, hint text) FROM PUBLIC;

REVOKE ALL ON FUNCTION widget_internal.refuse_addition() FROM PUBLIC;

REVOKE ALL ON FUNCTION widget_internal.refuse_archived_period(period_start timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION widget_internal.refuse_archived_period(period_start timestamp with time zone) TO authenticated;
GRANT ALL ON FUNCTION widget_internal.refuse_archived_period(period_start timestamp with time zone) TO service_role;

REVOKE ALL ON FUNCTION widget_internal.refuse_archived_session(widget_id uuid, session_id text) FROM PUBLIC;

REVOKE ALL ON FUNCTION widget_internal.refuse_change() FROM PUBLIC;

REVOKE ALL ON FUNCTION widget_internal.refuse_input(widget_id uuid, problem text) FROM PUBLIC;

REVOKE ALL ON FUNCTION widget_internal.refuse_to_archive(month date) FROM PUBLIC;

REVOKE ALL ON FUNCTION widget_internal.refuse_to_close(month date) FROM PUBLIC;

REVOKE ALL ON FUNCTION widget_internal.release_archived_chunk(month date, chunk integer, events bigint, digest_sum text) FROM PUBLIC;

REVOKE ALL ON FUNCTION widget_internal.repost_alerts() FROM PUBLIC;

REVOKE ALL ON FUNCTION widget_internal.request_header(name text) FROM PUBLIC;

REVOKE ALL ON FUNCTION widget_internal.restore_archived_session(widget_id uuid, session_id text, events jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION widget_internal.return_late_events() FROM PUBLIC;

REVOKE ALL ON FUNCTION widget_internal.scheduled_jobs() FROM PUBLIC;

REVOKE ALL ON FUNCTION widget_internal.seal_archive(month date, place text) FROM PUBLIC;

REVOKE ALL ON FUNCTION widget_internal.seal_charge() FROM PUBLIC;

REVOKE ALL ON FUNCTION widget_internal.seal_period() FROM PUBLIC;

REVOKE ALL ON FUNCTION widget_internal.send_alerts() FROM PUBLIC;

REVOKE ALL ON FUNCTION widget_internal.sender() FROM PUBLIC;

REVOKE ALL ON FUNCTION widget_internal.sender_network() FROM PUBLIC;

REVOKE ALL ON FUNCTION widget_internal.session_calls(widget_id uuid, session_id text, as_of timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION widget_internal.session_calls(widget_id uuid, session_id text, as_of timestamp with time zone) TO authenticated;
GRANT ALL ON FUNCTION widget_internal.session_calls(widget_id uuid, session_id text, as_of timestamp with time zone) TO service_role;

REVOKE ALL ON FUNCTION widget_internal.session_key(widget_id uuid, session_id text) FROM PUBLIC;

REVOKE ALL ON FUNCTION widget_internal.settle_archive(month date) FROM PUBLIC;

REVOKE ALL ON FUNCTION widget_internal.sha256_hex(content text) FROM PUBLIC;
GRANT ALL ON FUNCTION widget_internal.sha256_hex(content text) TO service_role;

REVOKE ALL ON FUNCTION widget_internal.to_month(period text) FROM PUBLIC;
GRANT ALL ON FUNCTION widget_internal.to_month(period text) TO authenticated;
GRANT ALL ON FUNCTION widget_internal.to_month(period text) TO service_role;

REVOKE ALL ON FUNCTION widget_internal.to_uuid(value text) FROM PUBLIC;

REVOKE ALL ON FUNCTION widget_internal.track_call_times() FROM PUBLIC;

REVOKE ALL ON FUNCTION widget_internal.unwrap_json(value jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION widget_internal.url_host(url text) FROM PUBLIC;

REVOKE ALL ON FUNCTION widget_internal.uuid_v7() FROM PUBLIC;

REVOKE ALL ON FUNCTION widget_internal.widget_calls_differences() FROM PUBLIC;

REVOKE ALL ON FUNCTION widget_internal.widget_door(widget_id uuid, OUT is_active boolean, OUT is_demo boolean, OUT allowed_domains text[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION widget_internal.write_charges(month date) FROM PUBLIC;

REVOKE ALL ON FUNCTION widget_internal.write_lines(month date, as_of timestamp with time zone) FROM PUBLIC;

GRANT SELECT ON TABLE public.widget_analytics TO authenticated;
GRANT SELECT ON TABLE public.widget_analytics TO service_role;

GRANT SELECT ON TABLE public.widget_archives TO service_role;

GRANT SELECT ON TABLE public.widget_calls TO authenticated;
GRANT SELECT ON TABLE public.widget_calls TO service_role;

GRANT SELECT ON TABLE public.widget_cleanup_runs TO service_role;

GRANT SELECT ON TABLE public.widget_erasures TO authenticated;
GRANT SELECT ON TABLE public.widget_erasures TO service_role;

GRANT SELECT ON TABLE widget_internal.health_hours TO authenticated;
GRANT SELECT ON TABLE widget_internal.health_hours TO service_role;

GRANT SELECT ON TABLE widget_internal.health_state TO authenticated;
GRANT SELECT ON TABLE widget_internal.health_state TO service_role;

GRANT SELECT ON TABLE widget_internal.refusal_counts TO authenticated;
GRANT SELECT ON TABLE widget_internal.refusal_counts TO service_role;

GRANT SELECT ON TABLE public.widget_health TO authenticated;
GRANT SELECT ON TABLE public.widget_health TO service_role;

GRANT SELECT ON TABLE public.widget_late_events TO service_role;

GRANT SELECT ON TABLE widget_internal.health_pages TO authenticated;
GRANT SELECT ON TABLE widget_internal.health_pages TO service_role;

GRANT SELECT ON TABLE public.widget_pages TO authenticated;
GRANT SELECT ON TABLE public.widget_pages TO service_role;

GRANT SELECT ON TABLE public.widget_quotas TO authenticated;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.widget_quotas TO service_role;

GRANT SELECT ON TABLE public.widget_refusals TO authenticated;
GRANT SELECT ON TABLE public.widget_refusals TO service_role;

GRANT SELECT ON TABLE widget_internal.health_response_times TO authenticated;
GRANT SELECT ON TABLE widget_internal.health_response_times TO service_role;

GRANT SELECT ON TABLE public.widget_response_times TO authenticated;
GRANT SELECT ON TABLE public.widget_response_times TO service_role;

GRANT SELECT ON TABLE public.widget_statement_lines TO authenticated;
GRANT SELECT ON TABLE public.widget_statement_lines TO service_role;

GRANT SELECT ON TABLE public.widgets TO authenticated;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.widgets TO service_role;

GRANT SELECT ON TABLE widget_internal.plan_validity TO authenticated;
GRANT SELECT ON TABLE widget_internal.plan_validity TO service_role;

GRANT SELECT ON TABLE widget_internal.settings TO authenticated;
GRANT SELECT ON TABLE widget_internal.settings TO service_role;

ALTER DEFAULT PRIVILEGES FOR ROLE postgres IN SCHEMA public GRANT ALL ON SEQUENCES  TO postgres;
ALTER DEFAULT PRIVILEGES FOR ROLE postgres IN SCHEMA public GRANT ALL ON SEQUENCES  TO anon;
ALTER DEFAULT PRIVILEGES FOR ROLE postgres IN SCHEMA public GRANT ALL ON SEQUENCES  TO authenticated;
ALTER DEFAULT PRIVILEGES FOR ROLE postgres IN SCHEMA public GRANT ALL ON SEQUENCES  TO service_role;

ALTER DEFAULT PRIVILEGES FOR ROLE supabase_admin IN SCHEMA public GRANT ALL ON SEQUENCES  TO postgres;
ALTER DEFAULT PRIVILEGES FOR ROLE supabase_admin IN SCHEMA public GRANT ALL ON SEQUENCES  TO anon;
ALTER DEFAULT PRIVILEGES FOR ROLE supabase_admin IN SCHEMA public GRANT ALL ON SEQUENCES  TO authenticated;
ALTER DEFAULT PRIVILEGES FOR ROLE supabase_admin IN SCHEMA public GRANT ALL ON SEQUENCES  TO service_role;

ALTER DEFAULT PRIVILEGES FOR ROLE postgres IN SCHEMA public GRANT ALL ON FUNCTIONS  TO postgres;
ALTER DEFAULT PRIVILEGES FOR ROLE postgres IN SCHEMA public GRANT ALL ON FUNCTIONS  TO anon;
ALTER DEFAULT PRIVILEGES FOR ROLE postgres IN SCHEMA public GRANT ALL ON FUNCTIONS  TO authenticated;
ALTER DEFAULT PRIVILEGES FOR ROLE postgres IN SCHEMA public GRANT ALL ON FUNCTIONS  TO service_role;

ALTER DEFAULT PRIVILEGES FOR ROLE supabase_admin IN SCHEMA public GRANT ALL ON FUNCTIONS  TO postgres;
ALTER DEFAULT PRIVILEGES FOR ROLE supabase_admin IN SCHEMA public GRANT ALL ON FUNCTIONS  TO anon;
ALTER DEFAULT PRIVILEGES FOR ROLE supabase_admin IN SCHEMA public GRANT ALL ON FUNCTIONS  TO authenticated;
ALTER DEFAULT PRIVILEGES FOR ROLE supabase_admin IN SCHEMA public GRANT ALL ON FUNCTIONS  TO service_role;

ALTER DEFAULT PRIVILEGES FOR ROLE postgres IN SCHEMA public GRANT ALL ON TABLES  TO postgres;
ALTER DEFAULT PRIVILEGES FOR ROLE postgres IN SCHEMA public GRANT ALL ON TABLES  TO anon;
ALTER DEFAULT PRIVILEGES FOR ROLE postgres IN SCHEMA public GRANT ALL ON TABLES  TO authenticated;
ALTER DEFAULT PRIVILEGES FOR ROLE postgres IN SCHEMA public GRANT ALL ON TABLES  TO service_role;

ALTER DEFAULT PRIVILEGES FOR ROLE supabase_admin IN SCHEMA public GRANT ALL ON TABLES  TO postgres;
ALTER DEFAULT PRIVILEGES FOR ROLE supabase_admin IN SCHEMA public GRANT ALL ON TABLES  TO anon;
ALTER DEFAULT PRIVILEGES FOR ROLE supabase_admin IN SCHEMA public GRANT ALL ON TABLES  TO authenticated;
ALTER DEFAULT PRIVILEGES FOR ROLE supabase_admin IN SCHEMA public GRANT ALL ON TABLES  TO service_role;
