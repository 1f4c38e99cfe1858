-- Each statement carries a hash that anyone can compute again from its rows: of a text that no setting of a session or
-- a database changes, as every value in it is formatted here, and not by the output of its type.

create function widget_internal.charge_hash(charge public.widget_statement_charges)
returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_moment constant text := 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"';
begin
  return encode(sha256(convert_to(
    jsonb_build_array(
      to_char(charge.period, 'YYYY-MM-DD'), charge.widget_id::text, to_char(charge.usage_period, 'YYYY-MM-DD'),
      to_char(charge.plan_valid_from, 'YYYY-MM-DD'), trim_scale(charge.monthly_fee)::text, charge.included_seconds::text,
      trim_scale(charge.price_per_minute)::text, charge.currency,
      trim_scale(charge.old_seconds)::text, trim_scale(charge.new_seconds)::text,
      trim_scale(charge.old_amount)::text, trim_scale(charge.new_amount)::text
    )::text || coalesce((
      select string_agg(
        chr(10) || jsonb_build_array(
          l.session_id, l.call_id, to_char(l.started_at at time zone 'UTC', v_moment),
          to_char(l.ended_at at time zone 'UTC', v_moment), l.outcome, l.evidence, trim_scale(l.duration_seconds)::text,
          trim_scale(l.old_seconds)::text, trim_scale(l.new_seconds)::text, l.rule, to_jsonb(l.event_ids)
        )::text, '' order by l.session_id, l.call_id
      )
      from public.widget_statement_lines l
      where l.period = charge.period and l.widget_id = charge.widget_id and l.usage_period = charge.usage_period
    ), ''), 'UTF8'
  )), 'hex');
end
$$;

comment on function widget_internal.charge_hash(public.widget_statement_charges) is
  'The SHA-256 of a line of JSON for the charge, then one for each of its calls (docs/billing.md).';


create function widget_internal.period_hash(period public.widget_billing_periods)
returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_moment constant text := 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"';
begin
  return encode(sha256(convert_to(
    jsonb_build_array(
      to_char(period.period, 'YYYY-MM-DD'), to_char(period.period_start at time zone 'UTC', v_moment),
      to_char(period.period_end at time zone 'UTC', v_moment), to_char(period.as_of at time zone 'UTC', v_moment)
    )::text || coalesce((
      select string_agg(chr(10) || c.content_hash, '' order by c.widget_id, c.usage_period)
      from public.widget_statement_charges c
      where c.period = period.period
    ), ''), 'UTF8'
  )), 'hex');
end
$$;

comment on function widget_internal.period_hash(public.widget_billing_periods) is
  'The SHA-256 of a line of JSON for the month, then the hash of each of its charges (docs/billing.md).';


create function public.broken_widget_statements()
returns table (period date, widget_id uuid, usage_period date)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  perform widget_internal.refuse_visitors();
  return query
  select c.period, c.widget_id, c.usage_period
  from public.widget_statement_charges c
  where c.content_hash <> widget_internal.charge_hash(c)
  union all
  select p.period, null, null
  from public.widget_billing_periods p
  where p.content_hash <> widget_internal.period_hash(p);
end
$$;

comment on function public.broken_widget_statements() is
  'Charges, and months (without widget_id), that are not what was closed, by their hashes. Good: no rows.';
