-- Where a set of the schema joins in what the sets below it do, without being named by them.

create table widget_internal.hooks (
  hook text not null,
  function text not null,
  constraint hooks_are_one_row_a_function primary key (hook, function)
);

comment on table widget_internal.hooks is
  'Functions that lower sets call by name, each with its schema; each set of the schema adds its own rows.';
comment on column widget_internal.hooks.hook is
  'erase_session: (widget_id, session_id) returns how many rows lost something, after the ledger''s events did. '
  'before_closing: (), before a month''s statement is written. alarms: () returns rows (alarm, widget_id, message). '
  'jobs: () returns rows (name, schedule, command), as cron.schedule() takes them.';

alter table widget_internal.hooks enable row level security;
