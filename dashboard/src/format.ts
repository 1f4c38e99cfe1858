import type { Numeric } from "./types";

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const oneDecimal = new Intl.NumberFormat("en", { minimumFractionDigits: 1, maximumFractionDigits: 1 });
const exact = new Intl.NumberFormat("en", { maximumFractionDigits: 6 });
const percent = new Intl.NumberFormat("en", { style: "percent", minimumFractionDigits: 1, maximumFractionDigits: 1 });
const change = new Intl.NumberFormat("en", { style: "percent", maximumFractionDigits: 0, signDisplay: "exceptZero" });
const localTime = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "medium" });
const utcTime = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "medium", timeZone: "UTC" });
const clock = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });
const dayName = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", timeZone: "UTC" });
const longDayName = new Intl.DateTimeFormat("en-GB", { dateStyle: "full", timeZone: "UTC" });
const monthName = new Intl.DateTimeFormat("en-GB", { month: "long", year: "numeric", timeZone: "UTC" });

export const viewerZone = new Intl.DateTimeFormat().resolvedOptions().timeZone;

export const count = (value: Numeric) => whole.format(Number(value));
export const seconds = (value: Numeric) => `${exact.format(Number(value))} s`;
export const minutes = (value: Numeric) => oneDecimal.format(Number(value) / 60);
export const share = (value: Numeric | null) => (value === null ? "–" : percent.format(Number(value)));
export const growth = (now: Numeric, before: Numeric) =>
  Number(before) === 0 ? null : change.format(Number(now) / Number(before) - 1);

export const localInstant = (instant: string) => localTime.format(new Date(instant));
export const utcInstant = (instant: string) => `${utcTime.format(new Date(instant))} UTC`;
export const localClock = (instant: string) => clock.format(new Date(instant));
export const day = (date: string) => dayName.format(new Date(`${date}T00:00:00Z`));
export const longDay = (date: string) => longDayName.format(new Date(`${date}T00:00:00Z`));
export const month = (date: string) => monthName.format(new Date(`${date}T00:00:00Z`));

export function money(amount: Numeric, currency: string): string {
  return new Intl.NumberFormat("en", { style: "currency", currency, currencyDisplay: "code" }).format(Number(amount));
}

/** 3725.5 → 1:02:05 */
export function duration(value: Numeric | null): string {
  if (value === null) return "–";
  const total = Math.floor(Number(value));
  const [h, m, s] = [Math.floor(total / 3600), Math.floor(total / 60) % 60, total % 60];
  const two = (n: number) => String(n).padStart(2, "0");
  return h > 0 ? `${h}:${two(m)}:${two(s)}` : `${m}:${two(s)}`;
}

export function plural(n: number, one: string, many = `${one}s`): string {
  return `${count(n)} ${n === 1 ? one : many}`;
}
