import * as format from "./format";
import { Panel } from "./Panel";
import { type Column, DownloadButton, PagedTable, plainColumns } from "./Table";
import type { PendingAdjustment, StatementLine } from "./types";
import type { Loaded } from "./useLoaded";

export type Pending = { rows: PendingAdjustment[]; amounts: Map<string, string> };

const IN_FILE = [
  "usage_period", "session_id", "call_id", "started_at", "ended_at", "outcome", "evidence", "duration_seconds", "old_seconds",
  "new_seconds", "difference_seconds", "rule",
] as const;

/** Calls of closed months that are billed otherwise than they were: on this page and on a statement alike. */
export function adjustmentColumns<Row extends PendingAdjustment | StatementLine>(names: Map<string, string>): Column<Row>[] {
  const nameOf = (row: Row) => names.get(row.widget_id) ?? row.widget_id;
  return [
    {
      title: "Call",
      value: (row) => row.started_at,
      show: (row) => (
        <>
          {format.localInstant(row.started_at)}
          <span class="muted meaning">{format.utcInstant(row.started_at)}</span>
        </>
      ),
    },
    { title: "Widget", value: nameOf, isMinor: true },
    { title: "Why", value: (row) => row.rule, show: (row) => <span class="place">{row.rule}</span> },
    { title: "Billed", value: (row) => row.old_seconds, show: (row) => format.seconds(row.old_seconds), isNumber: true, isMinor: true },
    { title: "Now", value: (row) => row.new_seconds, show: (row) => format.seconds(row.new_seconds), isNumber: true, isMinor: true },
    {
      title: "Difference",
      value: (row) => row.difference_seconds,
      show: (row) => format.seconds(row.difference_seconds),
      isNumber: true,
    },
  ];
}

export function adjustmentFile<Row extends PendingAdjustment | StatementLine>(names: Map<string, string>): Column<Row>[] {
  return [
    { title: "widget", value: (row) => names.get(row.widget_id) ?? "" },
    ...plainColumns<Row>(["widget_id", ...IN_FILE]),
  ];
}

export function PendingPanel({ loaded, names }: { loaded: Loaded<Pending>; names: Map<string, string> }) {
  return (
    <Panel
      class="half"
      title="Pending adjustments"
      note="Changes to closed months that are on no statement yet: the next one will have them."
      loaded={loaded}
      isEmpty={({ rows }) => rows.length === 0}
      empty="None: the closed months stand as they were billed."
      action={<DownloadButton name="pending-adjustments" columns={adjustmentFile(names)} rows={loaded.value?.rows ?? []} />}
    >
      {({ rows, amounts }) => (
        <>
          <p class="sum">
            {format.plural(rows.length, "call")}
            {[...amounts].map(([currency, amount]) => <strong key={currency}>{format.money(amount, currency)}</strong>)}
          </p>
          <PagedTable
            caption="Pending adjustments"
            columns={adjustmentColumns<PendingAdjustment>(names).filter(({ title }) => title !== "Billed" && title !== "Now")}
            rows={rows}
            rowKey={(row) => `${row.widget_id} ${row.session_id} ${row.call_id} ${row.usage_period}`}
          />
        </>
      )}
    </Panel>
  );
}
