-- What people call a widget, its owner and its customer, for bills that people read.

create function widget_internal.owner_email(owner_id uuid)
returns text
language plpgsql stable
-- definer because nobody else may read auth.users
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select u.email
    from auth.users u
    where u.id = owner_email.owner_id
      and (current_setting('role') not in ('anon', 'authenticated') or u.id = (select auth.uid()))
  );
end
$$;

comment on function widget_internal.owner_email(uuid) is
  'A user''s e-mail address, for the company; a signed-in user learns the own one.';


create function public.widget_user_ids(email text)
returns uuid[]
language plpgsql volatile
-- definer because nobody else may read auth.users
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform widget_internal.refuse_visitors();
  return array(select u.id from auth.users u where lower(u.email) = lower(widget_user_ids.email));
end
$$;

comment on function public.widget_user_ids(text) is
  'The project''s users of this e-mail address, to make one a widget''s owner: several where single sign-on has the address too.';


create function public.widget_directory()
returns table (
  id uuid, name text, customer_reference text, owner_id uuid, owner_email text, allowed_domains text[],
  is_active boolean, is_demo boolean
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  -- By name out of the whole row: a project's own widgets table need not have these columns.
  return query
  select
    w.id, coalesce(r.columns ->> 'name', ''), c.reference, (r.columns ->> 'owner_id')::uuid,
    widget_internal.owner_email((r.columns ->> 'owner_id')::uuid), d.allowed_domains, d.is_active, d.is_demo
  from public.widgets w
  cross join lateral (select to_jsonb(w)) r (columns)
  cross join lateral widget_internal.widget_door(w.id) d
  left join public.widget_customers c on c.widget_id = w.id;
end
$$;

comment on function public.widget_directory() is
  'The widgets with their names, owners (e-mail addresses included), customer references and domains. Owners see their '
  'widgets, service_role all.';
