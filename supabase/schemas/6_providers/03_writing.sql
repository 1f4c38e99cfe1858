-- What a match writes into the ledger: the provider's start and end, as events of source provider, where they change the
-- call; and where claims of a provider, which only ever grow, cannot say it, a decision of source operator.

create function widget_internal.share_events(share widget_internal.provider_share)
returns table (source text, event_type text, at timestamptz, received_at timestamptz, properties jsonb)
language plpgsql volatile rows 2
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_share constant widget_internal.provider_share := share;
  v_end_type constant text := case v_share.outcome when 'failed' then 'call_error' else 'call_end' end;
  v_now constant timestamptz := widget_internal.receipt_time();
  v_state widget_internal.call_states;
  v_start bigint[];
  v_end bigint[];
  v_decided_at bigint;
  v_facts record;
  v_wanted record;
  v_differs boolean;
begin
  select c.* into v_state from widget_internal.call_states c
  where c.widget_id = v_share.widget_id and c.session_id = v_share.session_id and c.call_id = v_share.call_id;
  v_start := greatest(v_state.start_claim, v_state.matched_start_claim);
  v_end := greatest(v_state.end_claim, v_state.matched_end_claim);
  v_decided_at := case when (widget_internal.event_sources())[v_end[1]] = 'operator' then v_end[2] end;

  if v_decided_at is null then
    -- Only what moves the call: sent again, a record adds nothing.
    return query
    select 'provider', r.event_type, r.at, v_now, r.properties
    from (values
      (v_share.start_record, v_share.started_at, null, v_start), (v_share.end_record, null, v_share.ended_at, v_end)
    ) k (record, started_at, ended_at, claim)
    cross join lateral widget_internal.events_of_record(k.record, k.started_at, k.ended_at, v_share.outcome) r
    where widget_internal.claim(r.event_type, 'provider', v_now, r.at) > k.claim is not false;
    if v_share.started_at is not null then
      v_start := greatest(v_start, widget_internal.claim('call_start', 'provider', v_now, v_share.started_at));
    end if;
    if v_share.ended_at is not null then
      v_end := greatest(v_end, widget_internal.claim(v_end_type, 'provider', v_now, v_share.ended_at));
    end if;
  elsif widget_internal.is_set_by_matching(v_state) is not true then
    return;
  end if;
  if v_share.ended_at is null then
    return;
  end if;

  select f.* into v_facts
  from widget_internal.call_facts(v_start, greatest(v_state.heartbeat_at, v_state.matched_heartbeat_at), v_end, null) f;
  select f.* into v_wanted
  from (
    select coalesce(case when v_share.is_holder then v_share.started_at end, v_share.told_at, v_facts.started_at) as started_at
  ) w
  cross join lateral widget_internal.call_facts(
    widget_internal.claim('call_start', 'provider', v_now, w.started_at), null,
    widget_internal.claim(
      v_end_type, 'provider', v_now, case when v_share.is_holder then v_share.ended_at else w.started_at end
    ), null
  ) f;
  -- A provider's claims grow, so they alone cannot say of a call that held the record that it does so no more, or the reverse.
  v_differs := case
    when v_decided_at is not null
      then (v_wanted.started_at, v_wanted.ended_at, v_wanted.outcome) <> (v_facts.started_at, v_facts.ended_at, v_facts.outcome)
    else (v_wanted.ended_at > v_wanted.started_at) <> (v_facts.ended_at > v_facts.started_at)
  end;
  if v_differs is not true then
    return;
  end if;
  return query
  select 'operator', e.event_type, e.at,
    greatest(v_now, timestamptz 'epoch' + (v_decided_at + 1) * interval '1 microsecond'),
    jsonb_build_object(
      'reason', case when v_share.is_holder then 'the record ' || v_share.end_record || ' of ' || v_share.provider
        else 'call ' || v_share.provider_call_id || ' of ' || v_share.provider || ' is billed in another session' end,
      'corrected_by', 'match_widget_provider_records', 'login', session_user
    )
  from (values ('call_start', v_wanted.started_at), (v_end_type, v_wanted.ended_at)) e (event_type, at);
end
$$;

comment on function widget_internal.share_events(widget_internal.provider_share) is
  'The events that bring a call in line with what a provider''s call says of it; none where it is, or where a person has '
  'decided how long it was.';


create function widget_internal.match_provider_calls(providers text[], call_ids text[], at timestamptz default now())
returns integer
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_calls public.widget_provider_calls[];
  v_shares widget_internal.provider_share[];
  v_taken text[];
  v_matched integer;
begin
  -- Held until the transaction ends, so that a record that comes meanwhile waits, and in one order.
  v_calls := array(
    select c
    from public.widget_provider_calls c
    join unnest(match_provider_calls.providers, match_provider_calls.call_ids) k (provider, call_id)
      on k.provider = c.provider and k.call_id = c.call_id
    order by c.provider, c.call_id
    for no key update of c
  );
  v_shares := array(
    select s
    from unnest(v_calls) c
    cross join lateral widget_internal.provider_shares(c, match_provider_calls.at) s
  );
  -- Of several that would take one call by its time alone, or by what visitors wrote, the first does; the others look again.
  v_taken := array(
    select s.provider || ' ' || s.provider_call_id
    from (
      select u.*, row_number() over (
        partition by u.widget_id, u.session_id, u.call_id, case u.matched_by when 'metadata' then u.provider end
        order by u.provider, u.provider_call_id
      ) as place
      from unnest(v_shares) u
      where u.matched_by in ('session', 'metadata')
    ) s
    where s.place > 1
  );
  v_shares := array(
    select s from unnest(v_shares) s where s.provider || ' ' || s.provider_call_id <> all (v_taken)
  );

  -- One statement: the calls are joined in the order of all writers.
  insert into public.widget_analytics (
    widget_id, session_id, call_id, source, event_type, "timestamp", received_at, properties
  )
  select s.widget_id, s.session_id, s.call_id, e.source, e.event_type, e.at, e.received_at, e.properties
  from unnest(v_shares) s
  cross join lateral widget_internal.share_events(s) e;

  update public.widget_provider_calls c
  set widget_id = s.widget_id, session_id = s.session_id, widget_call_id = s.call_id, matched_by = s.matched_by,
    matched_at = match_provider_calls.at,
    next_look_at = case when num_nulls(s.started_at, s.ended_at) = 2 then c.started_at + interval '7 days' end
  from (
    -- Of several widgets the one that it was found in stays, else the one in which it was told of first.
    select distinct on (h.provider, h.provider_call_id) h.*
    from unnest(v_shares) h
    join unnest(v_calls) k on k.provider = h.provider and k.call_id = h.provider_call_id
    where h.is_holder
    order by h.provider, h.provider_call_id, h.widget_id is distinct from k.widget_id, h.told_at, h.widget_id
  ) s
  where c.provider = s.provider and c.call_id = s.provider_call_id;
  get diagnostics v_matched = row_count;
  -- What was erased before its records came, or found it.
  perform widget_internal.erase_provider_records(jsonb_build_object('widget_id', s.widget_id, 'session_id', s.session_id))
  from unnest(v_shares) s
  where exists (
    select from public.widget_erasures e where e.widget_id = s.widget_id and e.session_id = s.session_id
      and e.erased_at >= coalesce(s.told_at, s.started_at, s.ended_at)
  );
  update public.widget_provider_calls c
  set next_look_at = case
    when c.provider || ' ' || c.call_id = any (v_taken) then match_provider_calls.at
    when d.due_at > match_provider_calls.at then d.due_at
    -- Another record may still take the call that could have been this one.
    when num_nulls(c.started_at, c.ended_at) = 0 and d.due_at > match_provider_calls.at - interval '31 days'
      and (widget_internal.provider_widget(c.provider, c.agent)).widget_id is not null
      then match_provider_calls.at + interval '1 day'
  end
  from unnest(v_calls) k
  cross join lateral (select coalesce(k.ended_at, k.started_at) + interval '7 days' as due_at) d
  where c.provider = k.provider and c.call_id = k.call_id and c.widget_id is null;
  return v_matched;
end
$$;

comment on function widget_internal.match_provider_calls(text[], text[], timestamptz) is
  'Looks at these calls of providers: which of a widget''s calls they are, what that writes into the ledger. Answers how '
  'many were matched. The arrays are parallel.';
