-- A session that is erased is erased here too: what remains of its records are names, times and costs, which bills rest on.

create function widget_internal.erase_provider_records(session jsonb)
returns bigint
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_widget_id constant uuid := (session ->> 'widget_id')::uuid;
  v_session_id constant text := session ->> 'session_id';
  v_erased bigint;
begin
  with calls as (
    update public.widget_provider_calls c
    set agent = null, named_widget_id = null, named_session_id = null, named_call_id = null, erased_at = clock_timestamp()
    where (
        c.widget_id = v_widget_id and c.session_id = v_session_id
        or c.named_widget_id = v_widget_id and c.named_session_id = v_session_id
      )
      -- One that waits for its call is named by nothing else.
      and c.widget_id is not null and c.erased_at is null
    returning c.provider, c.call_id
  )
  update public.widget_provider_records r
  set reason = null, agent = null, said_widget_id = null, said_session_id = null, said_call_id = null
  from calls c
  where r.provider = c.provider and r.call_id = c.call_id
    and num_nonnulls(r.reason, r.agent, r.said_widget_id, r.said_session_id, r.said_call_id) > 0;
  get diagnostics v_erased = row_count;
  return v_erased;
end
$$;

comment on function widget_internal.erase_provider_records(jsonb) is
  'After erase_widget_session(): erases the reason, the agent and our ids of the records of a session''s calls, and says '
  'of how many. What comes of these calls later is stored without them.';

insert into widget_internal.hooks (hook, function) values ('erase_session', 'widget_internal.erase_provider_records');
