-- Where a set of the schema joins in what the sets below it do, without being named by them.

create table widget_internal.hooks (
  hook text not null,
  function text not null,
  constraint hooks_are_one_row_a_function primary key (hook, function)
);

comment on table widget_internal.hooks is
  'Functions of higher sets that lower sets call, by their qualified names; each set of the schema adds its '
  'own rows.';
comment on column widget_internal.hooks.hook is
  'erase_session: after a session''s events were erased (jsonb: {"widget_id", "session_id"}); answers how many rows lost '
  'something. before_closing: before the statement of a month is written. alarms: answers rows (alarm, widget_id, message).';

alter table widget_internal.hooks enable row level security;


create function widget_internal.call_hooks(hook text, argument jsonb default null)
returns setof jsonb
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_function text;
begin
  for v_function in
    select h.function from widget_internal.hooks h where h.hook = call_hooks.hook order by h.function
  loop
    return query execute format(
      'select to_jsonb(r) from %s(%s) r', v_function, case when call_hooks.argument is not null then '$1' end
    ) using call_hooks.argument;
  end loop;
end
$$;

comment on function widget_internal.call_hooks(text, jsonb) is
  'Calls the functions that widget_internal.hooks names for this, and answers what they answer.';
