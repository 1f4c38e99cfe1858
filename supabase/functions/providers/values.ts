// Reads values out of payloads of which nothing is certain.
import { storableText } from "../_shared/body.ts";
import type { ProviderRecord } from "./provider.ts";

/** The value at a path such as `call.metadata`; undefined where the path ends early. */
export function at(value: unknown, path: string): unknown {
  return path.split(".").reduce<unknown>(
    (inner, key) =>
      typeof inner === "object" && inner !== null && Object.hasOwn(inner, key)
        ? (inner as Record<string, unknown>)[key]
        : undefined,
    value,
  );
}

/** As long as a name or a reason may be. */
const MOST_CHARACTERS = 255;

export function text(value: unknown): string | undefined {
  if (!["string", "number", "boolean"].includes(typeof value)) return undefined;
  return storableText(String(value).trim()).slice(0, MOST_CHARACTERS).toWellFormed() || undefined;
}

/** A number, or a string that holds one, as Protocol Buffers write 64-bit integers. */
export function number(value: unknown): number | undefined {
  if (typeof value === "string" && value.trim() !== "") value = Number(value);
  return typeof value === "number" && Number.isFinite(value) ? value : undefined;
}

/** An instant from a text with a date, in ISO 8601 or RFC 2822. */
export function instant(value: unknown): string | undefined {
  return typeof value === "string" ? instantOfMs(Date.parse(value)) : undefined;
}

export function instantOfSeconds(value: unknown): string | undefined {
  const seconds = number(value);
  // Zero is what Protocol Buffers call a time that was never set.
  return seconds ? instantOfMs(seconds * 1000) : undefined;
}

export function instantOfMs(value: unknown): string | undefined {
  const ms = number(value);
  const date = new Date(Math.round(ms || NaN));
  return Number.isNaN(date.getTime()) ? undefined : date.toISOString();
}

/** An instant some seconds after another. */
export function after(start: string | undefined, seconds: unknown): string | undefined {
  const lasts = number(seconds);
  return start && lasts !== undefined && lasts >= 0
    ? instantOfMs(Date.parse(start) + lasts * 1000)
    : undefined;
}

/** Our own ids, from the first of several places that has each: `widget_id`, `session_id`, `call_id`. */
export function ourIds(
  ...places: unknown[]
): Pick<ProviderRecord, "widget_id" | "session_id" | "widget_call_id"> {
  const first = (key: string) => places.map((place) => text(at(place, key))).find(Boolean);
  return {
    widget_id: first("widget_id"),
    session_id: first("session_id"),
    widget_call_id: first("call_id"),
  };
}

/** A cost and its currency; nothing where the payload names no cost. */
export function costIn(
  currency: string,
  value: unknown,
): Pick<ProviderRecord, "cost" | "cost_currency"> {
  const cost = number(value);
  return cost === undefined ? {} : { cost, cost_currency: currency };
}

/** JSON in a text field; undefined where it is none. */
export function parsed(json: unknown): unknown {
  try {
    return typeof json === "string" ? JSON.parse(json) : undefined;
  } catch {
    return undefined;
  }
}
