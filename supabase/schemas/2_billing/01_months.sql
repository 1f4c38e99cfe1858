-- A bill covers a calendar month where the company does its books: it begins when the clocks there first show its 1st.

alter table widget_internal.settings
  add column billing_time_zone text not null default 'UTC',
  add constraint billing_time_zone_is_known check (timestamptz 'epoch' at time zone billing_time_zone is not null);

comment on column widget_internal.settings.billing_time_zone is
  'The time zone whose months are billed, such as Europe/Vienna. Fixed once a month has been closed.';


create function widget_internal.to_month(period text)
returns date
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  if to_month.period ~ '^[1-9][0-9]{3}-(0[1-9]|1[0-2])(-01)?$' then
    return to_date(left(to_month.period, 7), 'YYYY-MM');
  end if;
  raise exception 'period: must be a month, such as 2026-10' using errcode = 'invalid_parameter_value';
end
$$;

comment on function widget_internal.to_month(text) is 'The first day of a month written as 2026-10 or 2026-10-01.';


create function widget_internal.month_start(month timestamp)
returns timestamptz
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_zone constant text := (select s.billing_time_zone from widget_internal.settings s);
  v_midnight constant timestamptz := month_start.month at time zone v_zone;
  -- In hours: a day is as long as the session's time zone has it.
  v_day_before constant timestamptz := v_midnight - interval '24 hours';
begin
  -- Clocks that are put back at midnight show it twice, and PostgreSQL takes the later one; by the offset of the day
  -- before it is the earlier one.
  return (
    select min(c.at)
    from (values
      (v_midnight),
      (v_day_before + make_interval(secs => extract(epoch from month_start.month - v_day_before at time zone v_zone)::float8))
    ) c (at)
    where c.at at time zone v_zone >= month_start.month
  );
end
$$;

comment on function widget_internal.month_start(timestamp) is
  'The first instant at which clocks in the billing time zone show the first day of a month.';


create function widget_internal.month_of(moment timestamptz)
returns date
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_shown constant date := (
    select date_trunc('month', month_of.moment at time zone s.billing_time_zone) from widget_internal.settings s
  );
  v_next constant date := v_shown + interval '1 month';
begin
  -- Clocks that are put back across midnight show the old month again: it is over nevertheless.
  return case when month_of.moment >= widget_internal.month_start(v_next) then v_next else v_shown end;
end
$$;

comment on function widget_internal.month_of(timestamptz) is 'The billing month, by its first day, in which a moment lies.';


create function widget_internal.billing_months(
  period_start timestamptz, period_end timestamptz, as_charged boolean default true
)
returns table (
  month date, month_start timestamptz, month_end timestamptz, from_at timestamptz, to_at timestamptz, is_closed boolean
)
language plpgsql stable rows 1
set search_path = pg_catalog, pg_temp
as $$
declare
  v_start timestamptz := billing_months.period_start;
  v_end timestamptz := billing_months.period_end;
begin
  if v_start is null or v_end is null or v_end <= v_start then
    raise exception 'period_end: must be after period_start' using errcode = 'invalid_parameter_value';
  end if;
  if v_start = '-infinity' then
    v_start := least(
      (select min(c.started_at) from public.widget_calls c),
      (select widget_internal.month_start(min(p.valid_from)) from public.widget_plans p), now()
    );
  end if;
  if v_end = 'infinity' then
    v_end := greatest((select max(c.started_at) from public.widget_calls c), now()) + interval '1 microsecond';
  end if;

  return query
  select s.month::date, b.start_at, b.end_at, greatest(b.start_at, v_start), least(b.end_at, v_end),
    billing_months.as_charged and s.month in (select c.month from widget_internal.closed_months() c)
  from generate_series(
    widget_internal.month_of(v_start)::timestamp,
    widget_internal.month_of(v_end - interval '1 microsecond')::timestamp, interval '1 month'
  ) s (month)
  cross join lateral (
    select widget_internal.month_start(s.month), widget_internal.month_start(s.month + interval '1 month')
  ) b (start_at, end_at)
  where v_start < v_end;
end
$$;

comment on function widget_internal.billing_months(timestamptz, timestamptz, boolean) is
  'The months that a period touches, each with the part of it that lies in the period: [from_at, to_at), and whether it is '
  'closed. as_charged: false where a closed month is billed like an open one, as of a moment or by a draft of a plan.';


create function public.widget_billing_period(
  period text, out period_start timestamptz, out period_end timestamptz, out time_zone text
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_month constant date := widget_internal.to_month(widget_billing_period.period);
begin
  widget_billing_period.period_start := widget_internal.month_start(v_month);
  widget_billing_period.period_end := widget_internal.month_start(v_month + interval '1 month');
  widget_billing_period.time_zone := (select s.billing_time_zone from widget_internal.settings s);
end
$$;

comment on function public.widget_billing_period(text) is
  'The bounds of a billing month (2026-10), as widget_billing_calls() and widget_billing_usage() take them.';
