-- What was erased from the ledger must not live on in the counts: a session that is erased is counted under no page.

create function widget_internal.forget_erased_pages()
returns trigger
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  if not exists (
    select from old_events o join new_events n using (id, widget_id) where o.page_url <> '' and n.page_url is null
  ) then
    return null;
  end if;

  -- No refresh may read a session before the erasure and write it back after it.
  perform from widget_internal.health_state for update;
  with erased as materialized (
    select o.widget_id, o.session_id::text as session_id, o."timestamp" as at, o.received_at,
      left(o.page_url, 512) collate "C" as page_url
    from old_events o join new_events n using (id, widget_id)
    where o.page_url <> '' and n.page_url is null and o.source = 'browser'
  ),
  sessions as materialized (
    select distinct on (s.widget_id, s.session_id, s.first_received_at) s.*, e.page_url as old_page_url
    from (select e.widget_id, array_agg(distinct e.session_id) as session_ids from erased e group by e.widget_id) w
    cross join widget_internal.health_state h
    cross join lateral widget_internal.counted_sessions(
      (true, now(), '-infinity', null), h, false, w.widget_id, w.session_ids
    ) s
    join erased e on e.widget_id = s.widget_id and e.session_id = s.session_id
      and e.received_at between s.first_received_at and s.last_received_at
    order by s.widget_id, s.session_id, s.first_received_at, e.at, e.page_url
  ),
  in_flight as (
    update widget_internal.health_sessions h set page_at = null, page_url = ''
    from erased e
    where h.widget_id = e.widget_id and h.session_id = e.session_id
  )
  insert into widget_internal.health_pages as p (widget_id, day, page_url, host, sessions, loads, opens, calls)
  select
    s.widget_id, (s.first_at at time zone 'UTC')::date, m.page_url, '',
    sum(m.sign), sum(m.sign * s.loads), sum(m.sign * s.opens), sum(m.sign * s.calls)
  from sessions s
  cross join lateral (values (1, ''), (-1, s.old_page_url)) m (sign, page_url)
  group by 1, 2, 3
  on conflict (widget_id, day, page_url) do update set
    sessions = p.sessions + excluded.sessions, loads = p.loads + excluded.loads,
    opens = p.opens + excluded.opens, calls = p.calls + excluded.calls;

  delete from widget_internal.health_pages p
  where p.sessions <= 0 and p.widget_id in (select o.widget_id from old_events o);
  return null;
end
$$;

comment on function widget_internal.forget_erased_pages() is
  'After erase_widget_session(): counts that session under no page, and drops a page that no other session names.';

create trigger forget_erased_pages_on_update
  after update on public.widget_analytics
  referencing old table as old_events new table as new_events
  for each statement execute function widget_internal.forget_erased_pages();
