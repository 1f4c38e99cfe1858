import { type DailyUsage, EVIDENCE, type EvidenceSums, type Numeric } from "./types";

type Totals = EvidenceSums & { calls: number; billable_seconds: string; open_calls: number; failed_calls: number };

/** The sums of all days. Seconds are added in whole microseconds: a bill has no rounding errors to show. */
export function totals(days: DailyUsage[]): Totals {
  const sum = (pick: (day: DailyUsage) => number) => days.reduce((total, day) => total + pick(day), 0);
  const seconds = (pick: (day: DailyUsage) => number | string) =>
    fromMicroseconds(days.reduce((total, day) => total + toMicroseconds(pick(day)), 0n));
  return {
    calls: sum((day) => day.calls),
    billable_seconds: seconds((day) => day.billable_seconds),
    open_calls: sum((day) => day.open_calls),
    failed_calls: sum((day) => day.failed_calls),
    ...Object.fromEntries(
      EVIDENCE.flatMap((kind) => [
        [`${kind}_calls`, sum((day) => day[`${kind}_calls`])],
        [`${kind}_seconds`, seconds((day) => day[`${kind}_seconds`])],
      ]),
    ) as EvidenceSums,
  };
}

/** Amounts by currency, added in millionths, so that a sum of amounts has no rounding errors either. */
export function amounts<Row>(rows: Row[], pick: (row: Row) => { currency: string | null; amount: Numeric | null }): Map<string, string> {
  const sums = new Map<string, bigint>();
  for (const row of rows) {
    const { currency, amount } = pick(row);
    if (currency !== null && amount !== null) sums.set(currency, (sums.get(currency) ?? 0n) + toMicroseconds(amount));
  }
  return new Map([...sums].sort().map(([currency, sum]) => [currency, fromMicroseconds(sum)]));
}

export function sumOf(values: Numeric[]): string {
  return fromMicroseconds(values.reduce<bigint>((total, value) => total + toMicroseconds(value), 0n));
}

function toMicroseconds(seconds: number | string): bigint {
  return BigInt(Math.round(Number(seconds) * 1e6));
}

function fromMicroseconds(total: bigint): string {
  const text = (total < 0n ? -total : total).toString().padStart(7, "0");
  return `${total < 0n ? "-" : ""}${text.slice(0, -6)}.${text.slice(-6)}`.replace(/\.?0+$/, "");
}
