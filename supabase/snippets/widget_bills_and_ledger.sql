-- Missing billing data? Do the calls that bills rest on, the closed statements, and the counts of widget_health agree with
-- the ledger and with their hashes? Good: no rows. Reads the whole ledger: minutes where it is large.
select 'call' as what, widget_id, session_id || ' ' || call_id as which, kept::text, computed::text
from widget_internal.widget_calls_differences()
union all
select 'statement', widget_id, to_char(period, 'YYYY-MM') || coalesce(' for ' || to_char(usage_period, 'YYYY-MM'), ''), null, null
from public.broken_widget_statements()
union all
select counted, widget_id, at, kept::text, computed::text
from widget_internal.health_differences();
