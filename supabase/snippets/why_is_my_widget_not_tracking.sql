-- Why is my widget not tracking? One row a widget, those that send nothing first, with what to do about it.
-- Good: "it tracks". A widget's last_event_at should be about when somebody last saw its page.
-- Last rows, without a widget: ids that pages sent and that no widget has.
with refused as (
  select
    widget_id, sum(refusals) as refusals,
    (array_agg(reason order by refusals desc))[1] as reason, (array_agg(detail order by refusals desc))[1] as detail
  from public.widget_refusals
  where hour > now() - interval '1 day' and widget_id is not null
  group by widget_id
),
widgets as (
  select
    w.id as widget_id, d.is_active, d.is_demo, d.allowed_domains, r.refusals, r.reason, r.detail,
    (select max(e."timestamp") from public.widget_analytics e where e.widget_id = w.id) as last_event_at
  from public.widgets w
  cross join lateral widget_internal.widget_door(w.id) d
  left join refused r on r.widget_id = w.id
),
verdicts as (
  select
    widget_id::text,
    case
      when is_demo then 'it is a demo widget, whose events are not stored: set is_demo to false'
      when not is_active then 'it is not active: set is_active to true'
      when allowed_domains = '{}' then 'no domain may use it: add the page''s host to allowed_domains'
      when refusals > 0 then
        -- Some of its pages may track while others are refused.
        case when last_event_at > now() - interval '1 day' then 'it tracks, and some events are refused: ' else '' end
        || case
          when reason = 'domain_not_allowed' and widget_internal.is_host_allowed(detail, allowed_domains) then
            format('pages on %s were refused, and are allowed now', detail)
          when reason = 'domain_not_allowed' and detail <> '' then
            format('a page on %s uses it; if this is your page, add %s to allowed_domains', detail, detail)
          when reason = 'domain_not_allowed' then 'a page names no host; open it from a web server, not from a file'
          when reason = 'over_quota' then 'it sends more than its quota; see who_is_over_quota.sql'
          when reason = 'invalid_input' then format('its events are malformed; correct %s', detail)
          else 'it was not active, or had no allowed domain, at the time'
        end
      when last_event_at > now() - interval '1 day' then 'it tracks'
      else 'nothing arrives: look at the page, and at the browser''s console and network tabs'
    end as verdict,
    last_event_at, refusals as refused_in_24_hours, reason, detail
  from widgets
  union all
  select null, 'no widget has this id: correct the one on the page', null, sum(refusals), reason, detail
  from public.widget_refusals
  where hour > now() - interval '1 day' and reason = 'unknown_widget'
  group by reason, detail
)
select * from verdicts
order by widget_id is null, last_event_at nulls first, refused_in_24_hours desc nulls last;
