-- The owners' page shows of each call how its bill came about.

create function public.widget_call_story(widget_id uuid, session_id text, call_id text)
returns jsonb
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_custom_plan
-- What a bill is made of is estimated at many times its rows, and compiling it takes a second.
set jit = off
as $$
declare
  v_call widget_internal.call_states;
  v_heartbeat_at timestamptz;
  v_end_claim bigint[];
  v_bill jsonb;
begin
  select c.* into v_call
  from widget_internal.call_states c
  where c.widget_id = widget_call_story.widget_id and c.session_id = widget_call_story.session_id
    and c.call_id = widget_call_story.call_id and c.started_at is not null;
  if not found then
    return null;
  end if;
  v_heartbeat_at := greatest(v_call.heartbeat_at, v_call.matched_heartbeat_at);
  v_end_claim := greatest(v_call.end_claim, v_call.matched_end_claim);

  -- A closed month bills the call by the start that it had then.
  select to_jsonb(b) into v_bill
  from (
    select v_call.started_at as started_at
    union
    select l.started_at from public.widget_statement_lines l
    where l.widget_id = v_call.widget_id and l.session_id = v_call.session_id and l.call_id = v_call.call_id
  ) s
  cross join lateral public.widget_billing_calls(
    s.started_at, s.started_at + interval '1 microsecond', only_widget => v_call.widget_id
  ) b
  where b.session_id = v_call.session_id and b.call_id = v_call.call_id;

  return coalesce(v_bill, jsonb_build_object(
    'widget_id', v_call.widget_id, 'session_id', v_call.session_id, 'call_id', v_call.call_id,
    'started_at', v_call.started_at, 'ended_at', v_call.ended_at, 'outcome', v_call.outcome, 'evidence', v_call.evidence,
    'duration_seconds', extract(epoch from v_call.ended_at - v_call.started_at), 'billable_seconds', 0,
    'rule', 'came after its month was closed; the next statement bills it', 'amount', null, 'currency', null,
    'is_closed', true
  )) || (
    select jsonb_build_object(
      'ended_by', (array_agg(e.id) filter (where e.believed))[1],
      'last_heartbeat_at', v_heartbeat_at,
      'is_capped', (
        select coalesce(v_call.ended_at >= v_call.started_at + s.max_call_duration, false) from widget_internal.settings s
      ),
      'events', coalesce(jsonb_agg(to_jsonb(e) - 'widget_id' - 'believed' order by e."timestamp", e.seq, e.id), '[]')
    )
    from (
      select v.*, case
        -- A browser's end that heartbeats outlive was none.
        when v_call.evidence = 'heartbeat' and (widget_internal.event_sources())[v_end_claim[1]] = 'browser'
          then v.event_type = 'call_heartbeat' and v."timestamp" = v_heartbeat_at
        else v.event_type in ('call_end', 'call_error')
          and widget_internal.claim(v.event_type, v.source, v.received_at, v."timestamp") = v_end_claim
      end as believed
      from public.widget_analytics v
      where v.widget_id = v_call.widget_id
        and v."timestamp" between v_call.started_at - interval '2 hours' and v_call.last_event_at
        and v.session_id = v_call.session_id
        and case
          when v.event_type in ('widget_load', 'widget_open') then v."timestamp" <= v_call.started_at
          else v."timestamp" >= v_call.first_event_at
            and (v.call_id = v_call.call_id or v.call_id is null and v_call.matched_start_claim is not null)
        end
    ) e
  );
end
$$;

comment on function public.widget_call_story(uuid, text, text) is
  'One call: its row of widget_billing_calls() with ended_by (the event that was believed), last_heartbeat_at, is_capped '
  '(cut at max_call_duration), and events: those of the call, those of its session in this time that name no call, and what '
  'was loaded and opened in the two hours before; none where they are in the archive. Null for a call that the caller may '
  'not see.';
