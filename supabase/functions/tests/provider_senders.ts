import { createHash, createHmac } from "node:crypto";
import { AccessToken } from "livekit-server-sdk";
import { Webhook } from "standardwebhooks";
import { receive } from "../providers/handler.ts";
import { environment } from "./relays.ts";
import { serve } from "./servers.ts";

export const SECRETS: Record<string, string> = {
  vapi: "vapi-secret",
  retell: "test-api-key",
  elevenlabs: "webhook_secret",
  livekit: "abcdefg:abababa",
  twilio: "12345",
  daily: "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=",
  ultravox: "ultravox-secret",
};
export const STANDARD_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
export const PUBLIC_URL = "https://project.example/functions/v1/providers";

/** The function with every provider's secret, or those given. */
export function door(
  supabaseUrl: string,
  changes: Record<string, string> = {},
  timeoutMs?: number,
) {
  const secrets = Object.entries(SECRETS).map(([name, secret]) => [variable(name), secret]);
  const env = environment(supabaseUrl, {
    PROVIDERS_PUBLIC_URL: PUBLIC_URL,
    ...Object.fromEntries(secrets),
    ...changes,
  });
  return serve((request) => receive(request, env, timeoutMs));
}

export function variable(name: string): string {
  return `${name.toUpperCase()}_WEBHOOK_SECRET`;
}

type Signer = (
  body: string,
  secret: string,
  at: number,
  url: string,
) => Record<string, string> | Promise<Record<string, string>>;

const hmac = (
  key: string | Uint8Array,
  message: string,
  encoding: "hex" | "base64",
  hash = "sha256",
) => createHmac(hash, key).update(message).digest(encoding);
const seconds = (at: number) => String(Math.floor(at / 1000));

/** The headers that a provider sends with a body signed at that moment. */
export const SIGNERS: Record<string, Signer> = {
  vapi: (body, secret, at) => ({
    "x-timestamp": seconds(at),
    "x-signature": hmac(secret, `${seconds(at)}.${body}`, "hex"),
  }),
  retell: (body, secret, at) => ({
    "X-Retell-Signature": `v=${at},d=${hmac(secret, `${body}${at}`, "hex")}`,
  }),
  elevenlabs: (body, secret, at) => ({
    "ElevenLabs-Signature": `t=${seconds(at)},v0=${hmac(secret, `${seconds(at)}.${body}`, "hex")}`,
  }),
  async livekit(body, secret, at) {
    const [key, value] = secret.split(":");
    const token = new AccessToken(key, value, { ttl: Math.floor((at - Date.now()) / 1000) + 300 });
    token.sha256 = createHash("sha256").update(body).digest("base64");
    return { Authorization: await token.toJwt(), "Content-Type": "application/webhook+json" };
  },
  twilio: (body, secret, _at, url) => {
    const fields = [...new URLSearchParams(body)].sort(([a], [b]) => a < b ? -1 : 1);
    return { "X-Twilio-Signature": hmac(secret, url + fields.flat().join(""), "base64", "sha1") };
  },
  daily: (body, secret, at) => ({
    "X-Webhook-Timestamp": seconds(at),
    "X-Webhook-Signature": hmac(Buffer.from(secret, "base64"), `${seconds(at)}.${body}`, "base64"),
  }),
  ultravox(body, secret, at) {
    const timestamp = new Date(at).toISOString();
    return {
      "X-Ultravox-Webhook-Timestamp": timestamp,
      "X-Ultravox-Webhook-Signature": hmac(secret, body + timestamp, "hex"),
    };
  },
};

export function standardWebhook(body: string, at: number): Record<string, string> {
  const signature = new Webhook(STANDARD_SECRET).sign("msg_1", new Date(at), body);
  return {
    "webhook-id": "msg_1",
    "webhook-timestamp": seconds(at),
    "webhook-signature": signature,
  };
}

/** Sends a body as that provider does. What is changed is changed after it was signed. */
export async function deliver(
  url: string,
  name: string,
  body: string,
  { secret = SECRETS[name], at = Date.now(), query = "", sent = body } = {},
) {
  const headers = await SIGNERS[name](body, secret, at, `${PUBLIC_URL}/${name}${query}`);
  return await fetch(`${url}/providers/${name}${query}`, { method: "POST", body: sent, headers });
}

const START = "2026-11-20T10:00:00.000Z";
const END = "2026-11-20T10:02:00.000Z";

/** A finished call of two minutes, as each provider tells it. */
export const ENDED: Record<string, string> = {
  vapi: JSON.stringify({
    message: {
      type: "end-of-call-report",
      endedReason: "customer-ended-call",
      startedAt: START,
      endedAt: END,
      cost: 0.0871,
      artifact: { transcript: "private words" },
      call: { id: "call-1", type: "webCall", assistantId: "agent-1" },
    },
  }),
  retell: JSON.stringify({
    event: "call_ended",
    call: {
      call_type: "web_call",
      call_id: "call-1",
      agent_id: "agent-1",
      start_timestamp: Date.parse(START),
      end_timestamp: Date.parse(END),
      disconnection_reason: "user_hangup",
      transcript: "private words",
      call_cost: { combined_cost: 8.71 },
    },
  }),
  elevenlabs: JSON.stringify({
    type: "post_call_transcription",
    data: {
      agent_id: "agent-1",
      conversation_id: "call-1",
      status: "done",
      transcript: [{ message: "private words" }],
      metadata: {
        start_time_unix_secs: Date.parse(START) / 1000,
        call_duration_secs: 120,
        cost: 320,
        termination_reason: "client disconnected",
      },
    },
  }),
  livekit: JSON.stringify({
    event: "participant_left",
    id: "EV_1",
    createdAt: String(Date.parse(END) / 1000),
    room: { sid: "RM_1", name: "agent-1", metadata: "private words" },
    participant: {
      sid: "PA_1",
      identity: "visitor",
      joinedAt: String(Date.parse(START) / 1000),
      disconnectReason: "CLIENT_INITIATED",
    },
  }),
  twilio: new URLSearchParams({
    CallSid: "call-1",
    CallStatus: "completed",
    CallDuration: "120",
    Duration: "2",
    From: "client:visitor",
    To: "",
    ApplicationSid: "agent-1",
    Caller: "private words",
    Timestamp: "Fri, 20 Nov 2026 10:02:00 +0000",
  }).toString(),
  daily: JSON.stringify({
    version: "1.1.0",
    type: "participant.left",
    id: "evt-1",
    payload: {
      session_id: "leg-1",
      meeting_id: "call-1",
      room: "agent-1",
      user_id: "session-1",
      user_name: "private words",
      joined_at: Date.parse(START) / 1000,
      duration: 120,
      owner: false,
    },
  }),
  ultravox: JSON.stringify({
    event: "call.ended",
    call: {
      callId: "call-1",
      created: "2026-11-20T09:59:58Z",
      joined: START,
      ended: END,
      endReason: "hangup",
      agent: { agentId: "agent-1" },
      medium: { webRtc: {} },
      systemPrompt: "private words",
    },
  }),
};
export const RECORD = { started_at: START, ended_at: END, outcome: "completed", agent: "agent-1" };
