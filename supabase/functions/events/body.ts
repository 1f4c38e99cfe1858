import { limitedBytes, storableText } from "../_shared/body.ts";
import { HttpError } from "../_shared/responses.ts";

/** As much as a browser lets a beacon carry. */
const MOST_BYTES = 64 * 1024;

/** No event has a reason to nest deeper; Postgres gives up on a batch that nests some thousands. */
const DEEPEST = 32;

/** The events of a request body: JSON, a form's `events` field, or JSON sent as text. */
export async function readEvents(request: Request): Promise<unknown[]> {
  const type = mediaType(request);
  // Always UTF-8, whatever a charset parameter claims: browsers send nothing else.
  const text = decoded(await bytesOf(request));
  const value = type === "application/x-www-form-urlencoded"
    ? parsed(formField(text, "events"))
    : eventsProperty(parsed(text));
  // A form field or a client's double encoding may leave JSON in a JSON string.
  const events = typeof value === "string" ? parsed(value) : value;
  if (!Array.isArray(events)) throw malformed("must be an array");
  return events.map((event) => storable(event, 0));
}

function mediaType(request: Request): string {
  const header = request.headers.get("Content-Type") ?? "";
  const type = header.split(";")[0].trim().toLowerCase();
  const known = ["", "application/json", "application/x-www-form-urlencoded", "text/plain"];
  if (!known.includes(type)) {
    throw new HttpError(
      415,
      "unsupported_media_type",
      "Send events as application/json, application/x-www-form-urlencoded or text/plain.",
    );
  }
  return type;
}

async function bytesOf(request: Request): Promise<Uint8Array> {
  const bytes = await limitedBytes(request, MOST_BYTES);
  if (bytes) return bytes;
  throw new HttpError(
    413,
    "54000",
    `events: a body may have ${MOST_BYTES} bytes. Send fewer events.`,
  );
}

function decoded(bytes: Uint8Array): string {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw malformed("is not valid UTF-8");
  }
}

/** Decoded strictly, where `URLSearchParams` would hide broken bytes. The last one wins. */
function formField(text: string, name: string): string {
  let value: string | undefined;
  for (const pair of text.split("&")) {
    const [field, ...rest] = pair.replaceAll("+", " ").split("=");
    try {
      if (decodeURIComponent(field) === name) value = decodeURIComponent(rest.join("="));
    } catch {
      throw malformed("is not valid UTF-8 in a valid form");
    }
  }
  if (value === undefined) throw malformed("is missing");
  return value;
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw malformed("is not valid JSON");
  }
}

function eventsProperty(value: unknown): unknown {
  if (Array.isArray(value)) return value;
  if (typeof value === "object" && value !== null && Object.hasOwn(value, "events")) {
    return (value as { events: unknown }).events;
  }
  throw malformed("is missing");
}

function malformed(what: string): HttpError {
  return new HttpError(400, "22023", `events: ${what}.`);
}

/**
 * Changes what `jsonb` cannot hold, as Postgres would refuse the whole batch for it. The event then
 * passes or fails on its own, under its own index: NUL and unpaired surrogates become U+FFFD,
 * a number beyond a double's range its name in a string, anything nested too deep null.
 */
function storable(value: unknown, depth: number): unknown {
  if (typeof value === "string") return storableText(value);
  if (typeof value === "number") return Number.isFinite(value) ? value : String(value);
  if (typeof value !== "object" || value === null) return value;
  if (depth >= DEEPEST) return null;
  if (Array.isArray(value)) return value.map((item) => storable(item, depth + 1));
  return Object.fromEntries(
    Object.entries(value).map(([key, item]) => [storableText(key), storable(item, depth + 1)]),
  );
}
