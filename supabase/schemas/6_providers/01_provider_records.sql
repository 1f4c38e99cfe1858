-- What call providers say of the calls that they carried: each verified record once, apart from the ledger.

create table public.widget_provider_agents (
  provider text not null,
  agent text not null default '*',
  widget_id uuid references public.widgets (id),
  constraint widget_provider_agents_have_one_widget primary key (provider, agent),
  constraint provider_is_a_short_lower_case_name check (provider ~ '^[a-z][a-z0-9_-]{0,49}$'),
  constraint agent_has_1_to_255_characters check (length(agent) between 1 and 255)
);

comment on table public.widget_provider_agents is
  'Which widget a provider''s agent serves. It says to whom a call is billed that no browser reported, and keeps calls '
  'from being matched in another widget. The company keeps it.';
comment on column public.widget_provider_agents.provider is 'As the records name it: vapi, retell, livekit and so on.';
comment on column public.widget_provider_agents.agent is
  'The provider''s id of the assistant or agent, or a room''s name; *: all that have no row of their own.';
comment on column public.widget_provider_agents.widget_id is
  'Null: calls of this agent are none of a widget''s, such as those by telephone; they are billed to nobody and no alarm.';

create index widget_provider_agents_widget_id_idx on public.widget_provider_agents (widget_id);
comment on index public.widget_provider_agents_widget_id_idx is 'Serves "which providers carry this widget''s calls?" and the foreign key.';

alter table public.widget_provider_agents enable row level security;


create table public.widget_provider_calls (
  provider text not null,
  call_id text collate "C" not null,
  -- What its records say, taken together.
  started_at timestamptz,
  ended_at timestamptz,
  outcome text,
  agent text,
  named_widget_id uuid,
  named_session_id text collate "C",
  named_call_id text collate "C",
  -- What was made of it.
  widget_id uuid,
  session_id text collate "C",
  widget_call_id text collate "C",
  matched_by text,
  matched_at timestamptz,
  next_look_at timestamptz,
  erased_at timestamptz,
  constraint widget_provider_calls_pkey primary key (provider, call_id),
  constraint matched_by_is_known check (matched_by in ('call_id', 'metadata', 'session', 'agent')),
  constraint matches_are_whole check (
    num_nulls(widget_id, session_id, widget_call_id, matched_by, matched_at) in (0, 5)
  )
);

comment on table public.widget_provider_calls is
  'The calls that providers tell of, one row each, and the call of a widget that each is billed as. For the company '
  'alone: what a provider carried for whom is none of an owner''s business.';
comment on column public.widget_provider_calls.call_id is
  'The provider''s id of the call, which the page passes to callStart(); of a room, its instance.';
comment on column public.widget_provider_calls.started_at is 'The earliest start of its records.';
comment on column public.widget_provider_calls.ended_at is 'The latest end of its records; of a call in legs, the last leg''s.';
comment on column public.widget_provider_calls.named_session_id is
  'With named_widget_id and named_call_id: our ids in the provider''s metadata. A visitor may have written them.';
comment on column public.widget_provider_calls.session_id is
  'With widget_id and widget_call_id: the call in widget_calls that is billed by these records; null: none yet.';
comment on column public.widget_provider_calls.matched_by is
  'call_id: the page passed the provider''s id. metadata: it named session and call. session: it named the session alone. '
  'agent: no browser reported it, and widget_provider_agents named the widget.';
comment on column public.widget_provider_calls.next_look_at is
  'When the job looks at it again, if no event and no record of the call comes before; null: not.';

create index widget_provider_calls_next_look_at_idx on public.widget_provider_calls (next_look_at) where next_look_at is not null;
comment on index public.widget_provider_calls_next_look_at_idx is 'Serves match_widget_provider_records(): what is due.';

create index widget_provider_calls_call_id_idx on public.widget_provider_calls using hash (call_id);
comment on index public.widget_provider_calls_call_id_idx is
  'Serves match_widget_provider_records(): of which provider''s call are the events that came in?';

create index widget_provider_calls_named_idx on public.widget_provider_calls (named_session_id) where named_session_id is not null;
comment on index public.widget_provider_calls_named_idx is 'Serves the same for our ids in the metadata, and erasures.';

create index widget_provider_calls_matched_idx on public.widget_provider_calls (widget_id, session_id, widget_call_id)
  where widget_id is not null;
comment on index public.widget_provider_calls_matched_idx is 'Serves "what does the provider say of this call?", and erasures.';

create index widget_provider_calls_unmatched_idx on public.widget_provider_calls (coalesce(ended_at, started_at))
  where widget_id is null;
comment on index public.widget_provider_calls_unmatched_idx is 'Serves the alarm records_unmatched, and a new row of widget_provider_agents.';

create index widget_provider_calls_time_idx on public.widget_provider_calls (coalesce(started_at, ended_at));
comment on index public.widget_provider_calls_time_idx is 'Serves widget_reconciliation(): the provider''s calls of a period.';

alter table public.widget_provider_calls enable row level security;


create table public.widget_provider_records (
  provider text not null,
  record_id text collate "C" not null,
  call_id text collate "C" not null,
  started_at timestamptz,
  ended_at timestamptz,
  latest_started_at timestamptz,
  earliest_ended_at timestamptz,
  is_contradictory boolean not null generated always as (
    coalesce(latest_started_at - started_at > interval '1 second', false)
    or coalesce(ended_at - earliest_ended_at > interval '1 second', false)
  ) stored,
  outcome text,
  reason text,
  agent text,
  said_widget_id text,
  said_session_id text,
  said_call_id text,
  cost numeric,
  cost_currency text,
  received_at timestamptz not null default clock_timestamp(),
  changed_at timestamptz not null default clock_timestamp(),
  constraint widget_provider_records_are_kept_once primary key (provider, record_id),
  constraint records_belong_to_a_call foreign key (provider, call_id) references public.widget_provider_calls (provider, call_id),
  constraint provider_is_a_short_lower_case_name check (provider ~ '^[a-z][a-z0-9_-]{0,49}$'),
  constraint record_id_has_1_to_255_characters check (length(record_id) between 1 and 255),
  constraint provider_call_id_has_1_to_255_characters check (length(call_id) between 1 and 255),
  constraint records_have_a_time check (num_nonnulls(started_at, ended_at) > 0),
  constraint only_ended_records_have_an_outcome check ((outcome is null) = (ended_at is null)),
  constraint outcome_is_completed_or_failed check (outcome in ('completed', 'failed')),
  constraint costs_have_a_currency check ((cost is null) = (cost_currency is null))
);

comment on table public.widget_provider_records is
  'Each verified record of a provider, once: a call, or one leg of it. Nothing else of what the provider sent is stored. '
  'For the company alone, as it says what the provider charges.';
comment on column public.widget_provider_records.record_id is 'The record''s name at its provider: the call''s id, or the leg''s.';
comment on column public.widget_provider_records.started_at is 'The earliest start that it was ever told with.';
comment on column public.widget_provider_records.ended_at is 'The latest end that it was ever told with.';
comment on column public.widget_provider_records.latest_started_at is 'The latest start; with earliest_ended_at what tells a contradiction.';
comment on column public.widget_provider_records.is_contradictory is
  'It was told with two starts or two ends that are more than a second apart: the earliest start and the latest end count.';
comment on column public.widget_provider_records.reason is 'Why the call ended, in the provider''s words.';
comment on column public.widget_provider_records.agent is 'The assistant or agent, or the room''s name: the key of widget_provider_agents.';
comment on column public.widget_provider_records.said_session_id is
  'With said_widget_id and said_call_id: what the provider''s metadata says of our ids, as it came.';
comment on column public.widget_provider_records.cost is 'What the provider charges for it, in cost_currency.';

create index widget_provider_records_call_id_idx on public.widget_provider_records (provider, call_id);
comment on index public.widget_provider_records_call_id_idx is 'Serves the records of one call, and the foreign key.';

create index widget_provider_records_contradictory_idx on public.widget_provider_records (changed_at) where is_contradictory;
comment on index public.widget_provider_records_contradictory_idx is 'Serves the alarm records_contradictory.';

alter table public.widget_provider_records enable row level security;


create index call_states_call_id_idx on widget_internal.call_states using hash (call_id);
comment on index widget_internal.call_states_call_id_idx is 'Serves provider_shares(): which sessions know a provider''s call?';
