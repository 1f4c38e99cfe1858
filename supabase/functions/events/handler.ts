import { type Env, gateway } from "../_shared/env.ts";
import {
  answering,
  HttpError,
  json,
  methodNotAllowed,
  preflight,
  withCors,
} from "../_shared/responses.ts";
import { callRpc, misconfiguration, type RpcAnswer } from "../_shared/rpc.ts";
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
    const project = gateway(env, "publishable");
    return answerTo(await callRpc(project, "track_events", { events }, { timeoutMs, headers }));
  });
  return withCors(request, response);
}

/**
 * What the database judges and records a sender by. Cookies and keys of the caller's stay here.
 *
 * `X-Forwarded-For` is passed as it arrived: anyone can write its left part, so only what the
 * company's own proxies appended at its right end means anything. Nothing may trust more of it.
 */
function senderHeaders(request: Request): Headers {
  const headers = new Headers();
  for (const name of ["Origin", "Referer", "X-Forwarded-For"]) {
    const value = request.headers.get(name);
    if (value !== null) headers.set(name, value);
  }
  // Set in any case, or `fetch` would sign with this runtime's name.
  headers.set("User-Agent", request.headers.get("User-Agent") ?? "");
  return headers;
}

/**
 * The database's own answer, unless the fault is the relay's. A tracker drops events that it is
 * refused (4xx) and keeps them for another try otherwise, so a wrong key must not answer 401.
 */
function answerTo(answer: RpcAnswer): Response {
  const { status, body, retryAfter } = answer;
  const headers: Record<string, string> = retryAfter === null ? {} : { "Retry-After": retryAfter };

  const fault = misconfiguration("track_events", answer);
  if (fault) throw new HttpError(502, "upstream_failed", fault);
  if (body === undefined || status < 200 || (status >= 300 && status < 400)) {
    throw new HttpError(
      status >= 400 ? status : 502,
      "upstream_answer",
      `track_events answered ${status}, but not as expected.`,
      headers,
    );
  }
  return json(status, body, headers);
}
