-- Where is it used? Sessions and calls by page and domain, for owners and the SQL editor.

create view public.widget_pages with (security_invoker = true) as
  with ranked as (
    select p.*, row_number() over (
      partition by p.widget_id, p.day, p.host order by p.sessions desc, p.calls desc, p.page_url
    ) as rank
    from widget_internal.health_pages p
    where p.sessions > 0
  )
  select
    r.widget_id, r.day, nullif(r.host, '') as host,
    case when r.rank > 50 then '(others)' else nullif(r.page_url, '') end as page_url,
    sum(r.sessions)::bigint as sessions, sum(r.loads)::bigint as loads, sum(r.opens)::bigint as opens,
    sum(r.calls)::bigint as calls
  from ranked r
  group by r.widget_id, r.day, r.host, case when r.rank > 50 then '(others)' else nullif(r.page_url, '') end;

comment on view public.widget_pages is
  'Where each widget is used: sessions, loads, opens and calls by UTC day, host and page. All of a session counts on the '
  'day of its first event, and for the page that it names first. Of each host and day the 50 busiest pages stand '
  'alone, the rest together as (others). Pages are told apart by their first 512 characters; null: none was named.';

revoke all on table public.widget_pages from public, anon, authenticated, service_role;
grant select on table public.widget_pages to authenticated, service_role;


create function public.widget_busiest_pages(
  first_day date, last_day date, only_widget_id uuid default null, max_pages integer default 20
)
returns table (widget_id uuid, host text, page_url text, sessions bigint, loads bigint, opens bigint, calls bigint)
language plpgsql stable
set search_path = ''
as $$
begin
  return query
  select
    p.widget_id, nullif(p.host, ''), nullif(p.page_url, ''),
    sum(p.sessions)::bigint, sum(p.loads)::bigint, sum(p.opens)::bigint, sum(p.calls)::bigint
  from widget_internal.health_pages p
  where p.day between widget_busiest_pages.first_day and widget_busiest_pages.last_day
    and (widget_busiest_pages.only_widget_id is null or p.widget_id = widget_busiest_pages.only_widget_id)
    and p.sessions > 0
  group by p.widget_id, p.host, p.page_url
  order by 4 desc, 7 desc, 3
  limit widget_busiest_pages.max_pages;
end
$$;

comment on function public.widget_busiest_pages(date, date, uuid, integer) is
  'The busiest pages of a period of UTC days, both included, of one widget or of all, exact: like widget_pages, but '
  'summed up over the days.';

revoke all on function public.widget_busiest_pages(date, date, uuid, integer) from public, anon, authenticated, service_role;
grant execute on function public.widget_busiest_pages(date, date, uuid, integer) to authenticated, service_role;


create function public.widget_busiest_hosts(first_day date, last_day date, only_widget_id uuid default null)
returns table (widget_id uuid, host text, sessions bigint, loads bigint, opens bigint, calls bigint)
language plpgsql stable
set search_path = ''
as $$
begin
  return query
  select
    p.widget_id, nullif(p.host, ''),
    sum(p.sessions)::bigint, sum(p.loads)::bigint, sum(p.opens)::bigint, sum(p.calls)::bigint
  from widget_internal.health_pages p
  where p.day between widget_busiest_hosts.first_day and widget_busiest_hosts.last_day
    and (widget_busiest_hosts.only_widget_id is null or p.widget_id = widget_busiest_hosts.only_widget_id)
    and p.sessions > 0
  group by p.widget_id, p.host
  order by 3 desc, 6 desc, 2;
end
$$;

comment on function public.widget_busiest_hosts(date, date, uuid) is
  'The domains of a period of UTC days, both included, of one widget or of all, the busiest first.';

revoke all on function public.widget_busiest_hosts(date, date, uuid) from public, anon, authenticated, service_role;
grant execute on function public.widget_busiest_hosts(date, date, uuid) to authenticated, service_role;
