import * as format from "./format";
import { Panel } from "./Panel";
import { amounts, sumOf } from "./totals";
import type { Month, PlanUsage } from "./types";
import type { Loaded } from "./useLoaded";

export function MonthPanel({ loaded, plans }: { loaded: Loaded<Month[]>; plans: PlanUsage[] | undefined }) {
  return (
    <Panel class="narrow" title="This month so far" loaded={loaded} isEmpty={(months) => months.length < 2}>
      {(months) => <Comparison before={months[0]!} now={months[1]!} plans={plans ?? []} />}
    </Panel>
  );
}

function Comparison({ before, now, plans }: { before: Month; now: Month; plans: PlanUsage[] }) {
  const forecasts = amounts(plans, ({ currency, forecast_amount }) => ({ currency, amount: forecast_amount }));
  const [guessed, counted] = [sumOf(plans.map((row) => row.assumed_seconds)), sumOf(plans.map((row) => row.billable_seconds))].map(Number);
  const assumed = counted ? guessed! / counted : 0;
  const currencies = Object.entries(now.amounts);
  return (
    <>
      <p class="muted">
        {format.month(now.month)} until now, against {format.month(before.month)} until {format.utcInstant(before.to_date_end)}
      </p>
      <dl class="months">
        <dt>Calls</dt>
        <dd><strong>{format.count(now.calls_to_date)}</strong> <Change now={now.calls_to_date} before={before.calls_to_date} /></dd>
        <dd class="muted">{format.count(before.calls_to_date)} by then, {format.count(before.calls)} in the whole month</dd>
        <dt>Billable minutes</dt>
        <dd>
          <strong>{format.minutes(now.billable_seconds_to_date)}</strong>{" "}
          <Change now={now.billable_seconds_to_date} before={before.billable_seconds_to_date} />
        </dd>
        <dd class="muted">
          {format.minutes(before.billable_seconds_to_date)} by then, {format.minutes(before.billable_seconds)} in the whole month
        </dd>
        {assumed > 0 && <dd class="muted">{format.share(assumed)} of this month's time is of calls whose end was assumed</dd>}
        <dt>Bill so far</dt>
        {currencies.length === 0 && <dd class="muted">No plan with a price holds this month.</dd>}
        {currencies.map(([currency, amount]) => (
          <>
            <dd key={currency}><strong>{format.money(amount, currency)}</strong></dd>
            {forecasts.has(currency) && (
              <dd class="muted">
                {format.money(forecasts.get(currency)!, currency)} by the end of the month: a forecast, at the rate so far
              </dd>
            )}
            {before.amounts[currency] !== undefined && (
              <dd class="muted">{format.money(before.amounts[currency], currency)} {before.is_closed ? "charged for" : "for the whole of"} {format.month(before.month)}</dd>
            )}
          </>
        ))}
      </dl>
      <p class="muted small">The month is open: late events can still change it. A closed month's statement is what is owed.</p>
    </>
  );
}

function Change({ now, before }: { now: number | string; before: number | string }) {
  const growth = format.growth(now, before);
  if (growth === null) return null;
  return <span class="change">{growth}<span class="unseen"> against last month by this time</span></span>;
}
