-- However an event comes in (RPC, SQL editor, COPY), the trigger here joins it to its call in the same transaction.

create function widget_internal.hold_sessions(widget_ids uuid[], session_ids text[])
returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_key bigint;
begin
  -- Others cannot see what the transaction that held the session before this one has just added.
  if current_setting('transaction_isolation') not in ('read committed', 'read uncommitted') then
    raise exception 'a % transaction cannot add events that name no call, nor change or delete any',
      current_setting('transaction_isolation')
      using errcode = 'feature_not_supported', hint = 'Use read committed, or name the call.';
  end if;
  -- A thousand locks stand for all sessions, as the server's lock table is small; always taken in the same order, so
  -- that two transactions that share two of them never wait for each other.
  for v_key in
    select distinct hashtextextended(s.widget_id || s.session_id, 0) & 1023
    from unnest(hold_sessions.widget_ids, hold_sessions.session_ids) s (widget_id, session_id)
    order by 1
  loop
    perform pg_advisory_xact_lock(hashtext('widget_internal: sessions'), v_key::integer);
  end loop;
end
$$;

comment on function widget_internal.hold_sessions(uuid[], text[]) is
  'Holds these sessions until the transaction ends. Who adds events that name no call needs it, and who changes or deletes '
  'events: both read what the session has so far.';


create function widget_internal.matched_claims(
  widget_ids uuid[], session_ids text[], as_of timestamptz default 'infinity',
  from_ats timestamptz[] default null, to_ats timestamptz[] default null
)
returns table (
  widget_id uuid, session_id text, call_id text, start_claim bigint[], heartbeat_at timestamptz, end_claim bigint[],
  next_start_at timestamptz, first_event_at timestamptz, last_event_at timestamptz
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
-- The plan is always the same; a new one for each array would take longer than its run.
set plan_cache_mode = force_generic_plan
as $$
begin
  return query
  -- On equal times the sender's running number decides; without one the start comes first, as no end precedes its start.
  with numbered as (
    select e.*, w.to_at as window_end, count(*) filter (where e.event_type = 'call_start') over (
      partition by e.widget_id, e.session_id
      order by e."timestamp", coalesce(e.seq, 0), e.event_type <> 'call_start', e.id
    ) as call_number
    from unnest(
      matched_claims.widget_ids, matched_claims.session_ids, matched_claims.from_ats, matched_claims.to_ats
    ) s (widget_id, session_id, from_at, to_at)
    -- From the call before to the call after: a session of many calls must not be read as a whole for each event. (`like`
    -- as the partial index says it.)
    cross join lateral (
      select
        coalesce((
          select a."timestamp" from public.widget_analytics a
          where a.widget_id = s.widget_id and a.session_id = s.session_id and a.call_id is null
            and a.event_type like 'call\_%' and a.event_type = 'call_start' and a."timestamp" < s.from_at
          order by a."timestamp" desc limit 1
        ), '-infinity') as from_at,
        coalesce((
          select a."timestamp" from public.widget_analytics a
          where a.widget_id = s.widget_id and a.session_id = s.session_id and a.call_id is null
            and a.event_type like 'call\_%' and a.event_type = 'call_start' and a."timestamp" > s.to_at
          order by a."timestamp" limit 1
        ), 'infinity') as to_at
      offset 0  -- once for the session: inlined, it would be asked for each of its events
    ) w
    cross join lateral (
      select a.* from public.widget_analytics a
      where a.widget_id = s.widget_id and a.session_id = s.session_id
        and a.call_id is null and a.event_type like 'call\_%' and a.received_at <= matched_claims.as_of
        -- As pairs, as only the sessions' index has them: by the widget's times each session would read all of the widget.
        and (a.session_id, a."timestamp") between (s.session_id, w.from_at) and (s.session_id, w.to_at)
      offset 0  -- one session after the other, by its index
    ) e
  ),
  matched as (
    select
      n.widget_id, n.session_id, n.call_number,
      max(n.id::text) filter (where n.event_type = 'call_start') as call_id,
      max(widget_internal.claim(n.event_type, n.source, n.received_at, n."timestamp"))
        filter (where n.event_type = 'call_start') as start_claim,
      max(n."timestamp") filter (where n.event_type = 'call_heartbeat') as heartbeat_at,
      max(widget_internal.claim(n.event_type, n.source, n.received_at, n."timestamp"))
        filter (where n.event_type in ('call_end', 'call_error')) as end_claim,
      min(n."timestamp") as first_event_at, max(n."timestamp") as last_event_at, n.window_end,
      lead(min(n."timestamp")) over (partition by n.widget_id, n.session_id order by n.call_number) as next_start_at
    from numbered n
    where n.call_number > 0
    group by n.widget_id, n.session_id, n.call_number, n.window_end
  )
  select
    m.widget_id, m.session_id::text, m.call_id, m.start_claim, m.heartbeat_at::timestamptz, m.end_claim,
    m.next_start_at::timestamptz, m.first_event_at::timestamptz, m.last_event_at::timestamptz
  from matched m
  -- The call after is there for next_start_at alone: its own events are beyond the window.
  where m.first_event_at < m.window_end;
end
$$;

comment on function widget_internal.matched_claims(uuid[], text[], timestamptz, timestamptz[], timestamptz[]) is
  'What the call events that name no call claim, as received by a moment: in time order a call_start opens a call, whose '
  'call_id is that event''s id, and what follows up to the next belongs to it. The arrays are parallel and name no '
  'session twice; from_ats and to_ats say where events were added: the calls around these, else all.';


create function widget_internal.join_events()
returns trigger
language plpgsql volatile
-- definer because who may add an event need have no right on call_states
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
  v_browser constant integer := array_position(widget_internal.event_sources(), 'browser');
  v_named boolean;
  v_unnamed boolean;
  v_trusted_unnamed boolean;
  v_widget_ids uuid[];
  v_session_ids text[];
  v_from_ats timestamptz[];
  v_to_ats timestamptz[];
begin
  select bool_or(call_id is not null), bool_or(call_id is null), bool_or(call_id is null and source not in ('browser', 'inferred'))
  into v_named, v_unnamed, v_trusted_unnamed
  from new_events where event_type like 'call\_%';
  if v_named is null then
    return null;
  elsif v_trusted_unnamed then
    raise exception 'an event of source server, provider or operator must name its call'
      using errcode = 'check_violation', hint = 'Give its call_id.';
  elsif v_unnamed then
    select array_agg(s.widget_id), array_agg(s.session_id::text), array_agg(s.from_at), array_agg(s.to_at)
    into v_widget_ids, v_session_ids, v_from_ats, v_to_ats
    from (
      select widget_id, session_id, min("timestamp") as from_at, max("timestamp") as to_at
      from new_events where call_id is null and event_type like 'call\_%'
      group by widget_id, session_id
    ) s;
    perform widget_internal.hold_sessions(v_widget_ids, v_session_ids);
  end if;

  insert into widget_internal.call_states as c (
    widget_id, session_id, call_id, start_claim, heartbeat_at, end_claim,
    matched_start_claim, matched_heartbeat_at, matched_end_claim, next_start_at, first_event_at, last_event_at
  )
  select
    j.widget_id, j.session_id, j.call_id, max(j.start_claim), max(j.heartbeat_at), max(j.end_claim),
    max(j.matched_start_claim), max(j.matched_heartbeat_at), max(j.matched_end_claim), max(j.next_start_at),
    min(j.first_event_at), max(j.last_event_at)
  from (
    select
      e.widget_id, e.session_id::text, e.call_id::text,
      case when e.event_type = 'call_start'
        then widget_internal.claim(e.event_type, e.source, e.received_at, e."timestamp") end as start_claim,
      case when e.event_type = 'call_heartbeat' then e."timestamp" end as heartbeat_at,
      case when e.event_type in ('call_end', 'call_error')
        then widget_internal.claim(e.event_type, e.source, e.received_at, e."timestamp") end as end_claim,
      null::bigint[] as matched_start_claim, null::timestamptz as matched_heartbeat_at,
      null::bigint[] as matched_end_claim, null::timestamptz as next_start_at,
      e."timestamp" as first_event_at, e."timestamp" as last_event_at
    from new_events e
    where e.call_id is not null and e.event_type like 'call\_%'
    union all
    select
      m.widget_id, m.session_id, m.call_id, null, null, null,
      m.start_claim, m.heartbeat_at, m.end_claim, m.next_start_at, m.first_event_at, m.last_event_at
    from widget_internal.matched_claims(v_widget_ids, v_session_ids, 'infinity', v_from_ats, v_to_ats) m
    where v_unnamed
  ) j
  group by j.widget_id, j.session_id, j.call_id
  -- In one order everywhere, so that two batches that share two calls never wait for each other.
  order by j.widget_id, j.session_id, j.call_id
  on conflict (widget_id, session_id, call_id) do update set
    -- Once the archive took a call's events, only those join that outrank a browser's.
    start_claim = case when c.archived_at is not null and excluded.start_claim[1] <= v_browser
      then c.start_claim else greatest(c.start_claim, excluded.start_claim) end,
    heartbeat_at = case when c.archived_at is null
      then greatest(c.heartbeat_at, excluded.heartbeat_at) else c.heartbeat_at end,
    end_claim = case when c.archived_at is not null and excluded.end_claim[1] <= v_browser
      then c.end_claim else greatest(c.end_claim, excluded.end_claim) end,
    -- Where the call was matched, afresh; where not, as it was.
    matched_start_claim = case when excluded.matched_start_claim is null or c.archived_at is not null
      then c.matched_start_claim else excluded.matched_start_claim end,
    matched_heartbeat_at = case when excluded.matched_start_claim is null or c.archived_at is not null
      then c.matched_heartbeat_at else excluded.matched_heartbeat_at end,
    matched_end_claim = case when excluded.matched_start_claim is null or c.archived_at is not null
      then c.matched_end_claim else excluded.matched_end_claim end,
    next_start_at = case when excluded.matched_start_claim is null or c.archived_at is not null
      then c.next_start_at else excluded.next_start_at end,
    first_event_at = least(c.first_event_at, excluded.first_event_at),
    last_event_at = greatest(c.last_event_at, excluded.last_event_at)
  where c.archived_at is null or (greatest(excluded.start_claim, excluded.end_claim))[1] > v_browser;
  return null;
end
$$;

comment on function widget_internal.join_events() is
  'After events were added: joins those that name their call to its state, and matches the sessions of the others afresh.';

create trigger join_events_on_insert
  after insert on public.widget_analytics
  referencing new table as new_events
  for each statement execute function widget_internal.join_events();
