-- Missing billing data? Do the calls that bills rest on, and the counts of widget_health, agree with the ledger?
-- Good: no rows. Reads the whole ledger: minutes where it is large.
select 'call' as what, widget_id, session_id || ' ' || call_id as which, kept::text, computed::text
from widget_internal.widget_calls_differences()
union all
select counted, widget_id, at, kept::text, computed::text
from widget_internal.health_differences();
