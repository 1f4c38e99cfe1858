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
