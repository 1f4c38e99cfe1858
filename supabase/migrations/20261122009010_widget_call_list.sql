-- A usage page lists calls, latest first, and shows of each how its bill came about.

create function public.widget_call_list(
  period_start timestamptz, period_end timestamptz, only_widget uuid default null, only_calls text default null,
  after_cursor text default null, page_size integer default 50
)
returns table (
  widget_id uuid, session_id text, call_id text, started_at timestamptz, ended_at timestamptz, outcome text,
  evidence text, duration_seconds numeric, billable_seconds numeric, rule text, amount numeric, currency text,
  cursor text
)
language plpgsql stable
set search_path = ''
as $$
#variable_conflict use_column
declare
  v_after constant jsonb := widget_call_list.after_cursor::jsonb;
  v_after_at constant timestamptz := coalesce((v_after ->> 0)::timestamptz, 'infinity');
  v_keys public.widget_calls[];
begin
  if not coalesce(widget_call_list.page_size between 1 and 1000, false) then
    raise exception 'page_size: must be 1 to 1000' using errcode = 'invalid_parameter_value';
  end if;

  perform widget_internal.refuse_archived_period(widget_call_list.period_start);
  -- Widget by widget, each from its own end of the index: a page costs the same at any size of the table.
  v_keys := array(
    select k
    from widget_internal.owned_widget_ids() w (id)
    cross join lateral (
      select c.*
      from public.widget_calls c
      where c.widget_id = w.id
        and c.started_at >= widget_call_list.period_start and c.started_at < widget_call_list.period_end
        and c.started_at <= v_after_at
        and (v_after is null or (c.started_at, c.widget_id, c.session_id, c.call_id)
          < (v_after_at, (v_after ->> 1)::uuid, v_after ->> 2, v_after ->> 3))
        and (widget_call_list.only_calls is null or widget_call_list.only_calls in (c.outcome, c.evidence))
      order by c.started_at desc, c.session_id desc, c.call_id desc
      limit widget_call_list.page_size
    ) k
    where widget_call_list.only_widget is null or w.id = widget_call_list.only_widget
    order by k.started_at desc, k.widget_id desc, k.session_id desc, k.call_id desc
    limit widget_call_list.page_size
  );

  return query
  select b.*, jsonb_build_array(b.started_at, b.widget_id, b.session_id, b.call_id)::text
  from (select min(k.started_at) as first_at, max(k.started_at) as last_at from unnest(v_keys) k) p
  cross join lateral public.widget_billing_calls(p.first_at, p.last_at + interval '1 microsecond') b
  join unnest(v_keys) k
    on k.widget_id = b.widget_id and k.session_id = b.session_id collate "C" and k.call_id = b.call_id collate "C"
  where p.first_at is not null
  order by b.started_at desc, b.widget_id desc, b.session_id collate "C" desc, b.call_id collate "C" desc;
end
$$;

comment on function public.widget_call_list(timestamptz, timestamptz, uuid, text, text, integer) is
  'Rows of widget_billing_calls(), latest first, page by page: the next page is the one after the cursor of the last row. '
  'only_widget: of that widget alone. only_calls: of one outcome or one evidence alone, such as failed or assumed.';


create function public.widget_call_story(widget_id uuid, session_id text, call_id text)
returns jsonb
language plpgsql stable
set search_path = ''
as $$
declare
  v_call record;
  v_bill jsonb;
begin
  select c.* into v_call
  from widget_internal.session_calls(widget_call_story.widget_id, widget_call_story.session_id) c
  where c.call_id = widget_call_story.call_id;
  if v_call.call_id is null then
    return null;
  end if;

  select to_jsonb(b) into v_bill
  from public.widget_billing_calls(v_call.started_at, v_call.started_at + interval '1 microsecond') b
  where b.widget_id = widget_call_story.widget_id
    and b.session_id = widget_call_story.session_id
    and b.call_id = widget_call_story.call_id;

  return v_bill || jsonb_build_object(
    'ended_by', v_call.ended_by,
    'last_heartbeat_at', v_call.last_heartbeat_at,
    'is_capped', (
      select coalesce(v_call.ended_at >= v_call.started_at + s.max_call_duration, false) from widget_internal.settings s
    ),
    'events', (
      select coalesce(jsonb_agg(to_jsonb(e) - 'widget_id' order by e."timestamp", e.seq, e.id), '[]')
      from (
        select e.* from public.widget_analytics e
        where e.widget_id = widget_call_story.widget_id and e.session_id = widget_call_story.session_id
          and e.event_type in ('call_start', 'call_heartbeat', 'call_end', 'call_error')
          and (e.call_id is null or e.call_id = widget_call_story.call_id)
        union all
        -- Loads and opens are found by their time: there is no index on the sessions of all events.
        select e.* from public.widget_analytics e
        where e.widget_id = widget_call_story.widget_id and e.session_id = widget_call_story.session_id
          and e.event_type in ('widget_load', 'widget_open')
          and e."timestamp" between v_call.started_at - interval '2 hours' and v_call.started_at
      ) e
    )
  );
end
$$;

comment on function public.widget_call_story(uuid, text, text) is
  'One call: its row of widget_billing_calls() with ended_by (the event that was believed, R5), last_heartbeat_at, is_capped '
  '(cut at max_call_duration), and events: those of the call, those of its session that name no call, and what was loaded '
  'and opened in the two hours before. Null for a call that the caller may not see.';

revoke all on function public.widget_call_list(timestamptz, timestamptz, uuid, text, text, integer)
  from public, anon, authenticated, service_role;
revoke all on function public.widget_call_story(uuid, text, text) from public, anon, authenticated, service_role;
grant execute on function public.widget_call_list(timestamptz, timestamptz, uuid, text, text, integer) to authenticated;
grant execute on function public.widget_call_story(uuid, text, text) to authenticated;
