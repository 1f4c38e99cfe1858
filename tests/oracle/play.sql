-- Plays one history (histories.py, as JSON) and tells what the database made of it, in one round trip.
-- Times go in and come out as microseconds from the history's origin: now(), which stands still within the transaction
-- that is rolled back, or a moment long past.

create function pg_temp.origin()
returns timestamptz
language plpgsql stable
as $$
begin
  return coalesce(nullif(current_setting('oracle.origin', true), '')::timestamptz, now());
end
$$;


create function pg_temp.moment(microseconds bigint)
returns timestamptz
language plpgsql stable
as $$
begin
  return pg_temp.origin() + microseconds * interval '1 microsecond';
end
$$;


create function pg_temp.microseconds(moment timestamptz)
returns bigint
language plpgsql stable
as $$
begin
  return extract(epoch from moment - pg_temp.origin()) * 1000000;
end
$$;


create function pg_temp.calls(widget_id uuid)
returns jsonb
language plpgsql stable
as $$
begin
  return coalesce(
    (
      select jsonb_agg(
        jsonb_build_array(
          c.session_id, c.call_id, pg_temp.microseconds(c.started_at), pg_temp.microseconds(c.ended_at), c.outcome,
          c.evidence, c.duration_seconds
        )
        order by c.session_id collate "C", c.call_id collate "C"
      )
      from public.widget_calls c
      where c.widget_id = calls.widget_id
    ),
    '[]'
  );
end
$$;


create function pg_temp.tell(widget_id uuid, events jsonb)
returns integer
language plpgsql volatile
as $$
declare
  v_stored integer;
begin
  insert into public.widget_analytics (
    widget_id, id, session_id, event_type, "timestamp", received_at, call_id, seq, source
  )
  select
    tell.widget_id, (e.event ->> 'id')::uuid, e.event ->> 'session_id', e.event ->> 'event_type',
    pg_temp.moment((e.event ->> 'timestamp')::bigint), pg_temp.moment((e.event ->> 'received_at')::bigint),
    e.event ->> 'call_id', (e.event ->> 'seq')::integer, e.event ->> 'source'
  from jsonb_array_elements(tell.events) with ordinality e (event, number)
  order by e.number
  on conflict do nothing;
  get diagnostics v_stored = row_count;
  return v_stored;
end
$$;


create function pg_temp.track(event jsonb)
returns jsonb
language plpgsql volatile
as $$
begin
  return public.track_event(
    widget_id => (event ->> 'widget_id')::uuid, event_type => event ->> 'event_type',
    session_id => event ->> 'session_id', event_id => (event ->> 'event_id')::uuid, call_id => event ->> 'call_id',
    seq => (event ->> 'seq')::integer, age_ms => (event ->> 'age_ms')::bigint
  );
end
$$;


create function pg_temp.take_step(widget_id uuid, step jsonb)
returns jsonb
language plpgsql volatile
as $$
declare
  v_events jsonb := step -> 'events';
  v_event jsonb;
  v_answer jsonb := '[]';
begin
  case step ->> 'do'
  when 'insert' then
    if (step ->> 'at_once')::boolean then
      return jsonb_build_array(pg_temp.tell(take_step.widget_id, v_events));
    end if;
    for v_event in select e from jsonb_array_elements(v_events) e loop
      v_answer := v_answer || to_jsonb(pg_temp.tell(take_step.widget_id, jsonb_build_array(v_event)));
    end loop;

  when 'track' then
    select jsonb_agg(e || jsonb_build_object('widget_id', take_step.widget_id)) into v_events
    from jsonb_array_elements(v_events) e;
    perform set_config('request.headers', '{"origin": "https://shop.example"}', true);
    perform set_config('role', 'anon', true);
    if (step ->> 'at_once')::boolean then
      v_answer := v_answer || public.track_events(v_events);
    else
      for v_event in select e from jsonb_array_elements(v_events) e loop
        v_answer := v_answer || pg_temp.track(v_event);
      end loop;
    end if;
    perform set_config('role', 'none', true);

  when 'cleanup' then
    select jsonb_build_array(r.calls_checked, r.calls_completed, r.calls_still_active) into v_answer
    from public.complete_stale_sessions((step ->> 'stale_after')::bigint * interval '1 microsecond') r;

  when 'archive' then
    update widget_internal.call_states c set archived_at = now()
    where c.widget_id = take_step.widget_id and c.archived_at is null and c.session_id in (
      select s.session_id from widget_internal.call_states s where s.widget_id = take_step.widget_id
      group by s.session_id having bool_and(s.ended_at is not null)
    );
    delete from public.widget_analytics e
    where e.widget_id = take_step.widget_id and e.event_type like 'call\_%' and e.session_id in (
      select s.session_id from widget_internal.call_states s where s.widget_id = take_step.widget_id
      group by s.session_id having bool_and(s.archived_at is not null)
    );

  when 'limit' then
    update widget_internal.settings
    set max_call_duration = (step ->> 'max_call_duration')::bigint * interval '1 microsecond';
  end case;
  return v_answer;
end
$$;


create function pg_temp.bill(widget_id uuid, period_start timestamptz, period_end timestamptz, as_of timestamptz)
returns jsonb
language plpgsql volatile
as $$
declare
  v_calls jsonb;
  v_usage jsonb;
begin
  select jsonb_agg(
    jsonb_build_array(
      c.session_id, c.call_id, pg_temp.microseconds(c.started_at), pg_temp.microseconds(c.ended_at), c.outcome,
      c.evidence, c.duration_seconds, c.billable_seconds, c.amount, c.currency
    )
    order by c.session_id collate "C", c.call_id collate "C"
  )
  into v_calls
  from public.widget_billing_calls(bill.period_start, bill.period_end, bill.as_of) c
  where c.widget_id = bill.widget_id;

  select to_jsonb(u) - 'widget_id' into v_usage
  from public.widget_billing_usage(bill.period_start, bill.period_end, bill.as_of) u
  where u.widget_id = bill.widget_id;
  return jsonb_build_object('calls', coalesce(v_calls, '[]'), 'usage', v_usage);
end
$$;


-- Tells a finished ledger to another widget in another order, and whether that makes the same calls.
create function pg_temp.retell(widget_id uuid, shuffle integer, at_once boolean)
returns boolean
language plpgsql volatile
as $$
declare
  v_other constant uuid := gen_random_uuid();
  v_events jsonb;
begin
  insert into public.widgets (id) values (v_other);
  select coalesce(
    jsonb_agg(
      to_jsonb(e)
        || jsonb_build_object(
          'timestamp', pg_temp.microseconds(e."timestamp"), 'received_at', pg_temp.microseconds(e.received_at)
        )
      -- Not by the id alone: the cleanup's ends get other ids whenever the history is played.
      order by hashtextextended(
        concat_ws(
          ' ', e.session_id, e.call_id, e.event_type, e.source, pg_temp.microseconds(e."timestamp"),
          nullif(e.id, case when e.source = 'inferred' then e.id end)
        ),
        retell.shuffle
      )
    ),
    '[]'
  )
  into v_events
  from public.widget_analytics e
  where e.widget_id = retell.widget_id;

  perform pg_temp.take_step(
    v_other, jsonb_build_object('do', 'insert', 'at_once', retell.at_once, 'events', v_events)
  );
  return pg_temp.calls(v_other) = pg_temp.calls(retell.widget_id);
end
$$;


create function pg_temp.play(history jsonb)
returns jsonb
language plpgsql volatile
as $$
declare
  v_widget_id constant uuid := gen_random_uuid();
  v_step jsonb;
  v_bill jsonb;
  v_shuffle integer;
  v_answer jsonb;
  v_steps jsonb := '[]';
  v_bills jsonb := '[]';
  v_retold jsonb := '[]';
begin
  -- The transaction's moment of receipt stands still too.
  perform set_config('widget_internal.receipt_time', (extract(epoch from now()) * 1000000)::bigint::text, true);
  perform set_config('oracle.origin', coalesce(history ->> 'origin', ''), true);
  update widget_internal.settings set billing_time_zone = history ->> 'time_zone';
  insert into public.widgets (id, allowed_domains) values (v_widget_id, '{shop.example}');
  insert into public.widget_plans (
    widget_id, valid_from, name, increment_seconds, minimum_seconds, included_seconds, price_per_minute, currency,
    bills_failed_calls, assumed_calls
  )
  select v_widget_id, p.valid_from, 'Plan', p.increment_seconds, p.minimum_seconds, p.included_seconds,
    p.price_per_minute, p.currency, p.bills_failed_calls, p.assumed_calls
  from jsonb_populate_recordset(null::public.widget_plans, history -> 'plans') p;

  for v_step in select s from jsonb_array_elements(history -> 'steps') s loop
    v_answer := pg_temp.take_step(v_widget_id, v_step);
    v_steps := v_steps || jsonb_build_object('answer', v_answer, 'calls', pg_temp.calls(v_widget_id));
  end loop;

  for v_bill in select b from jsonb_array_elements(history -> 'bills') b loop
    v_bills := v_bills || pg_temp.bill(
      v_widget_id, pg_temp.moment((v_bill ->> 'period_start')::bigint),
      pg_temp.moment((v_bill ->> 'period_end')::bigint), pg_temp.moment((v_bill ->> 'as_of')::bigint)
    );
  end loop;

  for v_shuffle in select s::integer from jsonb_array_elements_text(history -> 'shuffles') s loop
    v_retold := v_retold || jsonb_build_array(
      pg_temp.retell(v_widget_id, v_shuffle, false), pg_temp.retell(v_widget_id, v_shuffle + 1, true)
    );
  end loop;

  return jsonb_build_object(
    'steps', v_steps,
    'bills', v_bills,
    'retold', v_retold,
    'ledger', (
      select jsonb_agg(
        jsonb_build_array(
          e.id, e.session_id, e.event_type, pg_temp.microseconds(e."timestamp"), pg_temp.microseconds(e.received_at),
          e.call_id, e.seq, e.source
        )
      )
      from public.widget_analytics e
      where e.widget_id = v_widget_id
    ),
    'differences', (
      select count(*) from widget_internal.widget_calls_differences() d where d.widget_id = v_widget_id
    )
  );
end
$$;
