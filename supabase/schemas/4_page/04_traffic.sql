-- The owners' page shows how visits become calls, where they come from, and what was refused.

create function public.widget_traffic(
  period_start timestamptz, period_end timestamptz, only_widget uuid default null
)
returns table (
  events_received bigint, loads bigint, opens bigint, calls_started bigint, calls_completed bigint,
  calls_confirmed bigint, completion_rate numeric, delivery_rate numeric
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_custom_plan
as $$
begin
  return query
  with counts as (
    select
      coalesce(sum(h.events_received), 0)::bigint as events_received, coalesce(sum(h.loads), 0)::bigint as loads,
      coalesce(sum(h.opens), 0)::bigint as opens, sum(h.events_numbered) as numbered, sum(h.events_expected) as expected
    from widget_internal.health_hours h
    where h.hour >= widget_traffic.period_start and h.hour < widget_traffic.period_end
      and (widget_traffic.only_widget is null or h.widget_id = widget_traffic.only_widget)
  ),
  calls as (
    select
      count(*) as started, count(*) filter (where c.outcome = 'open') as going_on,
      count(*) filter (where c.outcome = 'completed') as completed,
      count(*) filter (where c.evidence in ('observed', 'provider', 'operator')) as confirmed
    from widget_internal.call_states c
    where c.started_at >= widget_traffic.period_start and c.started_at < widget_traffic.period_end
      and (widget_traffic.only_widget is null or c.widget_id = widget_traffic.only_widget)
  )
  select
    n.events_received, n.loads, n.opens, c.started, c.completed, c.confirmed,
    round(c.confirmed::numeric / nullif(c.started - c.going_on, 0), 6), round(n.numbered / nullif(n.expected, 0), 6)
  from counts n cross join calls c;
end
$$;

comment on function public.widget_traffic(timestamptz, timestamptz, uuid) is
  'widget_health summed up over a period, one row: loads, opens and calls of all widgets that the caller may see or of '
  'only_widget; events of the hours that begin in the period. calls_completed: ended, and not by call_error. '
  'calls_confirmed: their end was observed; over the calls that are not open any more that is completion_rate, as in '
  'widget_rates().';


create function public.widget_busiest_places(
  period_start timestamptz, period_end timestamptz, only_widget uuid default null, by text default 'page',
  row_limit integer default 10
)
returns table (place text, loads bigint, opens bigint, calls bigint)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
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

comment on function public.widget_busiest_places(timestamptz, timestamptz, uuid, text, integer) is
  'The pages (by => ''page'') or hosts (by => ''host'') with the most calls, then loads, on the UTC days of which '
  'the period has the greater part. place is empty where no event named a page. Whoever sends events decides '
  'what stands in it: show it as text.';


create function public.widget_refusal_totals(
  period_start timestamptz, period_end timestamptz, only_widget uuid default null, row_limit integer default 100
)
returns table (widget_id uuid, reason text, detail text, refusals bigint, last_hour timestamptz)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
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

comment on function public.widget_refusal_totals(timestamptz, timestamptz, uuid, integer) is
  'widget_refusals summed up over a period, domains that are not allowed first: detail is the host.';
