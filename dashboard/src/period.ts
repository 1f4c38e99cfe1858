/** Days are dates such as 2026-11-22 in the zone in which bills are made; instants are ISO strings. */
export type Period = { firstDay: string; lastDay: string };

export const PRESETS = {
  "7d": "Last 7 days",
  "30d": "Last 30 days",
  "90d": "Last 90 days",
  month: "This month",
  "last-month": "Last month",
} as const;
export type Preset = keyof typeof PRESETS;

export const LONGEST_PERIOD_DAYS = 366;

export function isPreset(name: string): name is Preset {
  return Object.hasOwn(PRESETS, name);
}

export function today(zone: string, now = new Date()): string {
  const part = partsOf(now, new Intl.DateTimeFormat("en-US", { timeZone: zone, year: "numeric", month: "numeric", day: "numeric" }));
  return [part("year").padStart(4, "0"), part("month").padStart(2, "0"), part("day").padStart(2, "0")].join("-");
}

/** Parts by name: how a locale puts them together differs from engine to engine, and from year to year. */
function partsOf(instant: Date | number, formatter: Intl.DateTimeFormat): (type: Intl.DateTimeFormatPartTypes) => string {
  const parts = formatter.formatToParts(instant);
  return (type) => parts.find((part) => part.type === type)?.value ?? "";
}

export function addDays(day: string, days: number): string {
  return new Date(Date.parse(`${day}T00:00:00Z`) + days * 86_400_000).toISOString().slice(0, 10);
}

export function isDay(text: string): boolean {
  const time = /^[1-9]\d{3}-\d{2}-\d{2}$/.test(text) ? Date.parse(`${text}T00:00:00Z`) : NaN;
  return !Number.isNaN(time) && new Date(time).toISOString().startsWith(text);
}

/** "30d", "month" … or "2026-10-01..2026-10-31". Anything else is the default: a link must not break the page. */
export function readPeriod(text: string, zone: string): { preset: Preset | "custom"; period: Period } {
  const [firstDay = "", lastDay = ""] = text.split("..");
  if (isDay(firstDay) && isDay(lastDay) && firstDay <= lastDay && daysOf({ firstDay, lastDay }).length <= LONGEST_PERIOD_DAYS) {
    return { preset: "custom", period: { firstDay, lastDay } };
  }
  const preset = isPreset(text) ? text : "30d";
  return { preset, period: presetPeriod(preset, today(zone)) };
}

function presetPeriod(preset: Preset, lastDay: string): Period {
  const firstOfMonth = `${lastDay.slice(0, 8)}01`;
  switch (preset) {
    case "month":
      return { firstDay: firstOfMonth, lastDay };
    case "last-month": {
      const last = addDays(firstOfMonth, -1);
      return { firstDay: `${last.slice(0, 8)}01`, lastDay: last };
    }
    default:
      return { firstDay: addDays(lastDay, 1 - Number.parseInt(preset, 10)), lastDay };
  }
}

/** Every day of the period; beyond the longest one it stops, so that a typed year 9000 costs nothing. */
export function daysOf({ firstDay, lastDay }: Period): string[] {
  const days = [];
  for (let day = firstDay; day <= lastDay && days.length <= LONGEST_PERIOD_DAYS; day = addDays(day, 1)) days.push(day);
  return days;
}

/** The half-open period [start, end) in which the database thinks. */
export function boundsOf({ firstDay, lastDay }: Period, zone: string) {
  return { period_start: midnight(firstDay, zone), period_end: midnight(addDays(lastDay, 1), zone) };
}

function midnight(day: string, zone: string): string {
  const asIfUtc = Date.parse(`${day}T00:00:00Z`);
  // The offset of the day before may be another one, where clocks change: the second look is right.
  const first = asIfUtc - offset(asIfUtc, zone);
  return new Date(asIfUtc - offset(first, zone)).toISOString();
}

function offset(instant: number, zone: string): number {
  const formatter = new Intl.DateTimeFormat("en-US", {
    timeZone: zone, hourCycle: "h23",
    year: "numeric", month: "numeric", day: "numeric", hour: "numeric", minute: "numeric", second: "numeric",
  });
  const text = partsOf(instant, formatter);
  const part = (type: Intl.DateTimeFormatPartTypes) => Number(text(type));
  return Date.UTC(part("year"), part("month") - 1, part("day"), part("hour"), part("minute"), part("second")) - instant;
}
