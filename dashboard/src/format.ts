import type { Numeric } from "./types";

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const oneDecimal = new Intl.NumberFormat("en", { minimumFractionDigits: 1, maximumFractionDigits: 1 });
const exact = new Intl.NumberFormat("en", { maximumFractionDigits: 6 });
const percent = new Intl.NumberFormat("en", { style: "percent", minimumFractionDigits: 1, maximumFractionDigits: 1 });
const change = new Intl.NumberFormat("en", { style: "percent", maximumFractionDigits: 0, signDisplay: "exceptZero" });

/** A date by a pattern of its parts' names: how a locale orders and separates them differs between engines. */
function dateFormat(pattern: string, options: Intl.DateTimeFormatOptions): (instant: string) => string {
  const formatter = new Intl.DateTimeFormat("en-US", { hourCycle: "h23", ...options });
  return (instant) => {
    const parts = new Map(formatter.formatToParts(new Date(instant)).map(({ type, value }) => [type as string, value]));
    return pattern.replace(/[a-z]+/gi, (name) => parts.get(name) ?? name);
  };
}

const DATE = { year: "numeric", month: "short", day: "numeric" } as const;
const TIME = { hour: "2-digit", minute: "2-digit", second: "2-digit" } as const;
const localTime = dateFormat("day month year, hour:minute:second", { ...DATE, ...TIME });
const utcTime = dateFormat("day month year, hour:minute:second", { ...DATE, ...TIME, timeZone: "UTC" });
const clock = dateFormat("hour:minute:second", TIME);
const dayName = dateFormat("day month", { day: "numeric", month: "short", timeZone: "UTC" });
const longDayName = dateFormat("weekday, day month year", { ...DATE, month: "long", weekday: "long", timeZone: "UTC" });
const monthName = dateFormat("month year", { month: "long", year: "numeric", timeZone: "UTC" });

export const viewerZone = new Intl.DateTimeFormat().resolvedOptions().timeZone;

export const count = (value: Numeric) => whole.format(Number(value));
export const seconds = (value: Numeric) => `${exact.format(Number(value))} s`;
export const minutes = (value: Numeric) => oneDecimal.format(Number(value) / 60);
export const share = (value: Numeric | null) => (value === null ? "–" : percent.format(Number(value)));
export const growth = (now: Numeric, before: Numeric) =>
  Number(before) === 0 ? null : change.format(Number(now) / Number(before) - 1);

export const localInstant = (instant: string) => localTime(instant);
export const utcInstant = (instant: string) => `${utcTime(instant)} UTC`;
export const localClock = (instant: string) => clock(instant);
export const day = (date: string) => dayName(`${date}T00:00:00Z`);
export const longDay = (date: string) => longDayName(`${date}T00:00:00Z`);
export const month = (date: string) => monthName(`${date}T00:00:00Z`);

/** An amount, with the decimals that its currency has; `digits`: up to so many, for prices. */
export function money(amount: Numeric, currency: string, digits?: number): string {
  const parts = new Intl.NumberFormat("en", {
    style: "currency", currency, currencyDisplay: "code", ...(digits !== undefined && { maximumFractionDigits: digits }),
  }).formatToParts(Number(amount));
  const text = (isWanted: (type: string) => boolean) => parts.filter(({ type }) => isWanted(type)).map(({ value }) => value).join("");
  return `${currency}\u00a0${text((type) => type !== "currency" && type !== "literal")}`;
}

/** What one call or one minute costs: money is rounded where a month is summed up, not here. */
export const price = (amount: Numeric, currency: string) => money(amount, currency, 6);

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
