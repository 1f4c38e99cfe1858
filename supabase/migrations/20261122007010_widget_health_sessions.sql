-- A late event changes what its whole session adds to the counts, so what came in is summed up session by session.

create function widget_internal.numbers_seen(seqs int4multirange)
returns integer
language plpgsql immutable
set search_path = ''
as $$
begin
  return (select coalesce(sum(upper(r) - lower(r)), 0) from unnest(numbers_seen.seqs) r);
end
$$;

comment on function widget_internal.numbers_seen(int4multirange) is 'How many different numbers there are in it.';

revoke all on function widget_internal.numbers_seen(int4multirange) from public, anon, authenticated, service_role;


create function widget_internal.orphan_ends(widget_id uuid, session_id text)
returns integer
language plpgsql stable
set search_path = ''
as $$
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

comment on function widget_internal.orphan_ends(uuid, text) is 'How many ends of a session belong to no call (R4).';

revoke all on function widget_internal.orphan_ends(uuid, text) from public, anon, authenticated, service_role;


create function widget_internal.changed_health_sessions(received_after timestamptz, received_to timestamptz)
returns setof widget_internal.health_sessions
language plpgsql stable
set search_path = ''
as $$
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

comment on function widget_internal.changed_health_sessions(timestamptz, timestamptz) is
  'The sessions of which events were received in (received_after, received_to], as they are with those.';

revoke all on function widget_internal.changed_health_sessions(timestamptz, timestamptz)
  from public, anon, authenticated, service_role;
