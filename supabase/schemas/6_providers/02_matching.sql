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
