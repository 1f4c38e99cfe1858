import { type Env, gateway } from "../_shared/env.ts";
import {
  answering,
  HttpError,
  json,
  methodNotAllowed,
  preflight,
  withCors,
} from "../_shared/responses.ts";
import { callRpc, misconfiguration, type RpcAnswer, textIn } from "../_shared/rpc.ts";
import { readEvents } from "./body.ts";

// The database gives an anonymous statement a few seconds; past that the tracker had better retry.
const TIMEOUT_MS = 10_000;

/** Passes a page's events on to `track_events` as JSON, whatever form they came in. */
export async function relay(
  request: Request,
  env: Env,
  timeoutMs = TIMEOUT_MS,
): Promise<Response> {
  const response = await answering("events", async () => {
    if (request.method === "OPTIONS") return preflight(request, "POST", "OPTIONS");
    if (request.method !== "POST") throw methodNotAllowed("POST", "OPTIONS");

    const events = await readEvents(request);
    const headers = senderHeaders(request);
    // With the secret key the database believes what this function says of the visitor. Whether the page may send
    // events is decided by its origin all the same.
    const project = gateway(env);
    return answerTo(await callRpc(project, "track_events", { events }, { timeoutMs, headers }));
  });
  return withCors(request, response);
}

/**
 * What the database judges and records a sender by. Cookies and keys of the caller's stay here.
 *
 * `X-Forwarded-For` is passed as it arrived, under a name to which no proxy behind this function adds its own address:
 * anyone can write its left part, so the database looks at what the platform's proxies appended at its right end.
 */
function senderHeaders(request: Request): Headers {
  const headers = new Headers();
  const names = {
    "Origin": "Origin",
    "Referer": "Referer",
    "X-Forwarded-For": "X-Widget-Visitor",
    "User-Agent": "X-Widget-Agent",
  };
  for (const [received, sent] of Object.entries(names)) {
    const value = request.headers.get(received);
    if (value !== null) headers.set(sent, inUtf8(value));
  }
  // The platform refuses a secret key from what looks like a browser.
  headers.set("User-Agent", "widget-analytics-events");
  return headers;
}

/** PostgREST answers 500 to a header that is no UTF-8; such bytes are read as Latin-1. */
function inUtf8(value: string): string {
  // A header's value holds a character for each byte.
  const bytes = Uint8Array.from(value, (character) => character.charCodeAt(0));
  try {
    new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    return value;
  } catch {
    return String.fromCharCode(...new TextEncoder().encode(value));
  }
}

/**
 * The database's own answer, unless the fault is the relay's or the server's. A tracker drops events
 * that it is refused (4xx) and keeps them for another try otherwise, so a wrong key must not answer
 * 401, nor a database that is gone 400.
 */
function answerTo(answer: RpcAnswer): Response {
  const { status, body, retryAfter } = answer;
  const headers: Record<string, string> = retryAfter === null ? {} : { "Retry-After": retryAfter };
  if (isTaken(answer) || isRefusal(answer)) return json(status, body, headers);

  const fault = misconfiguration("track_events", answer);
  if (fault) throw new HttpError(502, "upstream_failed", fault);
  const passes = status === 429 || status >= 500;
  if (passes && body !== undefined) return json(status, body, headers);
  const code = textIn(body, "code") ?? "no code";
  throw new HttpError(
    passes ? status : 502,
    "upstream_answer",
    `track_events answered ${status} with ${code}, and that is no answer about the events.`,
    headers,
  );
}

function isTaken({ status, body }: RpcAnswer): boolean {
  return status === 200 && typeof (body as { accepted?: unknown } | null)?.accepted === "number";
}

/**
 * Whether the same events would be refused again. The status alone does not tell: PostgREST answers
 * 400 also where a pooled connection died (`code` is empty), from a standby (0A000) and through a
 * pooler that knows no prepared statements (42P05); a firewall answers 403 with a page.
 */
function isRefusal({ status, body }: RpcAnswer): boolean {
  const code = textIn(body, "code") ?? "";
  if (status === 400) return /^(22|PGRST1)/.test(code);
  // The door refuses events in a list, never the whole list.
  return status === 413 && code === "54000";
}
