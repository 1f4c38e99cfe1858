-- The owners' page lists calls, latest first, page by page.

create function widget_internal.listed_calls(
  period_start timestamptz, period_end timestamptz, only_widget uuid, only_calls text, after_call jsonb, page_size integer
)
returns table (started_at timestamptz, widget_id uuid, session_id text, call_id text)
language plpgsql stable
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_custom_plan
as $$
#variable_conflict use_column
declare
  v_after constant jsonb := listed_calls.after_call;
  v_end constant timestamptz := least(
    listed_calls.period_end, (v_after ->> 0)::timestamptz + interval '1 microsecond'
  );
begin
  if v_end <= listed_calls.period_start then
    return;
  end if;
  return query
  with months as materialized (
    select m.* from widget_internal.billing_months(listed_calls.period_start, v_end) m
  )
  select k.started_at, k.widget_id, k.session_id, k.call_id
  from (
    -- Widget by widget, each from its own end of the index: a page costs the same at any size of the table.
    select c.started_at, c.widget_id, c.session_id, c.call_id
    from months m
    cross join widget_internal.owned_widget_ids() w (id)
    cross join lateral (
      select s.started_at, s.widget_id, s.session_id, s.call_id
      from widget_internal.call_states s
      where s.widget_id = w.id and s.started_at >= m.from_at and s.started_at < m.to_at
        and (v_after is null or (s.started_at, s.widget_id, s.session_id, s.call_id)
          < ((v_after ->> 0)::timestamptz, (v_after ->> 1)::uuid, v_after ->> 2, v_after ->> 3))
        and (listed_calls.only_calls is null or listed_calls.only_calls in (s.outcome, s.evidence))
      order by s.started_at desc, s.session_id desc, s.call_id desc
      limit listed_calls.page_size
    ) c
    where not m.is_closed and (listed_calls.only_widget is null or w.id = listed_calls.only_widget)
    union all
    select l.started_at, l.widget_id, l.session_id, l.call_id
    from months m
    cross join lateral widget_internal.billed_calls(m.month, m.from_at, m.to_at, listed_calls.only_widget) l
    where m.is_closed
      and (v_after is null or (l.started_at, l.widget_id, l.session_id, l.call_id)
        < ((v_after ->> 0)::timestamptz, (v_after ->> 1)::uuid, v_after ->> 2, v_after ->> 3))
      and l.outcome is not null
      and (listed_calls.only_calls is null or listed_calls.only_calls in (l.outcome, l.evidence))
  ) k
  order by k.started_at desc, k.widget_id desc, k.session_id collate "C" desc, k.call_id collate "C" desc
  limit listed_calls.page_size;
end
$$;

comment on function widget_internal.listed_calls(timestamptz, timestamptz, uuid, text, jsonb, integer) is
  'Which calls of widget_billing_calls() make a page of the list: the latest of a period after a call [started_at, '
  'widget_id, session_id, call_id].';


create function public.widget_call_list(
  period_start timestamptz, period_end timestamptz, only_widget uuid default null, only_calls text default null,
  after_cursor text default null, page_size integer default 50
)
returns table (
  widget_id uuid, session_id text, call_id text, started_at timestamptz, ended_at timestamptz, outcome text,
  evidence text, duration_seconds numeric, billable_seconds numeric, rule text, amount numeric, currency text,
  is_closed boolean, cursor text
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
-- What a bill is made of is estimated at many times its rows, and compiling it takes a second.
set jit = off
as $$
#variable_conflict use_column
begin
  if not coalesce(widget_call_list.page_size between 1 and 1000, false) then
    raise exception 'page_size: must be 1 to 1000' using errcode = 'invalid_parameter_value';
  end if;

  return query
  with keys as materialized (
    select l.* from widget_internal.listed_calls(
      widget_call_list.period_start, widget_call_list.period_end, widget_call_list.only_widget,
      widget_call_list.only_calls, widget_call_list.after_cursor::jsonb, widget_call_list.page_size
    ) l
  ),
  -- All calls of a time stand in the list one after the other, and are priced together; some of them one by one.
  parts as (
    select min(k.started_at) as from_at, max(k.started_at) as to_at, widget_call_list.only_widget as widget_id
    from keys k
    where widget_call_list.only_calls is null
    having count(*) > 0
    union
    select k.started_at, k.started_at, k.widget_id from keys k where widget_call_list.only_calls is not null
  )
  select b.*, jsonb_build_array(b.started_at, b.widget_id, b.session_id, b.call_id)::text
  from parts p
  cross join lateral public.widget_billing_calls(
    p.from_at, p.to_at + interval '1 microsecond', only_widget => p.widget_id
  ) b
  join keys k
    on k.widget_id = b.widget_id and k.session_id = b.session_id collate "C" and k.call_id = b.call_id collate "C"
  order by b.started_at desc, b.widget_id desc, b.session_id collate "C" desc, b.call_id collate "C" desc;
end
$$;

comment on function public.widget_call_list(timestamptz, timestamptz, uuid, text, text, integer) is
  'Rows of widget_billing_calls(), latest first, page by page: the next page is the one after the cursor of the last row. '
  'only_widget: of that widget alone. only_calls: of one outcome or one evidence alone, such as failed or assumed.';
