-- A month may be closed by itself, some days after its end. Nothing is, unless the company says so.

alter table widget_internal.settings
  add column close_months_after interval,
  add constraint months_are_closed_a_week_after_them check (close_months_after >= interval '7 days');

comment on column widget_internal.settings.close_months_after is
  'How long after its end a month is closed by itself; null: never. Browsers'' events may come for seven days.';


-- The earliest first; nothing while close_months_after is null.
insert into widget_internal.scheduled_jobs (name, schedule, command)
values (
  'widget_close_months', '47 4 * * *',
  'select public.close_widget_billing_period(to_char(m.month, ''YYYY-MM'')) '
  'from public.widget_months_to_close() m where m.closes_at <= now()'
);


create function public.schedule_widget_closing(after interval default null)
returns interval
language plpgsql volatile
-- definer because service_role has no right to change settings
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform widget_internal.refuse_visitors();
  if schedule_widget_closing.after < interval '7 days' then
    raise exception 'after: must be at least 7 days' using errcode = 'invalid_parameter_value',
      hint = 'Browsers'' events may come for seven days after a month''s end.';
  end if;
  update widget_internal.settings set close_months_after = schedule_widget_closing.after;
  return schedule_widget_closing.after;
end
$$;

comment on function public.schedule_widget_closing(interval) is
  'Says how long after its end, seven days at least, a month is closed by itself; null: never.';
