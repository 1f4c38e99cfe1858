-- "Why is my widget not tracking?" must be one query: what the door refuses is counted, though nothing of it is stored.

create type widget_internal.refusal as (widget_id uuid, reason text, detail text);

comment on type widget_internal.refusal is
  'One refused event. detail: the page''s host, the field that was wrong, or the unknown widget''s id.';


create table widget_internal.refusal_counts (
  hour timestamptz not null,
  -- The nil UUID for a widget that does not exist: a key holds no nulls.
  widget_id uuid not null default '00000000-0000-0000-0000-000000000000',
  reason text not null,
  detail text not null,
  -- Each database session counts in a row of its own, so that a flood does not queue for one row.
  shard smallint not null,
  refusals bigint not null,
  constraint refusal_counts_are_one_row_a_shard primary key (hour, widget_id, reason, detail, shard),
  constraint refusal_reason_is_known check (
    reason in ('unknown_widget', 'widget_inactive', 'domain_not_allowed', 'invalid_input', 'over_quota')
  ),
  constraint refusals_are_positive check (refusals > 0)
);

comment on table widget_internal.refusal_counts is 'Refused events, counted; read them through the view widget_refusals.';

create index refusal_counts_widget_id_idx on widget_internal.refusal_counts (widget_id, hour);
comment on index widget_internal.refusal_counts_widget_id_idx is 'Serves "why is this widget not tracking?".';

alter table widget_internal.refusal_counts enable row level security;

create policy "owners see their widgets' refusals" on widget_internal.refusal_counts
  for select to authenticated
  using (widget_id = any (array(select widget_internal.owned_widget_ids())));


create view public.widget_refusals with (security_invoker = true) as
  select
    nullif(r.widget_id, '00000000-0000-0000-0000-000000000000') as widget_id, r.reason, r.detail, r.hour,
    sum(r.refusals)::bigint as refusals
  from widget_internal.refusal_counts r
  group by r.widget_id, r.reason, r.detail, r.hour;

comment on view public.widget_refusals is
  'Events refused, by widget, reason and hour. domain_not_allowed: detail is the host to add to allowed_domains, '
  'empty where the page named none. invalid_input: the field. unknown_widget: the id sent. over_quota: whose quota, '
  '"widget" or "sender"; about as many as there were, as one refusal in sixteen is counted, for sixteen. Good: no rows.';


create function widget_internal.count_refusals(refusals widget_internal.refusal[])
returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_hour constant timestamptz := date_trunc('hour', now(), 'UTC');
  v_shard constant smallint := pg_backend_pid() % 16;
  v_refusal record;
begin
  for v_refusal in
    select
      coalesce(r.widget_id, '00000000-0000-0000-0000-000000000000') as widget_id, r.reason,
      left(coalesce(r.detail, ''), 255) as detail, count(*) as n
    from unnest(count_refusals.refusals) r
    group by 1, 2, 3
    order by 1, 2, 3
  loop
    -- Details come from outside: past twenty an hour they are counted together, so that nobody can fill the table.
    if (
      select count(distinct c.detail) >= 20 and not bool_or(c.detail = v_refusal.detail)
      from widget_internal.refusal_counts c
      where c.hour = v_hour and c.widget_id = v_refusal.widget_id and c.reason = v_refusal.reason
    ) then
      v_refusal.detail := '(others)';
    end if;

    insert into widget_internal.refusal_counts as c (hour, widget_id, reason, detail, shard, refusals)
    values (v_hour, v_refusal.widget_id, v_refusal.reason, v_refusal.detail, v_shard, v_refusal.n)
    on conflict on constraint refusal_counts_are_one_row_a_shard
    do update set refusals = c.refusals + excluded.refusals;
  end loop;
end
$$;

comment on function widget_internal.count_refusals(widget_internal.refusal[]) is 'Adds refused events to the counts of this hour.';
