-- What a closed month rests on stays as it was, even under its owner's hands.

create function widget_internal.guard_statements()
returns trigger
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  if tg_op = 'INSERT' and current_setting('widget_internal.is_closing', true) = 'on' then
    return null;
  end if;
  raise exception 'closed statements never change' using errcode = 'object_not_in_prerequisite_state',
    hint = 'What arrives late appears as an adjustment in the next month that is closed.';
end
$$;

comment on function widget_internal.guard_statements() is
  'Refuses any update, delete or truncate of a statement, and whatever close_widget_billing_period() does not insert itself.';

create trigger periods_never_change before insert or update or delete or truncate on public.widget_billing_periods
  for each statement execute function widget_internal.guard_statements();
create trigger charges_never_change before insert or update or delete or truncate on public.widget_statement_charges
  for each statement execute function widget_internal.guard_statements();
create trigger lines_never_change before insert or update or delete or truncate on public.widget_statement_lines
  for each statement execute function widget_internal.guard_statements();


create function widget_internal.keep_billed_plans()
returns trigger
language plpgsql volatile
-- definer because who may change a plan need not see statements
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_plan public.widget_plans;
  v_billed date;
begin
  -- A month that is being closed right now is waited for.
  lock table public.widget_billing_periods in row share mode;
  foreach v_plan in array case tg_op when 'INSERT' then array[new] when 'DELETE' then array[old] else array[old, new] end
  loop
    -- A fee is due without calls: it cannot begin in a month whose statement does not have it.
    select max(b.month) into v_billed
    from (
      select c.usage_period from public.widget_statement_charges c where c.widget_id = v_plan.widget_id
      union all
      select b.period from public.widget_billing_periods b
      where v_plan.monthly_fee > 0 or exists (
        select from public.widget_plans p where p.widget_id = v_plan.widget_id and p.monthly_fee > 0
      )
    ) b (month)
    where b.month >= v_plan.valid_from
      and b.month < coalesce((
        select min(p.valid_from) from public.widget_plans p
        where p.widget_id = v_plan.widget_id and p.valid_from > v_plan.valid_from
      ), 'infinity');
    if v_billed is not null then
      raise exception 'valid_from: this plan would hold, or holds, for %, which is closed', to_char(v_billed, 'YYYY-MM')
        using errcode = 'invalid_parameter_value', hint = 'Add a plan that holds from a later month.';
    end if;
  end loop;
  return null;
end
$$;

comment on function widget_internal.keep_billed_plans() is
  'After a plan was added, changed or deleted: refuses that for the months of its widget that are closed.';

create trigger billed_plans_stay after insert or update or delete on public.widget_plans
  for each row execute function widget_internal.keep_billed_plans();

create trigger plans_are_not_truncated before truncate on public.widget_plans
  for each statement execute function widget_internal.refuse_change(
    'plans are what closed months were billed by', 'Delete those that no closed month needs.'
  );


create function widget_internal.keep_billing_time_zone()
returns trigger
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  lock table public.widget_billing_periods in row share mode;
  if exists (select from public.widget_billing_periods) then
    raise exception 'billing_time_zone: a month has been closed in %', old.billing_time_zone
      using errcode = 'object_not_in_prerequisite_state', hint = 'The months of closed statements stay what they were.';
  end if;
  return null;
end
$$;

comment on function widget_internal.keep_billing_time_zone() is
  'After billing_time_zone changed: refuses that once a month has been closed.';

create trigger billing_time_zone_stays after update of billing_time_zone on widget_internal.settings
  for each row when (old.billing_time_zone <> new.billing_time_zone)
  execute function widget_internal.keep_billing_time_zone();
