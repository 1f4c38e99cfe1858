import type { ComponentChildren } from "preact";
import { type Cell, download, toCsv } from "./csv";

export type Column<Row> = {
  title: string;
  /** As it stands in a download. */
  value: (row: Row) => Cell;
  /** As it stands on the page; the value itself where left out. */
  show?: (row: Row) => ComponentChildren;
  isNumber?: boolean;
  /** In downloads alone. */
  isHidden?: boolean;
};

type Props<Row> = { caption: string; columns: Column<Row>[]; rows: Row[]; rowKey: (row: Row) => string };

export function Table<Row>({ caption, columns, rows, rowKey }: Props<Row>) {
  const shown = columns.filter((column) => !column.isHidden);
  return (
    // Wider than a phone: it scrolls by itself, by keyboard too.
    <div class="scroll" role="region" aria-label={caption} tabIndex={0}>
      <table>
        <caption class="unseen">{caption}</caption>
        <thead>
          <tr>{shown.map((column) => <th key={column.title} scope="col" class={column.isNumber ? "number" : ""}>{column.title}</th>)}</tr>
        </thead>
        <tbody>
          {rows.map((row) => (
            <tr key={rowKey(row)}>
              {shown.map((column) => (
                <td key={column.title} class={column.isNumber ? "number" : ""}>
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
