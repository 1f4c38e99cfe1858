-- How long senders wait for their answers is kept in steps, so that the median of any period is a sum.

create view public.widget_response_times with (security_invoker = true) as
  select r.widget_id, r.hour, round(power(1.1::double precision, r.bucket - 0.5))::integer as milliseconds, r.answers
  from widget_internal.health_response_times r;

comment on view public.widget_response_times is
  'How long widgets waited for the answers to their requests, by their own clocks: by widget and hour, how many answers '
  'took about so many milliseconds (within 5 %). Sum up answers to get the median of any period. Good: most below 200.';

revoke all on table public.widget_response_times from public, anon, authenticated, service_role;
grant select on table public.widget_response_times to authenticated, service_role;


create function widget_internal.rank_response_times(received_after timestamptz, received_to timestamptz)
returns void
language plpgsql volatile
set search_path = ''
as $$
begin
  update widget_internal.health_hours h
  set response_ms_median = q.median, response_ms_p95 = q.p95
  from (
    select distinct e.widget_id, date_trunc('hour', e."timestamp", 'UTC') as hour
    from public.widget_analytics e
    where e.received_at > rank_response_times.received_after
      and e.received_at <= rank_response_times.received_to
      and e.properties ? 'rtt_ms'
  ) d
  cross join lateral (
    select
      min(t.milliseconds) filter (where t.up_to >= 0.5 * t.all_of_them) as median,
      min(t.milliseconds) filter (where t.up_to >= 0.95 * t.all_of_them) as p95
    from (
      select
        r.milliseconds, sum(r.answers) over (order by r.milliseconds) as up_to, sum(r.answers) over () as all_of_them
      from public.widget_response_times r
      where r.widget_id = d.widget_id and r.hour = d.hour
    ) t
  ) q
  where h.widget_id = d.widget_id and h.hour = d.hour;
end
$$;

comment on function widget_internal.rank_response_times(timestamptz, timestamptz) is
  'Median and 95th percentile of the hours of which response times were received in (received_after, received_to].';

revoke all on function widget_internal.rank_response_times(timestamptz, timestamptz)
  from public, anon, authenticated, service_role;
