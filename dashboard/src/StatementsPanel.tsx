import * as format from "./format";
import { Panel } from "./Panel";
import { type Column, DownloadButton, PagedTable, plainColumns } from "./Table";
import { sumOf } from "./totals";
import type { StatementTotal } from "./types";
import type { Loaded } from "./useLoaded";

type Props = { loaded: Loaded<StatementTotal[]>; onOpen: (period: string) => void };

/** What is to be paid: the month's own amount, and the adjustments of earlier months. */
export const toPay = ({ amount, adjusted_amount }: StatementTotal) => sumOf([amount ?? 0, adjusted_amount ?? 0]);

const COLUMNS = (onOpen: Props["onOpen"]): Column<StatementTotal>[] => [
  {
    title: "Month",
    value: (row) => row.period,
    show: (row) => (
      <>
        <button class="link" onClick={() => onOpen(row.period)}>{format.month(row.period)}</button>
        <span class="muted meaning">closed on {format.utcInstant(row.closed_at)}</span>
      </>
    ),
  },
  { title: "Billed minutes", value: (row) => row.seconds, show: (row) => format.minutes(row.seconds), isNumber: true },
  {
    title: "Adjustments",
    value: (row) => row.adjusted_amount,
    show: (row) => (row.adjusted_amount !== null && row.currency ? format.money(row.adjusted_amount, row.currency) : "–"),
    isNumber: true,
    isMinor: true,
  },
  {
    title: "To be paid",
    value: toPay,
    show: (row) => (row.currency ? <strong>{format.money(toPay(row), row.currency)}</strong> : "no plan"),
    isNumber: true,
  },
];

const IN_FILE: Column<StatementTotal>[] = [
  ...plainColumns<StatementTotal>([
    "period", "closed_at", "currency", "widgets", "seconds", "amount", "adjusted_seconds", "adjusted_amount",
  ]),
  { title: "to_be_paid", value: (row) => (row.currency === null ? null : toPay(row)) },
];

export function StatementsPanel({ loaded, onOpen }: Props) {
  return (
    <Panel
      class="half"
      title="Statements"
      note="Closed months. A statement never changes; what comes later is on a later one."
      loaded={loaded}
      isEmpty={(rows) => rows.length === 0}
      empty="No month has been closed yet."
      action={<DownloadButton name="statements" columns={IN_FILE} rows={loaded.value ?? []} />}
    >
      {(rows) => (
        <PagedTable caption="Statements" columns={COLUMNS(onOpen)} rows={rows} rowKey={(row) => `${row.period} ${row.currency}`} />
      )}
    </Panel>
  );
}
