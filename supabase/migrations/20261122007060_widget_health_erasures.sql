-- What was erased from the ledger must not live on in the counts: a session that is forgotten has no page there either.

create function widget_internal.forget_health_page()
returns trigger
language plpgsql volatile
set search_path = ''
as $$
declare
  v_session widget_internal.health_sessions;
begin
  -- No refresh may read the session before the erasure and write it back after.
  perform from widget_internal.health_state for update;
  select s.* into v_session
  from widget_internal.health_sessions s
  where s.widget_id = new.widget_id and s.session_id = new.session_id and s.page_url <> '';
  if not found then
    return null;
  end if;

  update widget_internal.health_sessions s set page_at = null, page_url = ''
  where s.widget_id = new.widget_id and s.session_id = new.session_id;
  insert into widget_internal.health_pages as p (widget_id, day, page_url, host, sessions, loads, opens, calls)
  select
    v_session.widget_id, (v_session.first_at at time zone 'UTC')::date, c.page_url, '',
    c.sign, c.sign * v_session.loads, c.sign * v_session.opens, c.sign * v_session.calls
  from (values (1, ''), (-1, v_session.page_url)) c (sign, page_url)
  on conflict on constraint health_pages_pkey do update set
    sessions = p.sessions + excluded.sessions, loads = p.loads + excluded.loads,
    opens = p.opens + excluded.opens, calls = p.calls + excluded.calls;
  delete from widget_internal.health_pages p
  where p.widget_id = v_session.widget_id
    and p.day = (v_session.first_at at time zone 'UTC')::date
    and p.page_url = v_session.page_url
    and p.sessions = 0;
  return null;
end
$$;

comment on function widget_internal.forget_health_page() is
  'After erase_widget_session(): counts that session under no page, and drops a page that no other session names.';

revoke all on function widget_internal.forget_health_page() from public, anon, authenticated, service_role;


create trigger forget_health_page_on_erasure
  after insert on public.widget_erasures
  for each row execute function widget_internal.forget_health_page();
