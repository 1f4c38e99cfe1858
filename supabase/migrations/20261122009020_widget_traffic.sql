-- A usage page shows how visits become calls, where they come from, and what was refused: sums over counts that are kept.

create function public.widget_traffic(
  period_start timestamptz, period_end timestamptz, only_widget uuid default null
)
returns table (
  events_received bigint, loads bigint, opens bigint, calls_started bigint, calls_completed bigint,
  calls_confirmed bigint, completion_rate numeric, delivery_rate numeric
)
language plpgsql stable
set search_path = ''
as $$
begin
  return query
  with sums as (
    select
      coalesce(sum(h.events_received), 0)::bigint as events_received,
      coalesce(sum(h.loads), 0)::bigint as loads, coalesce(sum(h.opens), 0)::bigint as opens,
      coalesce(sum(h.calls_started), 0)::bigint as calls_started,
      coalesce(sum(h.calls_started - h.calls_open - h.calls_failed), 0)::bigint as calls_completed,
      coalesce(sum(h.calls_observed + h.calls_provider + h.calls_operator), 0)::bigint as calls_confirmed,
      coalesce(sum(h.calls_open), 0) as calls_open,
      sum(h.events_numbered) as events_numbered, sum(h.events_expected) as events_expected
    from public.widget_health h
    where h.hour >= widget_traffic.period_start and h.hour < widget_traffic.period_end
      and (widget_traffic.only_widget is null or h.widget_id = widget_traffic.only_widget)
  )
  select
    s.events_received, s.loads, s.opens, s.calls_started, s.calls_completed, s.calls_confirmed,
    round(s.calls_confirmed / nullif(s.calls_started - s.calls_open, 0), 6),
    round(s.events_numbered / nullif(s.events_expected, 0), 6)
  from sums s;
end
$$;

comment on function public.widget_traffic(timestamptz, timestamptz, uuid) is
  'widget_health summed up over the hours that begin in the period, one row: loads, opens and calls of all widgets that the '
  'caller may see or of only_widget. calls_completed: ended, and not by call_error. calls_confirmed: their end was observed; '
  'over the calls that are not open any more that is completion_rate, as in widget_rates().';


create function public.widget_busiest_places(
  period_start timestamptz, period_end timestamptz, only_widget uuid default null, by text default 'page',
  row_limit integer default 10
)
returns table (place text, loads bigint, opens bigint, calls bigint)
language plpgsql stable
set search_path = ''
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
language plpgsql stable
set search_path = ''
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
  'widget_refusals summed up over a period, domains that are not allowed first: with detail the host to add to allowed_domains.';

revoke all on function public.widget_traffic(timestamptz, timestamptz, uuid)
  from public, anon, authenticated, service_role;
revoke all on function public.widget_busiest_places(timestamptz, timestamptz, uuid, text, integer)
  from public, anon, authenticated, service_role;
revoke all on function public.widget_refusal_totals(timestamptz, timestamptz, uuid, integer)
  from public, anon, authenticated, service_role;
grant execute on function public.widget_traffic(timestamptz, timestamptz, uuid) to authenticated;
grant execute on function public.widget_busiest_places(timestamptz, timestamptz, uuid, text, integer) to authenticated;
grant execute on function public.widget_refusal_totals(timestamptz, timestamptz, uuid, integer) to authenticated;
