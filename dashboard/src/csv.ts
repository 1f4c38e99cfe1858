import type { Numeric } from "./types";

export type Cell = Numeric | boolean | null;

// What a spreadsheet would run as a formula; the same rule as in the Python client's _spreadsheet.py.
const FORMULA = /^(?=[\t\r])|(?:^|(?<=[,;|"'\t\r\n]))(?=\s*[=+\-@＝＋－＠])/g;

export function toCsv(titles: string[], rows: Cell[][]): string {
  return [titles, ...rows].map((row) => row.map(field).join(",")).join("\r\n") + "\r\n";
}

function field(value: Cell): string {
  if (value === null) return "";
  if (typeof value !== "string" || /^-?\d+(\.\d+)?$/.test(value)) return String(value);
  const text = value.replace(FORMULA, "'");
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

export function download(name: string, csv: string): void {
  const address = URL.createObjectURL(new Blob(["\ufeff", csv], { type: "text/csv;charset=utf-8" }));
  const link = document.createElement("a");
  link.href = address;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}
