-- How a provider's record comes in, once its signature is verified: from the Edge Function, and from a repair pull.

create function widget_internal.store_provider_record(record public.widget_provider_records)
returns text
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_old public.widget_provider_records;
  v_new public.widget_provider_records;
begin
  select r.* into v_old from public.widget_provider_records r
  where r.provider = record.provider and r.record_id = record.record_id;
  insert into public.widget_provider_records as r (
    provider, record_id, call_id, started_at, ended_at, latest_started_at, earliest_ended_at, outcome, reason, agent,
    said_widget_id, said_session_id, said_call_id, cost, cost_currency
  )
  values (
    record.provider, record.record_id, record.call_id, record.started_at, record.ended_at, record.started_at,
    record.ended_at, record.outcome, record.reason, record.agent,
    record.said_widget_id, record.said_session_id, record.said_call_id, record.cost, record.cost_currency
  )
  on conflict on constraint widget_provider_records_are_kept_once do update set
    -- It can only lengthen; the two other times keep what tells a contradiction.
    started_at = least(r.started_at, excluded.started_at),
    ended_at = greatest(r.ended_at, excluded.ended_at),
    latest_started_at = greatest(r.latest_started_at, excluded.latest_started_at),
    earliest_ended_at = least(r.earliest_ended_at, excluded.earliest_ended_at),
    outcome = least(r.outcome, excluded.outcome),  -- completed before failed
    reason = coalesce(r.reason, excluded.reason),
    agent = coalesce(r.agent, excluded.agent),
    said_widget_id = coalesce(r.said_widget_id, excluded.said_widget_id),
    said_session_id = coalesce(r.said_session_id, excluded.said_session_id),
    said_call_id = coalesce(r.said_call_id, excluded.said_call_id),
    cost = coalesce(r.cost, excluded.cost),
    cost_currency = coalesce(r.cost_currency, excluded.cost_currency)
  returning r.* into v_new;
  if v_old is not distinct from v_new then
    return 'duplicate';
  elsif v_old.record_id is not null then
    update public.widget_provider_records r set changed_at = clock_timestamp()
    where r.provider = record.provider and r.record_id = record.record_id;
  end if;

  update public.widget_provider_calls c
  set started_at = s.started_at, ended_at = s.ended_at, outcome = s.outcome, agent = s.agent,
    named_widget_id = n.widget_id, named_session_id = n.said_session_id, named_call_id = n.said_call_id
  from (
    -- As calls are joined: an end by completion before one by failure, then the latest.
    select min(r.started_at) as started_at, min(r.outcome) as outcome, min(r.agent) as agent,
      coalesce(max(r.ended_at) filter (where r.outcome = 'completed'), max(r.ended_at)) as ended_at
    from public.widget_provider_records r
    where r.provider = record.provider and r.call_id = record.call_id
  ) s
  left join (
    select w.id as widget_id, r.said_session_id, r.said_call_id
    from public.widget_provider_records r
    cross join lateral (
      select case when r.said_widget_id ~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' then r.said_widget_id::uuid end
    ) w (id)
    where r.provider = record.provider and r.call_id = record.call_id
      and w.id is not null and r.said_session_id is not null
    order by r.said_call_id nulls last, r.record_id
    limit 1
  ) n on true
  where c.provider = record.provider and c.call_id = record.call_id;
  return case when v_old.record_id is null then 'stored' else 'changed' end;
end
$$;

comment on function widget_internal.store_provider_record(public.widget_provider_records) is
  'Keeps a record, or adds to the one of its name what that did not know yet, and brings its call in line with its records. '
  'Answers stored, changed or duplicate.';


create function public.record_widget_provider_call(
  provider text, record_id text, call_id text default null,
  started_at timestamptz default null, ended_at timestamptz default null,
  outcome text default 'completed', reason text default null, agent text default null,
  widget_id text default null, session_id text default null, widget_call_id text default null,
  cost numeric default null, cost_currency text default null
)
returns jsonb
language plpgsql volatile
-- definer because service_role has no right to write records or the ledger
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_problem constant text := case
    when coalesce(provider, '') !~ '^[a-z][a-z0-9_-]{0,49}$' then 'provider: must be a short lower-case name, such as vapi'
    when length(call_id) not between 1 and 255 then 'call_id: must have 1 to 255 characters, or be null'
    when cost in ('NaN', 'Infinity', '-Infinity') then 'cost: must be a number'
    when cost is not null and coalesce(cost_currency, '') !~ '^[A-Za-z]{1,20}$'
      then 'cost_currency: must say what the cost is in, such as USD or credits'
    else widget_internal.record_problem(record_id, started_at, ended_at, outcome)
  end;
  v_record public.widget_provider_records;
  v_call public.widget_provider_calls;
  v_answer text;
begin
  perform widget_internal.refuse_visitors();
  if v_problem is not null then
    raise exception '%', v_problem using errcode = 'invalid_parameter_value';
  end if;
  v_record.provider := record_widget_provider_call.provider;
  v_record.record_id := record_widget_provider_call.record_id;
  -- A record stays one of the call that it came with first.
  v_record.call_id := coalesce(
    (
      select r.call_id from public.widget_provider_records r
      where r.provider = v_record.provider and r.record_id = v_record.record_id
    ),
    record_widget_provider_call.call_id, v_record.record_id
  );
  insert into public.widget_provider_calls as c (provider, call_id) values (v_record.provider, v_record.call_id)
  on conflict on constraint widget_provider_calls_pkey do update set call_id = c.call_id
  returning c.* into v_call;
  -- From here to the end the job's cut-off waits: an event that is not seen below is received after it. After the lock on
  -- the call, as who closes a month may hold that one, and waits for receipts.
  perform widget_internal.receipt_time();

  v_record.started_at := record_widget_provider_call.started_at;
  v_record.ended_at := record_widget_provider_call.ended_at;
  v_record.outcome := case when v_record.ended_at is not null then record_widget_provider_call.outcome end;
  v_record.cost := record_widget_provider_call.cost;
  v_record.cost_currency := case when v_record.cost is not null then record_widget_provider_call.cost_currency end;
  if v_call.erased_at is null then
    v_record.reason := left(record_widget_provider_call.reason, 255);
    v_record.agent := nullif(left(record_widget_provider_call.agent, 255), '');
    v_record.said_widget_id := left(record_widget_provider_call.widget_id, 255);
    v_record.said_session_id := nullif(left(record_widget_provider_call.session_id, 255), '');
    v_record.said_call_id := nullif(left(record_widget_provider_call.widget_call_id, 255), '');
  end if;
  v_answer := widget_internal.store_provider_record(v_record);

  begin
    perform widget_internal.match_provider_calls(array[v_record.provider], array[v_record.call_id::text]);
  exception when others then
    -- The record is kept: its provider may never send it again, and the job looks at it soon.
    update public.widget_provider_calls c set next_look_at = now()
    where c.provider = v_record.provider and c.call_id = v_record.call_id;
    raise warning 'call % of % was not matched: % %', v_record.call_id, v_record.provider, sqlstate, sqlerrm;
  end;
  return (
    select jsonb_build_object(
      'record', v_answer, 'matched', c.widget_id is not null,
      'widget_id', c.widget_id, 'session_id', c.session_id, 'call_id', c.widget_call_id
    )
    from public.widget_provider_calls c
    where c.provider = v_record.provider and c.call_id = v_record.call_id
  );
end
$$;

comment on function public.record_widget_provider_call(
  text, text, text, timestamptz, timestamptz, text, text, text, text, text, text, numeric, text
) is
  'Keeps a call provider''s own record of a call, or of one leg of it, once: record_id is its name at the provider, call_id '
  'the call''s, which the page passed to callStart() (null: record_id). Its call is matched with a call of a widget, which is '
  'then billed as the provider says. widget_id, session_id and widget_call_id are what the provider''s metadata says of our '
  'ids: taken as hints. Sent again it adds what was not known, such as the cost, and only ever lengthens. Answers {"record": '
  '"stored", "changed" or "duplicate", "matched", "widget_id", "session_id", "call_id"}. 400 (22023): the message names the '
  'field.';
