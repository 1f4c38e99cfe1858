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
