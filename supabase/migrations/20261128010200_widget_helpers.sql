-- Made by scripts/baseline from schemas/1_core/03_widget_helpers.sql.

-- Who owns a widget, and which hosts it allows, are each decided in one function. A project with its own widgets
-- table, or with teams, adapts these two bodies and nothing else.

create function widget_internal.owned_widget_ids()
returns setof uuid
language plpgsql stable
-- definer because a project's own widgets table need not be readable by its users
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  return query select w.id from public.widgets w where w.owner_id = (select auth.uid());
end
$$;

comment on function widget_internal.owned_widget_ids() is
  'The widgets of the signed-in user, whose rows that user sees everywhere.';


create function widget_internal.widget_door(
  widget_id uuid, out is_active boolean, out is_demo boolean, out allowed_domains text[]
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  select w.is_active, w.is_demo, w.allowed_domains
  into widget_door.is_active, widget_door.is_demo, widget_door.allowed_domains
  from public.widgets w
  where w.id = widget_door.widget_id;
end
$$;

comment on function widget_internal.widget_door(uuid) is
  'What the door needs to know about a widget: whether it is active or a demo, and which hosts it allows. All null for an unknown one.';
