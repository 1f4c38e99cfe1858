-- The one definition of calls and of what they cost, over the archive's files, for every engine: DuckDB and Apache Spark
-- run it as it stands. It says what widget_internal.session_calls() (R4, R5, R6) and rated_calls() say in the database;
-- tests compare the two on the same histories. Times and lengths are whole microseconds, so nothing is ever rounded.
--
-- {microseconds} is the engine's name for "microseconds since 1970 of a timestamp". {period_start}, {period_end} and
-- {longest_call} are the month's bounds and max_call_duration, from the manifest.
create or replace temporary view rated_calls as
with call_events as (
  select
    e.widget_id, e.session_id, e.id, e.call_id, e.event_type, e.stated_us, e.note,
    {microseconds}(e.`timestamp`) as at_us,
    coalesce(e.seq, 0) as seq,
    case when e.event_type = 'call_start' then 1 else 0 end as is_start,
    case when e.event_type in ('call_end', 'call_error') then 1 else 0 end as is_end,
    e.source,
    case e.source
      when 'operator' then 1 when 'provider' then 2 when 'server' then 3 when 'browser' then 4 else 5
    end as rank_of_source,
    case when e.call_id is null then 1 else 0 end as is_unnamed
  from archived_events e
  where e.event_type in ('call_start', 'call_heartbeat', 'call_end', 'call_error')
),
-- R4: among the events that name no call, each start opens one.
numbered as (
  select e.*, sum(e.is_start) over (
    partition by e.widget_id, e.session_id, e.is_unnamed
    order by e.at_us, e.seq, e.is_start desc, e.id
    rows between unbounded preceding and current row
  ) as starts_so_far
  from call_events e
),
named as (
  select
    n.widget_id, n.session_id, n.id, n.event_type, n.stated_us, n.note, n.at_us, n.is_start, n.is_end, n.source,
    n.rank_of_source,
    coalesce(n.call_id, case when n.starts_so_far > 0 then min(case when n.is_start = 1 then n.id end) over (
      partition by n.widget_id, n.session_id, n.is_unnamed, n.starts_so_far
    ) end) as call_id
  from numbered n
),
-- R5: of the events that say that a call is over, one is believed.
ranked as (
  select n.*, case when n.is_end = 1 and 1 = row_number() over (
    partition by n.widget_id, n.session_id, n.call_id
    order by
      n.is_end desc, n.rank_of_source, case when n.event_type = 'call_error' then 1 else 0 end, n.at_us desc, n.id
  ) then 1 else 0 end as is_believed
  from named n
  where n.call_id is not null
),
signs as (
  select
    r.widget_id, r.session_id, r.call_id,
    min(case when r.is_start = 1 then r.at_us end) as started_us,
    max(case when r.event_type = 'call_heartbeat' then r.at_us end) as last_heartbeat_us,
    max(case when r.is_believed = 1 then r.at_us end) as said_to_end_us,
    max(case when r.is_believed = 1 then r.event_type end) as end_type,
    max(case when r.is_believed = 1 then r.source end) as end_source,
    max(case when r.is_believed = 1 then r.stated_us end) as stated_us,
    max(case when r.is_believed = 1 then r.note end) as note
  from ranked r
  group by r.widget_id, r.session_id, r.call_id
),
calls as (
  select
    s.widget_id, s.session_id, s.call_id, s.started_us, s.note,
    -- An inferred end knows only that the call is over; its last sign of life says when.
    case when s.end_type is not null then least(
      greatest(
        s.started_us,
        case
          when s.stated_us is not null then s.started_us + least(s.stated_us, {longest_call})
          when s.end_source = 'inferred' then coalesce(s.last_heartbeat_us, s.said_to_end_us)
          else s.said_to_end_us
        end
      ),
      s.started_us + {longest_call}
    ) end as ended_us,
    case s.end_type when 'call_end' then 'completed' when 'call_error' then 'failed' else 'open' end as outcome,
    case
      when s.end_source in ('browser', 'server') then 'observed'
      when s.end_source = 'inferred' then case when s.last_heartbeat_us is null then 'assumed' else 'heartbeat' end
      else s.end_source
    end as evidence
  from signs s
  where s.started_us >= {period_start} and s.started_us < {period_end}
),
judged as (
  select
    c.*, c.ended_us - c.started_us as duration_us, p.name, p.valid_from, p.price_per_minute, p.currency, p.decimals,
    coalesce(p.included_seconds, 0) * 1000000 as included_us,
    coalesce(p.minimum_seconds, 0) as minimum_seconds,
    coalesce(p.increment_seconds, 0) as increment_seconds,
    case
      when c.outcome = 'open' then 'open calls are not billed yet'
      -- Before any minimum: an operator who sets a call to nothing means that it costs nothing.
      when c.evidence = 'operator' and c.ended_us = c.started_us then 'void'
      when c.outcome = 'failed' and not coalesce(p.bills_failed_calls, false) then 'failed calls are not billed'
      when c.evidence = 'assumed' and p.assumed_calls = 'none' then 'assumed ends are not billed'
    end as why_not
  from calls c
  left join archived_plans p on p.widget_id = c.widget_id
),
measured as (
  select
    j.*, greatest(j.duration_us, j.minimum_seconds * 1000000) as least_us,
    case when j.increment_seconds > 0 then j.increment_seconds * 1000000 else 1 end as step_us
  from judged j
)
select
  m.widget_id, m.session_id, m.call_id, m.started_us, m.ended_us, m.outcome, m.evidence, m.duration_us,
  -- Up to a multiple of the step.
  case when m.why_not is not null then 0
    else m.least_us + (m.step_us - m.least_us % m.step_us) % m.step_us
  end as billable_us,
  concat(
    case
      when m.why_not is not null then m.why_not
      when m.minimum_seconds = 0 and m.increment_seconds = 0 then 'exact duration'
      else concat_ws(
        ', ', case when m.minimum_seconds > 0 then concat('at least ', m.minimum_seconds, ' s') end,
        case when m.increment_seconds > 0 then concat('in steps of ', m.increment_seconds, ' s') end
      )
    end,
    case when m.name is null then '' else concat(' (plan "', m.name, '" from ', m.valid_from, ')') end,
    case when m.evidence = 'operator' then coalesce(m.note, '') else '' end
  ) as rule,
  m.price_per_minute, m.currency, m.decimals, m.included_us
from measured m
