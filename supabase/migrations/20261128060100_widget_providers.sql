-- Made by scripts/baseline from schemas/6_providers/01_provider_records.sql, schemas/6_providers/02_matching.sql, schemas/6_providers/03_writing.sql, schemas/6_providers/04_records_in.sql, schemas/6_providers/05_job.sql, schemas/6_providers/06_alarms.sql, schemas/6_providers/07_erasures.sql, schemas/6_providers/08_reconciliation.sql, schemas/6_providers/90_rights.sql.

-- What call providers say of the calls that they carried: each verified record once, apart from the ledger.

create table public.widget_provider_agents (
  provider text not null,
  agent text not null default '*',
  widget_id uuid references public.widgets (id),
  constraint widget_provider_agents_have_one_widget primary key (provider, agent),
  constraint provider_is_a_short_lower_case_name check (provider ~ '^[a-z][a-z0-9_-]{0,49}$'),
  constraint agent_has_1_to_255_characters check (length(agent) between 1 and 255)
);

comment on table public.widget_provider_agents is
  'Which widget a provider''s agent serves. It says to whom a call is billed that no browser reported, and keeps calls '
  'from being matched in another widget. The company keeps it.';
comment on column public.widget_provider_agents.provider is 'As the records name it: vapi, retell, livekit and so on.';
comment on column public.widget_provider_agents.agent is
  'The provider''s id of the assistant or agent, or a room''s name; *: all that have no row of their own.';
comment on column public.widget_provider_agents.widget_id is
  'Null: calls of this agent are none of a widget''s, such as those by telephone; they are billed to nobody and no alarm.';

create index widget_provider_agents_widget_id_idx on public.widget_provider_agents (widget_id);
comment on index public.widget_provider_agents_widget_id_idx is 'Serves "which providers carry this widget''s calls?" and the foreign key.';

alter table public.widget_provider_agents enable row level security;


create table public.widget_provider_calls (
  provider text not null,
  call_id text collate "C" not null,
  -- What its records say, taken together.
  started_at timestamptz,
  ended_at timestamptz,
  outcome text,
  agent text,
  named_widget_id uuid,
  named_session_id text collate "C",
  named_call_id text collate "C",
  -- What was made of it.
  widget_id uuid,
  session_id text collate "C",
  widget_call_id text collate "C",
  matched_by text,
  matched_at timestamptz,
  next_look_at timestamptz,
  erased_at timestamptz,
  constraint widget_provider_calls_pkey primary key (provider, call_id),
  constraint matched_by_is_known check (matched_by in ('call_id', 'metadata', 'session', 'agent')),
  constraint matches_are_whole check (
    num_nulls(widget_id, session_id, widget_call_id, matched_by, matched_at) in (0, 5)
  )
);

comment on table public.widget_provider_calls is
  'The calls that providers tell of, one row each, and the call of a widget that each is billed as. For the company '
  'alone: what a provider carried for whom is none of an owner''s business.';
comment on column public.widget_provider_calls.call_id is
  'The provider''s id of the call, which the page passes to callStart(); of a room, its instance.';
comment on column public.widget_provider_calls.started_at is 'The earliest start of its records.';
comment on column public.widget_provider_calls.ended_at is 'The latest end of its records; of a call in legs, the last leg''s.';
comment on column public.widget_provider_calls.named_session_id is
  'With named_widget_id and named_call_id: our ids in the provider''s metadata. A visitor may have written them.';
comment on column public.widget_provider_calls.session_id is
  'With widget_id and widget_call_id: the call in widget_calls that is billed by these records; null: none yet.';
comment on column public.widget_provider_calls.matched_by is
  'call_id: the page passed the provider''s id. metadata: it named session and call. session: it named the session alone. '
  'agent: no browser reported it, and widget_provider_agents named the widget.';
comment on column public.widget_provider_calls.next_look_at is
  'When the job looks at it again, if no event and no record of the call comes before; null: not.';

create index widget_provider_calls_next_look_at_idx on public.widget_provider_calls (next_look_at) where next_look_at is not null;
comment on index public.widget_provider_calls_next_look_at_idx is 'Serves match_widget_provider_records(): what is due.';

create index widget_provider_calls_call_id_idx on public.widget_provider_calls using hash (call_id);
comment on index public.widget_provider_calls_call_id_idx is
  'Serves match_widget_provider_records(): of which provider''s call are the events that came in?';

create index widget_provider_calls_named_idx on public.widget_provider_calls (named_session_id) where named_session_id is not null;
comment on index public.widget_provider_calls_named_idx is 'Serves the same for our ids in the metadata, and erasures.';

create index widget_provider_calls_matched_idx on public.widget_provider_calls (widget_id, session_id, widget_call_id)
  where widget_id is not null;
comment on index public.widget_provider_calls_matched_idx is 'Serves "what does the provider say of this call?", and erasures.';

create index widget_provider_calls_unmatched_idx on public.widget_provider_calls (coalesce(ended_at, started_at))
  where widget_id is null;
comment on index public.widget_provider_calls_unmatched_idx is 'Serves the alarm records_unmatched, and a new row of widget_provider_agents.';

create index widget_provider_calls_time_idx on public.widget_provider_calls (coalesce(started_at, ended_at));
comment on index public.widget_provider_calls_time_idx is 'Serves widget_reconciliation(): the provider''s calls of a period.';

alter table public.widget_provider_calls enable row level security;


create table public.widget_provider_records (
  provider text not null,
  record_id text collate "C" not null,
  call_id text collate "C" not null,
  started_at timestamptz,
  ended_at timestamptz,
  latest_started_at timestamptz,
  earliest_ended_at timestamptz,
  is_contradictory boolean not null generated always as (
    coalesce(latest_started_at - started_at > interval '1 second', false)
    or coalesce(ended_at - earliest_ended_at > interval '1 second', false)
  ) stored,
  outcome text,
  reason text,
  agent text,
  said_widget_id text,
  said_session_id text,
  said_call_id text,
  cost numeric,
  cost_currency text,
  received_at timestamptz not null default clock_timestamp(),
  changed_at timestamptz not null default clock_timestamp(),
  constraint widget_provider_records_are_kept_once primary key (provider, record_id),
  constraint records_belong_to_a_call foreign key (provider, call_id) references public.widget_provider_calls (provider, call_id),
  constraint provider_is_a_short_lower_case_name check (provider ~ '^[a-z][a-z0-9_-]{0,49}$'),
  constraint record_id_has_1_to_255_characters check (length(record_id) between 1 and 255),
  constraint provider_call_id_has_1_to_255_characters check (length(call_id) between 1 and 255),
  constraint records_have_a_time check (num_nonnulls(started_at, ended_at) > 0),
  constraint only_ended_records_have_an_outcome check ((outcome is null) = (ended_at is null)),
  constraint outcome_is_completed_or_failed check (outcome in ('completed', 'failed')),
  constraint costs_have_a_currency check ((cost is null) = (cost_currency is null))
);

comment on table public.widget_provider_records is
  'Each verified record of a provider, once: a call, or one leg of it. Nothing else of what the provider sent is stored. '
  'For the company alone, as it says what the provider charges.';
comment on column public.widget_provider_records.record_id is 'The record''s name at its provider: the call''s id, or the leg''s.';
comment on column public.widget_provider_records.started_at is 'The earliest start that it was ever told with.';
comment on column public.widget_provider_records.ended_at is 'The latest end that it was ever told with.';
comment on column public.widget_provider_records.latest_started_at is 'The latest start; with earliest_ended_at what tells a contradiction.';
comment on column public.widget_provider_records.is_contradictory is
  'It was told with two starts or two ends that are more than a second apart: the earliest start and the latest end count.';
comment on column public.widget_provider_records.reason is 'Why the call ended, in the provider''s words.';
comment on column public.widget_provider_records.agent is 'The assistant or agent, or the room''s name: the key of widget_provider_agents.';
comment on column public.widget_provider_records.said_session_id is
  'With said_widget_id and said_call_id: what the provider''s metadata says of our ids, as it came.';
comment on column public.widget_provider_records.cost is 'What the provider charges for it, in cost_currency.';

create index widget_provider_records_call_id_idx on public.widget_provider_records (provider, call_id);
comment on index public.widget_provider_records_call_id_idx is 'Serves the records of one call, and the foreign key.';

create index widget_provider_records_contradictory_idx on public.widget_provider_records (changed_at) where is_contradictory;
comment on index public.widget_provider_records_contradictory_idx is 'Serves the alarm records_contradictory.';

alter table public.widget_provider_records enable row level security;


create index call_states_call_id_idx on widget_internal.call_states using hash (call_id);
comment on index widget_internal.call_states_call_id_idx is 'Serves provider_shares(): which sessions know a provider''s call?';


-- Which call of a widget a provider's call is. The answer follows from the records and the calls that are known, never
-- from the order in which they came; it is asked whenever one of them changes.

create type widget_internal.provider_share as (
  provider text, provider_call_id text, widget_id uuid, session_id text, call_id text, matched_by text,
  is_holder boolean, told_at timestamptz, start_record text, started_at timestamptz, end_record text,
  ended_at timestamptz, outcome text
);

comment on type widget_internal.provider_share is
  'What a provider''s call says of one call of a widget. The holder is billed by it. Of the others, which are the same call '
  'seen in other sessions, it says that they cost nothing: they end at ended_at, before they started.';


create function widget_internal.provider_widget(provider text, agent text, out is_known boolean, out widget_id uuid)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  select true, a.widget_id
  into provider_widget.is_known, provider_widget.widget_id
  from public.widget_provider_agents a
  where a.provider = provider_widget.provider and a.agent in (provider_widget.agent, '*')
  order by a.agent = '*'
  limit 1;
end
$$;

comment on function widget_internal.provider_widget(text, text) is
  'The widget that widget_provider_agents names for an agent, by its own row or that of all; null: none is named.';


create function widget_internal.is_set_by_matching(state widget_internal.call_states)
returns boolean
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  -- Most calls have no decision: their events need not be read.
  if state.evidence = 'operator' is not true then
    return null;
  end if;
  return (
    select e.properties ->> 'corrected_by' = 'match_widget_provider_records'
    from public.widget_analytics e
    where e.widget_id = state.widget_id and e."timestamp" between state.first_event_at and state.last_event_at
      and e.session_id = state.session_id and e.call_id = state.call_id
      and e.source = 'operator' and e.event_type in ('call_end', 'call_error')
    order by e.received_at desc
    limit 1
  );
end
$$;

comment on function widget_internal.is_set_by_matching(widget_internal.call_states) is
  'Whether the latest decision about a call is the matching''s own: false where a person made it, null where there is none.';


create function widget_internal.provider_candidates(provider_call public.widget_provider_calls, at timestamptz)
returns table (widget_id uuid, session_id text, call_id text, matched_by text)
-- By the estimate of a thousand, each would be looked for by reading all calls.
language plpgsql stable rows 1
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_call constant public.widget_provider_calls := provider_call;
  v_at constant timestamptz := coalesce(v_call.started_at, v_call.ended_at);
  -- Of what was erased the agent is not known any more, and the widget that it served is the one that was found.
  v_mapped constant uuid := coalesce(
    (widget_internal.provider_widget(v_call.provider, v_call.agent)).widget_id,
    case when v_call.erased_at is not null then v_call.widget_id end
  );
begin
  return query
  select k.widget_id, k.session_id, k.call_id, min(k.matched_by)
  from (
    select c.widget_id, c.session_id, c.call_id, 'call_id' as matched_by
    from widget_internal.call_states c
    where c.call_id = v_call.call_id and (v_mapped is null or c.widget_id = v_mapped)
    union all
    select c.widget_id, c.session_id, c.call_id, 'metadata'
    from widget_internal.call_states c
    where c.widget_id = v_call.named_widget_id and c.session_id = v_call.named_session_id
      and c.call_id = v_call.named_call_id and (v_mapped is null or c.widget_id = v_mapped)
      -- Visitors write metadata: it must not move a call of another day here, nor make one call of many.
      and coalesce(c.started_at, c.first_event_at) between v_at - interval '1 day' and v_at + interval '1 day'
      and not exists (
        select from public.widget_provider_calls p
        where p.provider = v_call.provider and p.call_id = c.call_id and p.call_id <> v_call.call_id
      )
      and not exists (
        select from public.widget_provider_calls p
        where p.widget_id = c.widget_id and p.session_id = c.session_id and p.widget_call_id = c.call_id
          and p.provider = v_call.provider and p.call_id <> v_call.call_id
      )
    union all
    -- What it has been billed as is a part of it, whatever else is found or set later.
    select v_call.widget_id, v_call.session_id, v_call.widget_call_id, v_call.matched_by
    where v_call.widget_id is not null
  ) k
  group by k.widget_id, k.session_id, k.call_id;

  -- What is less sure waits until no event of a browser can come any more, and so finds the same whatever came first.
  if not found and coalesce(v_call.ended_at, v_call.started_at) <= provider_candidates.at - interval '7 days' then
    return query
    select c.widget_id, c.session_id, c.call_id, 'session'
    from widget_internal.call_states c
    where c.widget_id = v_call.named_widget_id and c.session_id = v_call.named_session_id
      and v_call.named_call_id is null and (v_mapped is null or c.widget_id = v_mapped)
      and c.started_at between v_call.started_at - interval '1 day' and v_call.started_at + interval '1 day'
      and not exists (
        select from public.widget_provider_calls p
        where p.widget_id = c.widget_id and p.session_id = c.session_id and p.widget_call_id = c.call_id
      )
    order by abs(extract(epoch from c.started_at - v_call.started_at)), c.call_id
    limit 1;
    if not found and v_mapped is not null and v_call.started_at is not null and v_call.ended_at is not null then
      return query
      select v_mapped, left(v_call.provider || ':' || v_call.call_id, 255), v_call.call_id, 'agent'
      -- A call of about then that no record is known of may well be this one, under a name that tells nothing.
      where not exists (
        select from widget_internal.call_states c
        where c.widget_id = v_mapped and c.outcome <> 'failed' and c.ended_at > c.started_at
          and c.started_at between v_call.started_at - interval '1 minute' and v_call.started_at + interval '1 minute'
          and not exists (
            select from public.widget_provider_calls p
            where p.widget_id = c.widget_id and p.session_id = c.session_id and p.widget_call_id = c.call_id
          )
      );
    end if;
  end if;
end
$$;

comment on function widget_internal.provider_candidates(public.widget_provider_calls, timestamptz) is
  'The calls that a provider''s call may be: those of its id; the one of about then that its metadata names, if no other '
  'call of the provider has it; seven days after its end the '
  'one of the named session that started about then, else a new one of the widget that its agent serves, unless that has a '
  'call of then that could be it.';


create function widget_internal.provider_shares(provider_call public.widget_provider_calls, at timestamptz)
returns setof widget_internal.provider_share
language plpgsql stable rows 1
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_call constant public.widget_provider_calls := provider_call;
  v_start_record text;
  v_end_record text;
begin
  select (array_agg(r.record_id order by r.started_at, r.record_id) filter (where r.started_at = v_call.started_at))[1],
    (array_agg(r.record_id order by r.record_id) filter (where r.ended_at = v_call.ended_at and r.outcome = v_call.outcome))[1]
  into v_start_record, v_end_record
  from public.widget_provider_records r
  where r.provider = v_call.provider and r.call_id = v_call.call_id;

  return query
  with told as (
    select k.*, c.archived_at, c.started_at,
      -- Of several, when each started as browser or server say, whatever a provider says of it.
      coalesce(case when count(*) over () > 1 then (
        select coalesce(min(e."timestamp") filter (where e.event_type = 'call_start'), min(e."timestamp"))
        from public.widget_analytics e
        where e.widget_id = c.widget_id and e."timestamp" between c.first_event_at and c.last_event_at
          and e.session_id = c.session_id and (e.call_id = c.call_id or e.id::text = c.call_id)
          and e.event_type like 'call\_%' and e.source in ('browser', 'server')
      ) end, c.started_at) as told_at,
      (k.widget_id, k.session_id, k.call_id) is not distinct from
        (v_call.widget_id, v_call.session_id, v_call.widget_call_id) as is_held,
      c
    from widget_internal.provider_candidates(v_call, provider_shares.at) k
    left join widget_internal.call_states c
      on c.widget_id = k.widget_id and c.session_id = k.session_id and c.call_id = k.call_id
  ),
  ranked as (
    select t.*, min(t.told_at) over of_call as earliest_at, row_number() over (
      of_call order by
        -- What a person has decided, or the archive took, is not given to another.
        t.is_held and (t.archived_at is not null or widget_internal.is_set_by_matching(t.c) is false) desc,
        t.told_at, t.session_id, t.call_id
    ) = 1 as is_holder
    from told t
    -- An end alone is nothing before a start is known, and that lies before it.
    where v_call.started_at is not null or t.started_at <= v_call.ended_at
    -- Each widget's calls apart: an event of one cannot say that another's call was none.
    window of_call as (partition by t.widget_id)
  )
  select
    v_call.provider, v_call.call_id, r.widget_id, r.session_id, r.call_id, r.matched_by, r.is_holder, r.told_at,
    v_start_record, case
      -- A start alone waits for its end, or until none can be expected: no other call has it meanwhile.
      when r.is_holder and (v_call.ended_at is not null or v_call.started_at <= provider_shares.at - interval '7 days')
        then v_call.started_at
    end,
    v_end_record, case
      when r.is_holder then v_call.ended_at
      -- An hour before all of it, as a start may still come that is earlier than those that are known.
      else least(v_call.started_at, r.earliest_at) - interval '1 hour'
    end,
    case when r.is_holder then v_call.outcome else 'completed' end
  from ranked r
  -- As long as its end is not known, each of the others counts as its browser says.
  where r.is_holder or v_call.ended_at is not null;
end
$$;

comment on function widget_internal.provider_shares(public.widget_provider_calls, timestamptz) is
  'What a provider''s call says, as of a moment, of each call that it may be: of each widget the one that started '
  'first holds it. No rows: it waits.';


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


-- What matches records that came before their call: a job of its own, so that no event waits for it.

create table widget_internal.provider_state (
  only_row boolean primary key default true,
  looked_to timestamptz not null default now(),
  constraint provider_state_is_one_row check (only_row)
);

comment on table widget_internal.provider_state is 'How far match_widget_provider_records() has come: exactly one row.';
comment on column widget_internal.provider_state.looked_to is
  'Providers'' calls that events received before this moment may concern have been queued.';

insert into widget_internal.provider_state default values;

alter table widget_internal.provider_state enable row level security;


create function widget_internal.queue_provider_calls(looked_to timestamptz, cut_off timestamptz)
returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
-- What came in is found by its index, however large the ledger is.
set enable_seqscan = off
as $$
begin
  with arrived as materialized (
    select distinct e.widget_id, e.session_id::text as session_id, coalesce(e.call_id, e.id::text) as call_id
    from public.widget_analytics e
    where e.received_at >= queue_provider_calls.looked_to and e.received_at < queue_provider_calls.cut_off
      and e.event_type like 'call\_%'
  ),
  concerned as (
    select p.provider, p.call_id
    from arrived a
    join public.widget_provider_calls p on p.call_id = a.call_id
    union
    select p.provider, p.call_id
    from arrived a
    join public.widget_provider_calls p
      on p.named_session_id = a.session_id and p.named_widget_id = a.widget_id and p.named_call_id = a.call_id
  )
  update public.widget_provider_calls p set next_look_at = queue_provider_calls.cut_off
  from concerned c
  where p.provider = c.provider and p.call_id = c.call_id;
end
$$;

comment on function widget_internal.queue_provider_calls(timestamptz, timestamptz) is
  'Has the job look at the providers'' calls that the events received in [looked_to, cut_off) may concern.';


create function widget_internal.match_due_provider_calls(
  until timestamptz default 'infinity', at timestamptz default clock_timestamp(),
  out calls_looked_at integer, out calls_matched integer, out calls_left bigint
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_state widget_internal.provider_state;
  v_cut_off timestamptz;
  v_providers text[];
  v_call_ids text[];
begin
  select s.* into v_state from widget_internal.provider_state s for update;
  v_cut_off := widget_internal.cut_off();
  perform widget_internal.queue_provider_calls(v_state.looked_to, v_cut_off);
  update widget_internal.provider_state s set looked_to = v_cut_off;

  calls_looked_at := 0;
  calls_matched := 0;
  loop
    select array_agg(d.provider), array_agg(d.call_id::text) into v_providers, v_call_ids
    from (
      select c.provider, c.call_id
      from public.widget_provider_calls c
      where c.next_look_at <= greatest(match_due_provider_calls.at, v_cut_off)
      order by c.next_look_at, c.provider, c.call_id
      limit 1000
    ) d;
    exit when v_providers is null;
    -- Off the queue first: what is to be looked at again is put back.
    update public.widget_provider_calls c set next_look_at = null
    from unnest(v_providers, v_call_ids) k (provider, call_id)
    where c.provider = k.provider and c.call_id = k.call_id;
    calls_matched := calls_matched
      + widget_internal.match_provider_calls(v_providers, v_call_ids, match_due_provider_calls.at);
    calls_looked_at := calls_looked_at + cardinality(v_providers);
    exit when clock_timestamp() > match_due_provider_calls.until;
  end loop;
  select count(*) into calls_left from public.widget_provider_calls c
  where c.next_look_at <= greatest(match_due_provider_calls.at, v_cut_off);
end
$$;

comment on function widget_internal.match_due_provider_calls(timestamptz, timestamptz) is
  'The work of match_widget_provider_records(), as of a moment, in parts of a thousand calls until there is none left or '
  'the time is over.';


create function public.match_widget_provider_records()
returns table (calls_looked_at integer, calls_matched integer, calls_left bigint)
language plpgsql volatile
-- definer because service_role has no right to write records or the ledger
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  -- Half of what the statement may take, and not long: who waits for a cut-off waits for this transaction.
  v_time constant interval := least(
    coalesce(nullif(current_setting('statement_timeout')::interval, interval '0'), '20 seconds') / 2, '10 seconds'
  );
begin
  perform widget_internal.refuse_visitors();
  if current_setting('transaction_isolation') not in ('read committed', 'read uncommitted') then
    raise exception 'records are matched in a read committed transaction only' using errcode = 'feature_not_supported';
  end if;
  return query select m.* from widget_internal.match_due_provider_calls(clock_timestamp() + v_time) m;
end
$$;

comment on function public.match_widget_provider_records() is
  'Matches the providers'' records that wait with the calls that have come in since, and seven days after their end those '
  'that no browser reported; pg_cron runs it every five minutes. A record that comes after its call is matched at once. '
  'Safe at any moment and twice at once. Does what fits into half of statement_timeout, ten seconds at most: calls_left says '
  'how many are the next call''s.';


insert into widget_internal.scheduled_jobs (name, schedule, command)
values ('widget_match_provider_records', '2-59/5 * * * *', 'select public.match_widget_provider_records()');

-- Before a month's statement is written: what waits is matched, however much it is.
insert into widget_internal.hooks (hook, function) values ('before_closing', 'widget_internal.match_due_provider_calls');


create function widget_internal.look_again()
returns trigger
language plpgsql volatile
-- definer because who may name an agent's widget need have no right to write records
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  update public.widget_provider_calls c set next_look_at = now()
  where c.provider = new.provider and new.agent in (c.agent, '*') and c.widget_id is null
    and coalesce(c.ended_at, c.started_at) <= now() - interval '7 days';
  return null;
end
$$;

comment on function widget_internal.look_again() is
  'After an agent''s widget was named: the job looks again at the agent''s calls that found none.';

create trigger look_again_on_change after insert or update on public.widget_provider_agents
  for each row execute function widget_internal.look_again();


-- What of providers' records needs a person, for widget_alarms(), and the job.

create function widget_internal.provider_alarms()
returns table (alarm text, widget_id uuid, message text)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select 'records_unmatched', a.widget_id, format(
    '%s calls of %s %s, the latest of %s UTC, are %s', u.calls, u.provider, coalesce('by ' || u.agent, 'by no agent'),
    to_char(u.latest at time zone 'UTC', 'YYYY-MM-DD HH24:MI'), case
      when a.widget_id is null then format(
        'no call of a widget: insert into widget_provider_agents (provider, agent, widget_id) values (%L, %L, …), with null '
        'where they are none of a widget''s', u.provider, coalesce(u.agent, '*')
      )
      when u.is_whole then 'not billed: the widget has other calls of the same minute that may be the same ones; let its page '
        'pass the provider''s id to callStart()'
      else 'not billed: their start or their end never came; widget-analytics providers pull ' || u.provider || ' asks for both'
    end
  )
  from (
    select c.provider, c.agent, num_nulls(c.started_at, c.ended_at) = 0 as is_whole, count(*) as calls,
      max(coalesce(c.ended_at, c.started_at)) as latest
    from public.widget_provider_calls c
    where c.widget_id is null
      -- Seven days after its end no event of it can come; after another month it is in widget_reconciliation() alone.
      and coalesce(c.ended_at, c.started_at) between now() - interval '38 days' and now() - interval '7 days 1 hour'
    group by c.provider, c.agent, is_whole
  ) u
  cross join lateral widget_internal.provider_widget(u.provider, u.agent) a
  where a.is_known is null or a.widget_id is not null;

  return query
  select 'records_contradictory', c.widget_id, format(
    'widget %s: %s records of %s contradict themselves by more than a second, such as %s; the earliest start and the latest '
    'end are billed: look at widget_provider_records, and confirm or set each call with widget-analytics correct',
    c.widget_id, count(*), r.provider, max(r.record_id)
  )
  from public.widget_provider_records r
  join public.widget_provider_calls c on c.provider = r.provider and c.call_id = r.call_id
  join widget_internal.call_states s
    on s.widget_id = c.widget_id and s.session_id = c.session_id and s.call_id = c.widget_call_id
  where r.is_contradictory
    and (s.evidence = 'operator' and widget_internal.is_set_by_matching(s) is false) is not true
  group by c.widget_id, r.provider;
end
$$;

comment on function widget_internal.provider_alarms() is
  'records_unmatched: calls of a provider that ended more than seven days ago and are no call of a widget. '
  'records_contradictory: a provider said different times of one record, and nobody has set the call yet.';

insert into widget_internal.hooks (hook, function) values ('alarms', 'widget_internal.provider_alarms');


-- A session that is erased is erased here too: what remains of its records are names, times and costs, which bills rest on.

create function widget_internal.erase_provider_records(session jsonb)
returns bigint
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_widget_id constant uuid := (session ->> 'widget_id')::uuid;
  v_session_id constant text := session ->> 'session_id';
  v_erased bigint;
begin
  with calls as (
    update public.widget_provider_calls c
    set agent = null, named_widget_id = null, named_session_id = null, named_call_id = null, erased_at = clock_timestamp()
    where (
        c.widget_id = v_widget_id and c.session_id = v_session_id
        or c.named_widget_id = v_widget_id and c.named_session_id = v_session_id
      )
      -- One that waits for its call is named by nothing else.
      and c.widget_id is not null and c.erased_at is null
    returning c.provider, c.call_id
  )
  update public.widget_provider_records r
  set reason = null, agent = null, said_widget_id = null, said_session_id = null, said_call_id = null
  from calls c
  where r.provider = c.provider and r.call_id = c.call_id
    and num_nonnulls(r.reason, r.agent, r.said_widget_id, r.said_session_id, r.said_call_id) > 0;
  get diagnostics v_erased = row_count;
  return v_erased;
end
$$;

comment on function widget_internal.erase_provider_records(jsonb) is
  'After erase_widget_session(): erases the reason, the agent and our ids of the records of a session''s calls, and says '
  'of how many. What comes of these calls later is stored without them.';

insert into widget_internal.hooks (hook, function) values ('erase_session', 'widget_internal.erase_provider_records');


-- What providers carried beside what is billed: where the two differ, one of them is wrong, or somebody is not billed.

create function widget_internal.reconciled_calls(period_start timestamptz, period_end timestamptz)
returns table (
  provider text, widget_id uuid, side text, our_seconds numeric, provider_seconds numeric, provider_call_id text
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
-- Set-returning functions are estimated at many times their rows, and compiling the plan takes a second.
set jit = off
as $$
begin
  return query
  with ours as materialized (
    select b.widget_id, b.session_id, b.call_id, b.started_at, b.outcome, b.evidence, b.duration_seconds
    from public.widget_billing_calls(reconciled_calls.period_start, reconciled_calls.period_end) b
  ),
  carried as materialized (
    select p.*, extract(epoch from p.ended_at - p.started_at) as seconds
    from public.widget_provider_calls p
    where coalesce(p.started_at, p.ended_at) >= reconciled_calls.period_start - interval '1 day'
      and coalesce(p.started_at, p.ended_at) < reconciled_calls.period_end + interval '1 day'
  ),
  -- Of a widget that several providers carry, nobody knows which one missed a call.
  carriers as materialized (
    select w.widget_id, case when count(distinct w.provider) = 1 then min(w.provider) end as provider
    from (
      select a.widget_id, a.provider from public.widget_provider_agents a where a.widget_id is not null
      union all
      select p.widget_id, p.provider from carried p where p.widget_id is not null
    ) w
    group by w.widget_id
  )
  select p.provider, o.widget_id, case p.matched_by when 'agent' then 'made' else 'matched' end,
    o.duration_seconds, coalesce(p.seconds, o.duration_seconds), p.call_id::text
  from ours o
  join carried p on p.widget_id = o.widget_id and p.session_id = o.session_id and p.widget_call_id = o.call_id
  union all
  select p.provider, a.widget_id, 'provider', null, coalesce(p.seconds, 0), p.call_id::text
  from carried p
  cross join lateral widget_internal.provider_widget(p.provider, p.agent) a
  where p.widget_id is null and (a.is_known is null or a.widget_id is not null)
    and coalesce(p.started_at, p.ended_at) >= reconciled_calls.period_start
    and coalesce(p.started_at, p.ended_at) < reconciled_calls.period_end
  union all
  select c.provider, o.widget_id, 'browser', o.duration_seconds, null, null
  from ours o
  join carriers c on c.widget_id = o.widget_id
  -- A call that failed was often none; one that is void is said to have been none.
  where o.outcome = 'completed'
    and (o.evidence in ('operator', 'provider') and o.duration_seconds = 0) is not true
    and not exists (
      select from carried p
      where p.widget_id = o.widget_id and p.session_id = o.session_id and p.widget_call_id = o.call_id
    );
end
$$;

comment on function widget_internal.reconciled_calls(timestamptz, timestamptz) is
  'The calls of a period as both sides have them. side: matched; made (only the provider told of it, and it is billed); '
  'provider (only there, and not billed); browser (only there).';


create function public.widget_reconciliation(period_start timestamptz, period_end timestamptz)
returns table (
  provider text, widget_id uuid, matched_calls bigint, our_seconds numeric, provider_seconds numeric,
  seconds_apart numeric, provider_only_calls bigint, provider_only_seconds numeric, made_calls bigint,
  browser_only_calls bigint, browser_only_seconds numeric, costs text[]
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set jit = off
as $$
begin
  perform widget_internal.refuse_visitors();
  return query
  with calls as materialized (
    select c.* from widget_internal.reconciled_calls(widget_reconciliation.period_start, widget_reconciliation.period_end) c
  ),
  costs as (
    select s.provider, s.widget_id, array_agg(s.cost_currency || '=' || s.cost order by s.cost_currency) as costs
    from (
      select c.provider, c.widget_id, r.cost_currency, sum(r.cost) as cost
      from calls c
      join public.widget_provider_records r on r.provider = c.provider and r.call_id = c.provider_call_id
      where r.cost is not null
      group by c.provider, c.widget_id, r.cost_currency
    ) s
    group by s.provider, s.widget_id
  ),
  sums as (
    select
      c.provider, c.widget_id,
      count(*) filter (where c.side = 'matched') as matched,
      coalesce(sum(c.our_seconds) filter (where c.side = 'matched'), 0) as ours,
      coalesce(sum(c.provider_seconds) filter (where c.side = 'matched'), 0) as theirs,
      count(*) filter (where c.side in ('made', 'provider')) as provider_only,
      coalesce(sum(c.provider_seconds) filter (where c.side in ('made', 'provider')), 0) as provider_only_seconds,
      count(*) filter (where c.side = 'made') as made,
      count(*) filter (where c.side = 'browser') as browser_only,
      coalesce(sum(c.our_seconds) filter (where c.side = 'browser'), 0) as browser_only_seconds
    from calls c
    group by c.provider, c.widget_id
  )
  select s.provider, s.widget_id, s.matched, s.ours, s.theirs, s.ours - s.theirs, s.provider_only,
    s.provider_only_seconds, s.made, s.browser_only, s.browser_only_seconds, coalesce(c.costs, '{}')
  from sums s
  left join costs c on c.provider is not distinct from s.provider and c.widget_id is not distinct from s.widget_id
  order by s.provider nulls last, s.widget_id nulls last;
end
$$;

comment on function public.widget_reconciliation(timestamptz, timestamptz) is
  'What providers carried in a period beside what is billed, by provider and widget: matched calls, with the seconds of '
  'both sides and how far these are apart (ours less theirs); calls that only the provider knows, of which made_calls are '
  'billed because widget_provider_agents named the widget; calls that only browsers know, of widgets with a provider; and '
  'what the providers say that it costs, such as USD=12.50, by currency. No widget: none is known. No provider: the widget has several.';


-- Who may do what with providers' records: the company alone. An owner learns from the bill that a call rests on one.

insert into widget_internal.rights (object, grantee, privileges) values
  ('table public.widget_provider_records', 'service_role', 'select'),
  ('table public.widget_provider_calls', 'service_role', 'select'),
  ('table public.widget_provider_agents', 'service_role', 'select, insert, update, delete'),
  (
    'function public.record_widget_provider_call(text, text, text, timestamp with time zone, timestamp with time zone, '
    'text, text, text, text, text, text, numeric, text)', 'service_role', 'execute'
  ),
  ('function public.match_widget_provider_records()', 'service_role', 'execute'),
  ('function public.widget_reconciliation(timestamp with time zone, timestamp with time zone)', 'service_role', 'execute'),
  ('function widget_internal.reconciled_calls(timestamp with time zone, timestamp with time zone)', 'service_role', 'execute'),
  ('function widget_internal.provider_widget(text, text)', 'service_role', 'execute');

select widget_internal.apply_rights();
