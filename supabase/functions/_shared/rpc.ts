import type { Gateway } from "./env.ts";
import { HttpError } from "./responses.ts";

export interface RpcAnswer {
  status: number;
  /** `undefined` when the answer was not JSON. */
  body: unknown;
  retryAfter: string | null;
}

/** Calls a database function over REST. Throws an `HttpError` 502 or 504 when no answer came. */
export async function callRpc(
  { url, key }: Gateway,
  name: string,
  args: Record<string, unknown>,
  options: { timeoutMs: number; headers?: Headers },
): Promise<RpcAnswer> {
  const headers = new Headers(options.headers);
  headers.set("Content-Type", "application/json");
  headers.set("Accept", "application/json");
  headers.set("apikey", key);
  // A legacy key is a JWT, and PostgREST takes the role from it. The newer `sb_…` keys are not:
  // the gateway exchanges them, and as a bearer token they are refused.
  if (/^[\w-]+\.[\w-]+\.[\w-]+$/.test(key)) headers.set("Authorization", `Bearer ${key}`);

  try {
    const response = await fetch(`${url}/rest/v1/rpc/${name}`, {
      method: "POST",
      headers,
      body: JSON.stringify(args),
      // A redirect would take the key to another address.
      redirect: "manual",
      // Not tied to the caller's connection: a page that closes must not stop its own last write.
      signal: AbortSignal.timeout(options.timeoutMs),
    });
    return {
      status: response.status,
      body: parsed(await response.text()),
      retryAfter: response.headers.get("Retry-After"),
    };
  } catch (cause) {
    throw noAnswer(name, options.timeoutMs, cause);
  }
}

/** What to tell the operator about an answer that no caller can be the cause of. */
export function misconfiguration(name: string, { status, body }: RpcAnswer): string | null {
  if (status === 401) return `${name} answered 401: this function's Supabase key was refused.`;
  if (status === 404) return `${name} answered 404: apply the migrations, or check SUPABASE_URL.`;
  // PostgREST's answer to a database that takes no writes, such as one whose disk is almost full.
  if (status === 405) return `${name} answered 405: the database is read-only.`;
  const code = textIn(body, "code") ?? "";
  if (code === "42501") {
    return `${name} failed with 42501: run \`select widget_internal.apply_rights();\`.`;
  }
  // A column, type or operator that is missing, not a caller's mistake.
  if (code.startsWith("42")) return `${name} failed with ${code}: apply the migrations.`;
  return null;
}

export function textIn(body: unknown, field: string): string | undefined {
  const value = (body as Record<string, unknown> | null | undefined)?.[field];
  return typeof value === "string" && value !== "" ? value : undefined;
}

function noAnswer(name: string, timeoutMs: number, cause: unknown): HttpError {
  const error = cause instanceof Error && cause.name === "TimeoutError"
    ? new HttpError(504, "upstream_timeout", `${name} did not answer within ${timeoutMs / 1000} s.`)
    : new HttpError(502, "upstream_unreachable", `${name} could not be reached.`);
  error.cause = cause;
  return error;
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
