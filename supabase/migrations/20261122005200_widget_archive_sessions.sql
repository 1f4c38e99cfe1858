-- Which sessions leave with a month, and how they come back. A month's files hold every session that has an event in the
-- month, whole, so that its bill needs no other month's. From the ledger goes a session when its last month is archived.

create function widget_internal.return_late_events()
returns bigint
language plpgsql volatile
set search_path = ''
as $$
declare
  v_returned bigint;
begin
  with returned as (
    delete from public.widget_late_events l
    where not exists (
      select from widget_internal.archived_sessions a
      where a.session_key = widget_internal.archived_session_key(l.widget_id, l.session_id)
    )
    returning l.event
  )
  insert into public.widget_analytics
  select e.* from returned r, jsonb_populate_record(null::public.widget_analytics, r.event) e
  on conflict do nothing;
  get diagnostics v_returned = row_count;
  return v_returned;
end
$$;

comment on function widget_internal.return_late_events() is
  'Puts late events whose sessions are not archived, or no longer, into the ledger.';


create function widget_internal.refuse_to_archive(month date)
returns void
language plpgsql stable
set search_path = ''
as $$
declare
  v_bounds constant record := widget_internal.month_bounds(refuse_to_archive.month);
  v_next date;
  v_problem text;
begin
  select (max(a.month) + interval '1 month')::date into v_next from public.widget_archives a;
  if v_next is null then
    select date_trunc('month', min(e."timestamp") at time zone s.billing_time_zone)::date into v_next
    from public.widget_analytics e cross join widget_internal.settings s
    group by s.billing_time_zone;
  end if;
  v_problem := case
    when not exists (select from public.widget_billing_periods p where p.period = refuse_to_archive.month)
      then 'is not closed; close it first: select * from close_widget_billing_period(''YYYY-MM'')'
    when v_bounds.period_end > now() - interval '35 days'
      then 'ended less than 35 days ago; late events of it are still to be expected'
    when refuse_to_archive.month <> v_next then 'is not the next month to archive, that is ' || to_char(v_next, 'YYYY-MM')
    when exists (select from public.widget_archives a where a.released_at is null)
      then 'has to wait: the archive of the month before it is not finished'
  end;
  if v_problem is not null then
    raise exception 'month: % %', to_char(refuse_to_archive.month, 'YYYY-MM'), v_problem
      using errcode = 'invalid_parameter_value';
  end if;
end
$$;

comment on function widget_internal.refuse_to_archive(date) is
  'Raises unless the month is closed, long over, and the next one to archive.';


create function widget_internal.seal_archive(month date, place text)
returns void
language plpgsql volatile
set search_path = ''
as $$
#variable_conflict use_column
declare
  v_end constant timestamptz := (widget_internal.month_bounds(seal_archive.month)).period_end;
  v_place text;
begin
  select a.place into v_place from public.widget_archives a where a.month = seal_archive.month;
  if not exists (
    select from pg_trigger t
    where t.tgrelid = 'public.widget_analytics'::regclass and t.tgname = 'divert_archived_events' and t.tgenabled <> 'D'
  ) then
    raise exception 'events of archived sessions would not be noticed' using errcode = 'object_not_in_prerequisite_state',
      hint = 'alter table public.widget_analytics enable trigger divert_archived_events';
  elsif v_place is null then
    perform widget_internal.refuse_to_archive(seal_archive.month);
    insert into public.widget_archives (month, place) values (seal_archive.month, seal_archive.place);
    insert into widget_internal.archived_sessions (session_key, month)
    select widget_internal.archived_session_key(e.widget_id, e.session_id), seal_archive.month
    from public.widget_analytics e
    group by e.widget_id, e.session_id
    having max(e."timestamp") < v_end
      and not widget_internal.is_young_session(e.session_id, now() - interval '35 days');
  elsif v_place <> seal_archive.place then
    raise exception 'place: the archive of % is at %', to_char(seal_archive.month, 'YYYY-MM'), v_place
      using errcode = 'invalid_parameter_value';
  end if;
end
$$;

comment on function widget_internal.seal_archive(date, text) is
  'Marks the sessions that may leave with a month: once this is committed, no new transaction adds an event to them.';


create function widget_internal.settle_archive(month date)
returns timestamptz
language plpgsql volatile
set search_path = ''
as $$
#variable_conflict use_column
declare
  v_bounds constant record := widget_internal.month_bounds(settle_archive.month);
  v_as_of timestamptz;
begin
  select a.as_of into v_as_of from public.widget_archives a where a.month = settle_archive.month;
  if v_as_of is not null then
    return v_as_of;
  end if;
  perform pg_advisory_xact_lock_shared(widget_internal.closing_key());
  -- Those who added events before they could see the marks have committed by then.
  v_as_of := widget_internal.cut_off();
  delete from widget_internal.sessions_to_archive;

  with sessions as (
    select e.widget_id, e.session_id, widget_internal.archived_session_key(e.widget_id, e.session_id) as session_key,
      min(e."timestamp") as first_at, max(e."timestamp") as last_at,
      max(e.received_at) <= v_as_of and isfinite(min(e.received_at)) as has_settled,
      bool_or(e."timestamp" >= v_bounds.period_start and e."timestamp" < v_bounds.period_end) as is_of_month
    from public.widget_analytics e
    group by e.widget_id, e.session_id
    having min(e."timestamp") < v_bounds.period_end
  ),
  -- What no statement shows yet must stay until one does.
  unbilled as materialized (
    select distinct c.widget_id, c.session_id from widget_internal.late_changes('infinity', null) c
    union
    select c.widget_id, c.session_id from public.widget_calls c where c.ended_at is null
  ),
  judged as (
    select s.*, s.last_at < v_bounds.period_end and s.has_settled and u.widget_id is null
      and exists (select from widget_internal.archived_sessions a where a.session_key = s.session_key) as may_go
    from sessions s
    left join unbilled u on u.widget_id = s.widget_id and u.session_id = s.session_id
  )
  insert into widget_internal.sessions_to_archive (chunk, widget_id, session_id, session_key, first_at, last_at)
  select
    case when j.may_go then
      (row_number() over (partition by j.may_go order by j.widget_id, j.first_at, j.session_id) - 1) / 100 + 1
    else 0 end,
    j.widget_id, j.session_id, j.session_key, j.first_at, j.last_at
  from judged j
  where j.may_go or j.is_of_month;

  delete from widget_internal.archived_sessions a
  where a.month = settle_archive.month and not exists (
    select from widget_internal.sessions_to_archive s where s.session_key = a.session_key and s.chunk > 0
  );
  perform widget_internal.return_late_events();
  update public.widget_archives a set as_of = v_as_of where a.month = settle_archive.month;
  return v_as_of;
end
$$;

comment on function widget_internal.settle_archive(date) is
  'Decides, in a transaction after seal_archive(), which sessions leave and which are only copied, and as of when.';


revoke all on function widget_internal.return_late_events() from public, anon, authenticated, service_role;
revoke all on function widget_internal.refuse_to_archive(date) from public, anon, authenticated, service_role;
revoke all on function widget_internal.seal_archive(date, text) from public, anon, authenticated, service_role;
revoke all on function widget_internal.settle_archive(date) from public, anon, authenticated, service_role;
