-- Each statement carries a hash that anyone can compute again from its rows: of a text that no setting of a session or
-- a database changes, as every value in it is formatted here, and not by the output of its type.

create function widget_internal.as_text(value timestamptz)
returns text
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return to_char(as_text.value at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"');
end
$$;

comment on function widget_internal.as_text(timestamptz) is 'A moment in one way of writing: UTC, to the microsecond.';


create function widget_internal.charge_content(charge public.widget_statement_charges)
returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return jsonb_build_array(
    to_char(charge.period, 'YYYY-MM-DD'), charge.widget_id::text, to_char(charge.usage_period, 'YYYY-MM-DD'),
    to_char(charge.plan_valid_from, 'YYYY-MM-DD'), trim_scale(charge.monthly_fee)::text, charge.included_seconds::text,
    trim_scale(charge.price_per_minute)::text, charge.currency,
    trim_scale(charge.old_seconds)::text, trim_scale(charge.new_seconds)::text,
    trim_scale(charge.old_amount)::text, trim_scale(charge.new_amount)::text
  )::text || coalesce((
    select string_agg(
      chr(10) || jsonb_build_array(
        l.session_id, l.call_id, widget_internal.as_text(l.started_at), widget_internal.as_text(l.ended_at),
        l.outcome, l.evidence, trim_scale(l.duration_seconds)::text,
        trim_scale(l.old_seconds)::text, trim_scale(l.new_seconds)::text, l.rule, to_jsonb(l.event_ids)
      )::text, '' order by l.session_id, l.call_id
    )
    from public.widget_statement_lines l
    where l.period = charge.period and l.widget_id = charge.widget_id and l.usage_period = charge.usage_period
  ), '');
end
$$;

comment on function widget_internal.charge_content(public.widget_statement_charges) is
  'What a charge''s hash is taken of: a line of JSON for the charge, then one for each call (docs/billing.md).';


create function widget_internal.period_content(period public.widget_billing_periods)
returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_period constant date := (period_content.period).period;
begin
  return jsonb_build_array(
    to_char(v_period, 'YYYY-MM-DD'), widget_internal.as_text(period.period_start),
    widget_internal.as_text(period.period_end), widget_internal.as_text(period.as_of)
  )::text || coalesce((
    select string_agg(chr(10) || c.content_hash, '' order by c.widget_id, c.usage_period)
    from public.widget_statement_charges c
    where c.period = v_period
  ), '');
end
$$;

comment on function widget_internal.period_content(public.widget_billing_periods) is
  'What a month''s hash is taken of: a line of JSON for the month, then the hash of each charge (docs/billing.md).';


create function widget_internal.content_hash(content text)
returns text
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return encode(sha256(convert_to(content_hash.content, 'UTF8')), 'hex');
end
$$;

comment on function widget_internal.content_hash(text) is 'SHA-256 of a text in UTF-8, in hexadecimal: the hash of statements.';


create function widget_internal.seal_charge()
returns trigger
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  new.content_hash := widget_internal.content_hash(widget_internal.charge_content(new));
  return new;
end
$$;

comment on function widget_internal.seal_charge() is 'Gives a new charge its hash. Its lines are there already.';

create trigger charges_are_sealed before insert on public.widget_statement_charges
  for each row execute function widget_internal.seal_charge();


create function widget_internal.seal_period()
returns trigger
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  new.content_hash := widget_internal.content_hash(widget_internal.period_content(new));
  return new;
end
$$;

comment on function widget_internal.seal_period() is 'Gives a new closed month its hash. Its charges are there already.';

create trigger periods_are_sealed before insert on public.widget_billing_periods
  for each row execute function widget_internal.seal_period();


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
  where c.content_hash <> widget_internal.content_hash(widget_internal.charge_content(c))
  union all
  select p.period, null, null
  from public.widget_billing_periods p
  where p.content_hash <> widget_internal.content_hash(widget_internal.period_content(p));
end
$$;

comment on function public.broken_widget_statements() is
  'Charges, and months (without widget_id), that are not what was closed, by their hashes. Good: no rows.';
