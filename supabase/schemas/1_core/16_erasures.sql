-- Erasure of a visitor's personal data. What bills rest on stays, so that no bill changes.

create table public.widget_erasures (
  id bigint generated always as identity primary key,
  widget_id uuid not null,
  session_id text collate "C" not null,
  erased_at timestamptz not null default clock_timestamp(),
  erased_by text not null,
  events integer not null,
  constraint erasures_erase_something check (events > 0)
);

comment on table public.widget_erasures is
  'Who erased what of which session, and when: one row each time that erase_widget_session() found something to erase.';
comment on column public.widget_erasures.erased_by is
  'The database login, with the role and the user of the request if there was one.';
comment on column public.widget_erasures.events is 'How many events lost their page, agent or properties, and records of other sets what tells of a visitor.';

create index widget_erasures_widget_id_session_id_idx on public.widget_erasures (widget_id, session_id);
comment on index public.widget_erasures_widget_id_session_id_idx is 'Serves "was this session erased?" and an owner''s own rows.';

alter table public.widget_erasures enable row level security;

create policy "owners see their widgets' erasures" on public.widget_erasures
  for select to authenticated
  using (widget_id = any (array(select widget_internal.owned_widget_ids())));


create function widget_internal.billing_facts(source text, properties jsonb)
returns jsonb
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  -- A browser's properties never count: only those who may correct a bill say in them what it rests on.
  if billing_facts.source not in ('operator', 'provider', 'server') then
    return null;
  end if;
  return (
    select jsonb_object_agg(p.key, p.value)
    from jsonb_each(billing_facts.properties) p
    where p.key in ('record_id', 'reason', 'corrected_by', 'login')
  );
end
$$;

comment on function widget_internal.billing_facts(text, jsonb) is
  'The part of an event''s properties that bills need: the record''s id, and who corrected the call and why.';


create function widget_internal.erase_session(widget_id uuid, session_id text)
returns jsonb
language plpgsql volatile
-- definer because nobody but its owner has the right to change the ledger
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_claims constant jsonb := nullif(current_setting('request.jwt.claims', true), '')::jsonb;
  v_erased integer;
begin
  if (widget_internal.widget_door(erase_session.widget_id)).is_active is null
    or current_setting('role') in ('anon', 'authenticated')
      and erase_session.widget_id <> all (array(select widget_internal.owned_widget_ids()))
  then
    raise exception 'widget_id: this widget is unknown, or not yours' using errcode = 'insufficient_privilege';
  elsif coalesce(length(erase_session.session_id), 0) not between 1 and 255 then
    raise exception 'session_id: must have 1 to 255 characters' using errcode = 'invalid_parameter_value';
  end if;

  update public.widget_analytics e
  set page_url = null, user_agent = null, properties = widget_internal.billing_facts(e.source, e.properties)
  where e.widget_id = erase_session.widget_id
    and e.session_id = erase_session.session_id
    and (
      e.page_url is not null or e.user_agent is not null
      or e.properties is distinct from widget_internal.billing_facts(e.source, e.properties)
    );
  get diagnostics v_erased = row_count;
  v_erased := v_erased + (
    select coalesce(sum(h::bigint), 0)
    from widget_internal.call_hooks('erase_session', jsonb_build_object(
      'widget_id', erase_session.widget_id, 'session_id', erase_session.session_id
    )) h
  );

  if v_erased > 0 then
    insert into public.widget_erasures (widget_id, session_id, erased_by, events)
    values (
      erase_session.widget_id, erase_session.session_id,
      concat_ws(' ', session_user, v_claims ->> 'role', v_claims ->> 'sub'), v_erased
    );
  end if;
  return jsonb_build_object('erased', v_erased);
end
$$;

comment on function widget_internal.erase_session(uuid, text) is
  'What erase_widget_session() does, with the right to change the ledger: a signed-in user''s own widgets, any for others.';


create function public.erase_widget_session(widget_id uuid, session_id text)
returns jsonb
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  return widget_internal.erase_session(erase_widget_session.widget_id, erase_widget_session.session_id);
end
$$;

comment on function public.erase_widget_session(uuid, text) is
  'Erases page, agent and properties of all events of a session: for the widget''s owner, and service_role. Ids, times, '
  'types, sources and what bills rest on stay, so calls, bills and closed months do not change. Answers {"erased": n}, '
  'how many events lost something; again, 0. Each time that it erases leaves a row in widget_erasures. What arrives in '
  'the days after is erased by the daily job widget_prune. 42501: the widget is unknown, or not yours. 400 (22023): session_id is not one.';
