import { type Env, type Gateway, gateway, notConfigured, setting } from "../_shared/env.ts";
import { answering, HttpError, json, methodNotAllowed } from "../_shared/responses.ts";
import { callRpc, misconfiguration, type RpcAnswer, textIn } from "../_shared/rpc.ts";
import { isSecret } from "../_shared/secrets.ts";

const COUNTS = ["calls_checked", "calls_completed", "calls_still_active"] as const;
type Counts = Record<typeof COUNTS[number], number> & {
  /** Absent where the database does all calls in one run. */
  calls_left?: number;
};

// Shorter than the proxies before this function wait (120 s and more), so that the caller reads why.
const TIMEOUT_MS = 100_000;

/**
 * Completes stale calls and answers their counts. One run does what fits into a statement's time,
 * so runs follow each other while calls are left. `stale_after` is the operator's, in SQL.
 */
export function cleanup(request: Request, env: Env, timeoutMs = TIMEOUT_MS): Promise<Response> {
  return answering("cleanup", async () => {
    if (request.method !== "GET" && request.method !== "POST") {
      throw methodNotAllowed("GET", "POST");
    }
    await authorize(request, env);

    const project = gateway(env);
    return json(200, await completeStaleSessions(project, timeoutMs));
  });
}

/** No run starts in the second half of the time: it may take as long as that. */
async function completeStaleSessions(project: Gateway, timeoutMs: number): Promise<Counts> {
  const started = performance.now();
  const elapsedMs = () => performance.now() - started;

  let total = await runOnce(project, timeoutMs);
  let before = Infinity;
  // A run that leaves as many as the one before it met another cleanup, which is at work on them.
  while (total.calls_left && total.calls_left < before && elapsedMs() < timeoutMs / 2) {
    before = total.calls_left;
    total = sum(total, await runOnce(project, timeoutMs - elapsedMs()));
  }
  return total;
}

async function runOnce(project: Gateway, timeoutMs: number): Promise<Counts> {
  const answer = await callRpc(project, "complete_stale_sessions", {}, { timeoutMs });
  if (answer.status !== 200) throw failedRun(answer, project);
  const counts = countsIn(answer.body);
  if (!counts) {
    throw new HttpError(502, "upstream_answer", "complete_stale_sessions answered without counts.");
  }
  console.log(`cleanup: ${JSON.stringify(counts)}`);
  return counts;
}

function sum(total: Counts, counts: Counts): Counts {
  const sums = COUNTS.map((name) => [name, total[name] + counts[name]]);
  return { ...Object.fromEntries(sums), calls_left: counts.calls_left };
}

async function authorize(request: Request, env: Env): Promise<void> {
  const secret = setting(env, "CRON_SECRET");
  if (!secret) {
    if (env.get("CLEANUP_ALLOW_UNAUTHENTICATED") === "true") return;
    // 503, not 401: no caller can put this right, and a scheduler reports it as an outage.
    throw notConfigured(
      "Set CRON_SECRET on this function and send it as `Authorization: Bearer …`. " +
        "On an internal network, CLEANUP_ALLOW_UNAUTHENTICATED=true goes without.",
    );
  }
  const credentials = request.headers.get("Authorization") ?? "";
  const token = /^Bearer +(.+)$/i.exec(credentials)?.[1] ?? "";
  if (!await isSecret(token, secret)) {
    throw new HttpError(
      401,
      "unauthorized",
      "Send CRON_SECRET's value as `Authorization: Bearer …`.",
      { "WWW-Authenticate": "Bearer" },
    );
  }
}

/** A set-returning function answers an array of its one row. */
function countsIn(body: unknown): Counts | null {
  const row = Array.isArray(body) ? body[0] : body;
  if (!COUNTS.every((name) => Number.isSafeInteger(row?.[name]))) return null;
  const names = Number.isSafeInteger(row.calls_left) ? [...COUNTS, "calls_left"] : COUNTS;
  return Object.fromEntries(names.map((name) => [name, row[name]])) as Counts;
}

function failedRun(answer: RpcAnswer, { key }: Gateway): HttpError {
  const row = Array.isArray(answer.body) ? answer.body[0] : answer.body;
  // Whatever answers at that address, the key does not come back out of this door.
  const message = (textIn(row, "message") ?? textIn(row, "error"))?.replaceAll(key, "…");

  const counts = countsIn(row);
  if (answer.status >= 500 && counts) {
    return new HttpError(500, "run_failed", message ?? "The run failed partly.", {}, counts);
  }
  const reason = misconfiguration("complete_stale_sessions", answer) ??
    `complete_stale_sessions answered ${answer.status}.`;
  return new HttpError(502, "upstream_failed", message ? `${reason} It said: ${message}` : reason);
}
