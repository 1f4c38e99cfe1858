-- What everything is measured against: the table of the document that this project started from, as a project would make
-- it to keep the document's promises. Ids are drawn at random by the database, rows are found by their session, widgets
-- are known.
create schema original_baseline;

create table original_baseline.widgets (
  id uuid primary key
);

create table original_baseline.widget_analytics (
  id uuid primary key default gen_random_uuid(),
  widget_id uuid references original_baseline.widgets (id),
  event_type varchar(50),
  session_id varchar(255),
  page_url text,
  user_agent text,
  "timestamp" timestamptz default now()
);

-- One index over both: two of one column each would cost it more at every insert, and find no row sooner.
create index on original_baseline.widget_analytics (widget_id, session_id);

-- The table exactly as the document has it, without an index that any query of it would need: what a bare insert costs
-- at the very least.
create table original_baseline.bare (
  id uuid primary key,
  widget_id uuid references original_baseline.widgets (id),
  event_type varchar(50),
  session_id varchar(255),
  page_url text,
  user_agent text,
  "timestamp" timestamptz
);

grant usage on schema original_baseline to service_role;
grant insert on original_baseline.bare to service_role;
grant select, insert on original_baseline.widget_analytics to service_role;

-- "What the cleanup job does", steps 1 to 4 of the document.
create function original_baseline.cleanup(now timestamptz default now())
returns bigint
language plpgsql
set search_path = ''
as $$
declare
  v_completed bigint;
begin
  insert into original_baseline.widget_analytics (widget_id, event_type, session_id, "timestamp")
  select s.widget_id, 'call_end', s.session_id, s."timestamp" + interval '30 minutes'
  from original_baseline.widget_analytics s
  where s.event_type = 'call_start'
    and s."timestamp" < cleanup.now - interval '30 minutes'
    and not exists (
      select from original_baseline.widget_analytics e
      where e.widget_id = s.widget_id
        and e.session_id = s.session_id
        and e.event_type in ('call_end', 'call_error')
    );
  get diagnostics v_completed = row_count;
  return v_completed;
end
$$;
