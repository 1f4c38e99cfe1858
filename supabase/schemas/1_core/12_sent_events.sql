-- Fields of a sent event, their types, and the message for a value that does not fit.

create domain widget_internal.event_age as numeric
  constraint age_is_at_most_seven_days check (value <= 604800000);
comment on domain widget_internal.event_age is 'How long ago an event happened, in milliseconds by its sender''s clock.';

create type widget_internal.sent_event as (
  widget_id uuid,
  event_type widget_internal.event_type,
  session_id widget_internal.session_id,
  page_url text,
  event_id uuid,
  call_id widget_internal.call_id,
  seq widget_internal.event_seq,
  age_ms widget_internal.event_age,
  properties widget_internal.event_properties
);

comment on type widget_internal.sent_event is
  'An event as it is sent: its fields, each commented with the message for a value that does not fit.';
comment on column widget_internal.sent_event.widget_id is 'must be a UUID';
comment on column widget_internal.sent_event.event_type is 'must be one of ';
comment on column widget_internal.sent_event.session_id is 'must have 1 to 255 characters';
comment on column widget_internal.sent_event.page_url is 'must be a string';
comment on column widget_internal.sent_event.event_id is 'must be a UUID, or be left out';
comment on column widget_internal.sent_event.call_id is 'must have 1 to 255 characters, or be left out';
comment on column widget_internal.sent_event.seq is 'must be a whole number from 1 to 2147483647';
comment on column widget_internal.sent_event.age_ms is 'must be a number of milliseconds, at most 604800000 (seven days)';
comment on column widget_internal.sent_event.properties is 'must be a JSON object of at most 4096 bytes';


create function widget_internal.event_fields()
returns text[]
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return array(
    select a.attname::text from pg_attribute a where a.attrelid = 'widget_internal.sent_event'::regclass order by a.attnum
  );
end
$$;

comment on function widget_internal.event_fields() is 'The fields that an event may have: those of the type sent_event.';


create function widget_internal.event_problem(event jsonb)
returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_field text;
  v_must text;
  v_value jsonb;
begin
  if jsonb_typeof(event_problem.event) is distinct from 'object' then
    return 'event: must be a JSON object';
  end if;
  for v_field, v_must in
    select a.attname, col_description(a.attrelid, a.attnum)
    from pg_attribute a where a.attrelid = 'widget_internal.sent_event'::regclass order by a.attnum
  loop
    v_value := nullif(event_problem.event -> v_field, 'null');
    if v_value is null then
      continue when v_field not in ('widget_id', 'event_type', 'session_id');
    elsif v_field <> 'properties' and jsonb_typeof(v_value) not in ('string', 'number') then
      v_must := 'must be a string or a number';
    else
      begin
        perform jsonb_populate_record(null::widget_internal.sent_event, jsonb_build_object(v_field, v_value));
        continue;
      exception
        when data_exception or integrity_constraint_violation then
          null;  -- v_must says what it must be
      end;
    end if;
    return v_field || ': ' || v_must
      || case v_field when 'event_type' then array_to_string(widget_internal.event_types(), ', ') else '' end;
  end loop;

  select k into v_field from jsonb_object_keys(event_problem.event - widget_internal.event_fields()) k limit 1;
  return left(v_field, 64) || ': is not a field of an event';
end
$$;

comment on function widget_internal.event_problem(jsonb) is
  'What is wrong with a sent event: the first field that does not fit, a colon, what it must be; null where nothing is.';
