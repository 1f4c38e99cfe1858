import { type DailyUsage, EVIDENCE, type EvidenceSums } from "./types";

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

function toMicroseconds(seconds: number | string): bigint {
  return BigInt(Math.round(Number(seconds) * 1e6));
}

function fromMicroseconds(total: bigint): string {
  const text = total.toString().padStart(7, "0");
  return `${text.slice(0, -6)}.${text.slice(-6)}`.replace(/\.?0+$/, "");
}
