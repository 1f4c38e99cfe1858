import { Assumed } from "./Assumed";
import * as format from "./format";
import { Panel } from "./Panel";
import { type Column, DownloadButton, PagedTable, plainColumns } from "./Table";
import type { PlanUsage } from "./types";
import type { Loaded } from "./useLoaded";

type Props = { loaded: Loaded<PlanUsage[]>; names: Map<string, string>; onPick: (widget: string) => void };

const IN_FILE = [
  "widget_id", "plan", "monthly_fee", "price_per_minute", "included_seconds", "billable_seconds", "assumed_seconds", "amount",
  "currency", "forecast_seconds", "forecast_amount",
] as const;

/** Each widget's plan, and what it makes of this month. */
export function PlansPanel({ loaded, names, onPick }: Props) {
  const nameOf = (row: PlanUsage) => names.get(row.widget_id) ?? row.widget_id;
  const columns: Column<PlanUsage>[] = [
    {
      title: "Widget and plan",
      value: nameOf,
      show: (row) => (
        <>
          <button class="link" onClick={() => onPick(row.widget_id)}>{nameOf(row)}</button>
          <span class="muted meaning">{terms(row)}</span>
        </>
      ),
    },
    {
      title: "Billable minutes",
      value: (row) => row.billable_seconds,
      show: (row) => <>{format.minutes(row.billable_seconds)}<span class="muted meaning">{included(row)}</span><Assumed of={row} /></>,
      isNumber: true,
    },
    {
      title: "Bill so far",
      value: (row) => row.amount,
      show: (row) => (row.amount === null || row.currency === null ? "–" : (
        <>
          {format.money(row.amount, row.currency)}
          {row.forecast_amount !== null && (
            <span class="muted meaning">forecast {format.money(row.forecast_amount, row.currency)}</span>
          )}
        </>
      )),
      isNumber: true,
    },
  ];
  const inFile: Column<PlanUsage>[] = [{ title: "widget", value: nameOf }, ...plainColumns<PlanUsage>(IN_FILE)];
  return (
    <Panel
      class="full"
      title="Plans this month"
      note="What each plan charges for the month so far. The forecast assumes that the rest of the month goes like the part so far."
      loaded={loaded}
      isEmpty={(rows) => rows.length === 0}
      empty="No plan holds this month, and there are no calls."
      action={<DownloadButton name="plans-this-month" columns={inFile} rows={loaded.value ?? []} />}
    >
      {(rows) => (
        <PagedTable
          caption="Plans this month"
          columns={columns}
          rows={[...rows].sort((a, b) => nameOf(a).localeCompare(nameOf(b)))}
          rowKey={(row) => row.widget_id}
        />
      )}
    </Panel>
  );
}

function terms({ plan, price_per_minute, monthly_fee, currency }: PlanUsage): string {
  if (plan === null || price_per_minute === null || currency === null) return "no plan: counted, and not priced";
  const fee = Number(monthly_fee) > 0 ? `, ${format.money(monthly_fee!, currency)} a month` : "";
  return `${plan}: ${format.price(price_per_minute, currency)} a minute${fee}`;
}

function included({ included_seconds, billable_seconds }: PlanUsage): string {
  if (!included_seconds) return "none included";
  const used = Math.min(Number(billable_seconds), included_seconds);
  return `of ${format.minutes(included_seconds)} included ${format.minutes(used)} used, ${format.minutes(included_seconds - used)} left`;
}
