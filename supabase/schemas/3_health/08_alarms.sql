-- When a widget's refusals or its silence are an alarm; each message says what to do.

create function widget_internal.refusal_alarms(min_cases integer, since timestamptz)
returns table (alarm text, widget_id uuid, message text)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  -- The hour that is running may be a minute old.
  v_recent constant timestamptz := date_trunc('hour', now(), 'UTC') - interval '1 hour';
begin
  return query
  with refused as (
    select r.widget_id, r.reason, r.detail, sum(r.refusals) as refusals, min(r.hour) as first_hour,
      coalesce(sum(r.refusals) filter (where r.hour >= v_recent), 0) as recent
    from public.widget_refusals r
    where r.hour >= refusal_alarms.since
    group by r.widget_id, r.reason, r.detail
  )
  select 'over_quota', f.widget_id, format(
    'widget %s: about %s events were refused over quota since %s UTC: %s', f.widget_id, sum(f.refusals),
    to_char(min(f.first_hour) at time zone 'UTC', 'YYYY-MM-DD HH24:MI'),
    case when bool_or(f.detail = 'widget')
      then format(
        'allow more with insert into widget_quotas (widget_id, events_per_day) values (%L, …), or find what sends so many',
        f.widget_id
      )
      else 'one network address sent too many; if that is right, raise events_per_sender_per_minute in widget_internal.settings'
    end
  )
  from refused f
  where f.reason = 'over_quota'
  group by f.widget_id
  union all
  select 'refusals_high', s.widget_id, format(
    '%s: %s events were refused and %s taken since %s UTC, mostly %s: %s',
    coalesce('widget ' || s.widget_id, 'unknown widgets'), s.refusals, t.received,
    to_char(refusal_alarms.since at time zone 'UTC', 'YYYY-MM-DD HH24:MI'), concat_ws(' ', s.reason, nullif(s.detail, '')),
    case s.reason
      when 'domain_not_allowed' then format(
        'if this is your page, add its host to allowed_domains in widgets, or name all hosts: widget-analytics widget set %s '
        '--domain …', s.widget_id
      )
      when 'widget_inactive' then format(
        'set is_active in widgets (widget-analytics widget set %s --active), or take the widget off its page', s.widget_id
      )
      when 'unknown_widget' then 'correct the widget_id on the page'
      else 'correct this field in what the page sends'
    end
  )
  from (
    select f.widget_id, sum(f.refusals) as refusals, sum(f.recent) as recent,
      (array_agg(f.reason order by f.recent desc, f.refusals desc))[1] as reason,
      (array_agg(f.detail order by f.recent desc, f.refusals desc))[1] as detail
    from refused f
    where f.reason <> 'over_quota'
    group by f.widget_id
  ) s
  cross join lateral (
    select coalesce(sum(h.events_received), 0) as received,
      coalesce(sum(h.events_received) filter (where h.hour >= v_recent), 0) as recent
    from widget_internal.health_hours h
    where h.hour >= refusal_alarms.since and (s.widget_id is null or h.widget_id = s.widget_id)
  ) t
  where s.recent > t.recent
    and (s.recent >= refusal_alarms.min_cases or s.refusals >= refusal_alarms.min_cases and s.refusals > t.received);
end
$$;

comment on function widget_internal.refusal_alarms(integer, timestamptz) is
  'over_quota: events of a widget were refused because there were too many. refusals_high: of a widget''s recent events more '
  'were refused than taken.';


create function widget_internal.silence_alarms(min_cases integer, period interval)
returns table (widget_id uuid, message text)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_now constant timestamptz := date_trunc('hour', now(), 'UTC');
begin
  return query
  with silent as materialized (
    select h.widget_id, min(h.hour) as first_hour, max(h.hour) as last_hour
    from widget_internal.health_hours h
    where h.hour >= v_now - interval '36 days' and h.events_received > 0
    group by h.widget_id
    having max(h.hour) < v_now - interval '6 hours'
  ),
  weeks as (
    select s.widget_id, s.last_hour, p.span, w.week, (
      select coalesce(sum(h.events_received), 0)
      from widget_internal.health_hours h
      where h.widget_id = s.widget_id
        -- An hour less at each end, as clocks are put forward and back.
        and h.hour >= v_now - p.span + interval '1 hour' - w.week * interval '7 days'
        and h.hour < v_now - interval '1 hour' - w.week * interval '7 days'
    ) as events
    from silent s
    cross join (values (interval '6 hours'), (silence_alarms.period)) p (span)
    cross join generate_series(1, 4) w (week)
    -- Weeks before its first say nothing.
    where s.last_hour < v_now - p.span and s.first_hour < v_now - p.span - w.week * interval '7 days'
  )
  select distinct on (k.widget_id) k.widget_id, format(
    'widget %1$s: no event since %2$s UTC, where in past weeks there were %3$s at least in the same %4$s: look at its page, '
    'and at why_is_my_widget_not_tracking.sql; if it is no longer used, set is_active to false in widgets '
    '(widget-analytics widget set %1$s --inactive)',
    k.widget_id, to_char(k.last_hour at time zone 'UTC', 'YYYY-MM-DD HH24:MI'), min(k.events),
    round(extract(epoch from k.span) / 3600) || ' hours'
  )
  from weeks k
  cross join lateral widget_internal.widget_door(k.widget_id) d
  where d.is_active and not d.is_demo
  group by k.widget_id, k.last_hour, k.span
  having min(k.events) >= silence_alarms.min_cases
  order by k.widget_id, k.span;
end
$$;

comment on function widget_internal.silence_alarms(integer, interval) is
  'Active widgets with no event in the last six hours, or in the period, that had min_cases events at least at the same time '
  'of each of the last four weeks. A shop that is closed on Sundays is none of them.';
