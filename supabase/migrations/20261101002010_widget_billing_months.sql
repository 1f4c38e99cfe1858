-- A bill covers a calendar month where the company does its books: midnight there is when the month turns.

alter table widget_internal.settings
  add column billing_time_zone text not null default 'UTC',
  add constraint billing_time_zone_is_known check (timestamptz 'epoch' at time zone billing_time_zone is not null);

comment on column widget_internal.settings.billing_time_zone is
  'The time zone whose months are billed, such as Europe/Vienna. Fixed once a month has been closed.';


create function widget_internal.to_month(period text)
returns date
language plpgsql immutable
set search_path = ''
as $$
begin
  if to_month.period ~ '^[1-9][0-9]{3}-(0[1-9]|1[0-2])(-01)?$' then
    return to_date(left(to_month.period, 7), 'YYYY-MM');
  end if;
  raise exception 'period: must be a month, such as 2026-10' using errcode = 'invalid_parameter_value';
end
$$;

comment on function widget_internal.to_month(text) is 'The first day of a month written as 2026-10 or 2026-10-01.';


create function widget_internal.month_bounds(month date, out period_start timestamptz, out period_end timestamptz)
language plpgsql stable
set search_path = ''
as $$
begin
  -- Each midnight by its own offset: a month with a change of the clocks is an hour longer or shorter.
  select month_bounds.month::timestamp at time zone s.billing_time_zone,
    (month_bounds.month + interval '1 month') at time zone s.billing_time_zone
  into month_bounds.period_start, month_bounds.period_end
  from widget_internal.settings s;
end
$$;

comment on function widget_internal.month_bounds(date) is 'When a month begins and ends, in the billing time zone: [start, end).';


create function public.widget_billing_period(
  period text, out period_start timestamptz, out period_end timestamptz, out time_zone text
)
language plpgsql stable
set search_path = ''
as $$
begin
  select b.period_start, b.period_end, s.billing_time_zone
  into widget_billing_period.period_start, widget_billing_period.period_end, widget_billing_period.time_zone
  from widget_internal.month_bounds(widget_internal.to_month(widget_billing_period.period)) b
  cross join widget_internal.settings s;
end
$$;

comment on function public.widget_billing_period(text) is
  'The bounds of a billing month (2026-10), as widget_billing_calls() and widget_billing_usage() take them.';

revoke all on function widget_internal.to_month(text) from public, anon, authenticated, service_role;
revoke all on function widget_internal.month_bounds(date) from public, anon, authenticated, service_role;
revoke all on function public.widget_billing_period(text) from public, anon, authenticated, service_role;
grant execute on function widget_internal.to_month(text) to authenticated, service_role;
grant execute on function widget_internal.month_bounds(date) to authenticated, service_role;
grant execute on function public.widget_billing_period(text) to authenticated, service_role;
