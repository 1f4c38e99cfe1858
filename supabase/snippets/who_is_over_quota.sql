-- Who is over quota? Widgets of which events were refused in the last seven days because they sent too many.
-- Good: no rows. A row: a page in a loop, somebody who floods, or a customer who has outgrown the quota.
select
  widget_id, sum(refusals) as refused, count(distinct hour) as hours, min(hour) as first_hour, max(hour) as last_hour
from public.widget_refusals
where reason = 'over_quota' and hour > now() - interval '7 days'
group by widget_id
order by refused desc;
