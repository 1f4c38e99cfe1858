import { limitedBytes } from "../_shared/body.ts";
import { type Env, gateway, setting } from "../_shared/env.ts";
import { answering, HttpError, json, methodNotAllowed } from "../_shared/responses.ts";
import { callRpc, misconfiguration, type RpcAnswer, textIn } from "../_shared/rpc.ts";
import { daily } from "./daily.ts";
import { elevenlabs } from "./elevenlabs.ts";
import { livekit } from "./livekit.ts";
import { type Delivery, NoRecord, type Provider, type ProviderRecord } from "./provider.ts";
import { retell } from "./retell.ts";
import { twilio } from "./twilio.ts";
import { ultravox } from "./ultravox.ts";
import { vapi } from "./vapi.ts";

const PROVIDERS: Record<string, Provider> = {
  daily,
  elevenlabs,
  livekit,
  retell,
  twilio,
  ultravox,
  vapi,
};

const RPC = "record_widget_provider_call";

// A report of a long call holds its transcript several times over.
const MOST_BYTES = 4 * 1024 * 1024;

// The providers wait 10 seconds and more.
const TIMEOUT_MS = 8_000;

/**
 * Records what a call provider's webhook says of a finished call.
 *
 * What cannot be recorded, now or later, is answered 200: some providers switch a webhook off after a
 * few refusals. 401 is for a delivery that the provider did not sign, 503 for a database that takes
 * nothing just now, so that the provider tries again. A body may hold credentials of the company's
 * other services, so nothing of it is logged but the call's id.
 */
export function receive(request: Request, env: Env, timeoutMs = TIMEOUT_MS): Promise<Response> {
  return answering("providers", async () => {
    const [name, provider] = providerOf(request);
    if (request.method !== "POST") throw methodNotAllowed("POST");
    const body = await limitedBytes(request, MOST_BYTES);
    if (!body) return notRecorded(name, NoRecord.incomplete(`a body has over ${MOST_BYTES} bytes`));
    if (provider.isProbe?.(body)) return notRecorded(name, NoRecord.otherEvent("a test"));

    const delivery = {
      headers: request.headers,
      body,
      url: publicUrl(request, name, env),
      receivedAt: Date.now(),
    };
    await authenticate(name, provider, delivery, env);
    const payload = payloadOf(provider, delivery);
    if (payload === undefined) {
      return notRecorded(name, NoRecord.incomplete("a signed body is no JSON"));
    }
    const record = provider.toRecord(payload);
    if (record instanceof NoRecord) return notRecorded(name, record);
    if (!record.record_id) return notRecorded(name, NoRecord.incomplete("a call has no id"));
    return await store(name, record, env, timeoutMs);
  });
}

function providerOf(request: Request): [string, Provider] {
  const name = new URL(request.url).pathname.split("/").filter(Boolean).at(-1) ?? "";
  if (!Object.hasOwn(PROVIDERS, name)) {
    const names = Object.keys(PROVIDERS).join(", ");
    throw new HttpError(404, "unknown_provider", `Call /providers/ and one of ${names}.`);
  }
  return [name, PROVIDERS[name]];
}

/** A function sees neither the host nor the path that its caller used. The query it sees as it was sent. */
function publicUrl(request: Request, name: string, env: Env): string {
  const base = setting(env, "PROVIDERS_PUBLIC_URL") ||
    `${setting(env, "SUPABASE_URL").replace(/\/+$/, "")}/functions/v1/providers`;
  const [, query] = /[^?#]*(\?[^#]*)?/.exec(request.url) ?? [];
  return `${base.replace(/\/+$/, "")}/${name}${query ?? ""}`;
}

async function authenticate(name: string, provider: Provider, delivery: Delivery, env: Env) {
  const variable = `${name.toUpperCase()}_WEBHOOK_SECRET`;
  // Several while one replaces another.
  const secrets = setting(env, variable).split(/\s+/).filter(Boolean);
  for (const secret of secrets) {
    if (await provider.verify(delivery, secret)) return;
  }
  // Most often the secret is another one, or, for Twilio, the address.
  const [address] = delivery.url.split("?");
  const advice = secrets.length ? `not signed with ${variable} for ${address}` : `set ${variable}`;
  console.error(`providers: ${name}: refused: ${advice}`);
  throw new HttpError(401, "unauthorized", `${name}: the signature is missing, wrong or too old.`);
}

function payloadOf(provider: Provider, delivery: Delivery): unknown {
  if (provider.parse) return provider.parse(delivery);
  try {
    return JSON.parse(new TextDecoder().decode(delivery.body));
  } catch {
    // The parser's message would quote the body.
    return undefined;
  }
}

async function store(
  name: string,
  record: ProviderRecord,
  env: Env,
  timeoutMs: number,
): Promise<Response> {
  const answer = await callRpc(gateway(env), RPC, { provider: name, ...record }, { timeoutMs })
    .catch((error) => {
      throw unavailable(`${RPC} did not answer.`, error);
    });
  if (answer.status === 200) return json(200, { recorded: true });
  if (isRefusal(answer)) {
    const field = /^\w+(?=:)/.exec(textIn(answer.body, "message") ?? "")?.[0] ?? "its values";
    return notRecorded(
      name,
      NoRecord.incomplete(`record ${record.record_id} is refused for ${field}`),
    );
  }
  throw unavailable(misconfiguration(RPC, answer) ?? `${RPC} answered ${answer.status}.`);
}

/** Whether the same record would be refused again: 22 is for values, 23 for what they contradict. */
function isRefusal({ status, body }: RpcAnswer): boolean {
  return status >= 400 && status < 500 && /^2[23]/.test(textIn(body, "code") ?? "");
}

function unavailable(message: string, cause?: unknown): HttpError {
  const error = new HttpError(503, "database_unavailable", message);
  error.cause = cause;
  return error;
}

function notRecorded(name: string, { reason, isLogged }: NoRecord): Response {
  if (isLogged) console.error(`providers: ${name}: not recorded: ${reason}`);
  return json(200, { recorded: false, reason });
}
