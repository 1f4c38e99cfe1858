import type { ComponentChildren } from "preact";
import { useState } from "preact/hooks";
import { type Cell, download, toCsv } from "./csv";
import * as format from "./format";

export type Column<Row> = {
  title: string;
  /** As it stands in a download. */
  value: (row: Row) => Cell;
  /** As it stands on the page; the value itself where left out. */
  show?: (row: Row) => ComponentChildren;
  isNumber?: boolean;
  /** In downloads alone. */
  isHidden?: boolean;
  /** Not on a phone, so that the others fit. */
  isMinor?: boolean;
};

type Props<Row> = { caption: string; columns: Column<Row>[]; rows: Row[]; rowKey: (row: Row) => string };

export function Table<Row>({ caption, columns, rows, rowKey }: Props<Row>) {
  const shown = columns.filter((column) => !column.isHidden);
  const classOf = ({ isNumber, isMinor }: Column<Row>) => `${isNumber ? "number" : ""} ${isMinor ? "minor" : ""}`.trim();
  return (
    // Wider than its place: it scrolls by itself, by keyboard too.
    <div class="scroll" role="region" aria-label={caption} tabIndex={0}>
      <table>
        <caption class="unseen">{caption}</caption>
        <thead>
          <tr>{shown.map((column) => <th key={column.title} scope="col" class={classOf(column)}>{column.title}</th>)}</tr>
        </thead>
        <tbody>
          {rows.map((row) => (
            <tr key={rowKey(row)}>
              {shown.map((column) => (
                <td key={column.title} class={classOf(column)}>
                  {column.show ? column.show(row) : column.value(row)}
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

const PAGE_SIZE = 25;

/** A table of rows that are all here already, some at a time. */
export function PagedTable<Row>({ rows, ...props }: Props<Row>) {
  const [chosen, setPage] = useState(0);
  const page = Math.min(chosen, Math.max(Math.ceil(rows.length / PAGE_SIZE) - 1, 0));
  const first = page * PAGE_SIZE;
  return (
    <>
      <Table {...props} rows={rows.slice(first, first + PAGE_SIZE)} />
      {rows.length > PAGE_SIZE && (
        <Pages
          label={`Pages of ${props.caption.toLowerCase()}`}
          first={first}
          shown={Math.min(PAGE_SIZE, rows.length - first)}
          total={rows.length}
          onBefore={page > 0 ? () => setPage(page - 1) : null}
          onNext={first + PAGE_SIZE < rows.length ? () => setPage(page + 1) : null}
        />
      )}
    </>
  );
}

type PagesProps = {
  label: string; first: number; shown: number; total: number | undefined;
  before?: string; next?: string; onBefore: (() => void) | null; onNext: (() => void) | null;
};

export function Pages({ label, first, shown, total, before = "Back", next = "Next", onBefore, onNext }: PagesProps) {
  const place = shown === 0 ? "" : `${format.count(first + 1)}–${format.count(first + shown)}`;
  return (
    <nav class="pages" aria-label={label}>
      <button disabled={!onBefore} onClick={() => onBefore?.()}>{before}</button>
      <span class="muted">{place}{place !== "" && total !== undefined && ` of ${format.count(total)}`}</span>
      <button disabled={!onNext} onClick={() => onNext?.()}>{next}</button>
    </nav>
  );
}

export function DownloadButton<Row>({ name, columns, rows }: { name: string; columns: Column<Row>[]; rows: Row[] }) {
  return (
    <button onClick={() => downloadRows(name, columns, rows)} aria-label={`Download CSV: ${name}`}>
      Download CSV
    </button>
  );
}

export function downloadRows<Row>(name: string, columns: Column<Row>[], rows: Row[]): void {
  download(`${name}.csv`, toCsv(columns.map(({ title }) => title), rows.map((row) => columns.map(({ value }) => value(row)))));
}

/** Columns of a download as the database names and answers them, to be compared with it to the letter. */
export function plainColumns<Row extends object>(names: readonly (keyof Row & string)[]): Column<Row>[] {
  return names.map((title) => ({ title, value: (row) => row[title] as Cell }));
}
