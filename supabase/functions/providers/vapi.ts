import { isSecret } from "../_shared/secrets.ts";
import { type Delivery, NoRecord, type Provider } from "./provider.ts";
import { fromHex, isRecent, isSigned, utf8 } from "./signatures.ts";
import { at, costIn, instant, ourIds, text } from "./values.ts";

const TOLERANCE_SECONDS = 5 * 60;

/** An assistant answers telephones too; those calls are no widget's. */
const BROWSER_CALLS = ["webCall", "vapi.websocketCall"];

/** These calls never came about. One that broke off later took place until then. */
const NEVER_CAME_ABOUT = /^(call\.start\.error|customer-did-not-give-microphone-permission)/;

export const vapi: Provider = {
  /** As the credential in Vapi's dashboard says: HMAC, HMAC shaped as Standard Webhooks, or a bearer token. */
  verify(delivery, secret) {
    const { headers } = delivery;
    if (headers.has("x-signature")) return isHmac(delivery, secret);
    if (headers.has("webhook-signature")) return isStandardWebhook(delivery, secret);
    const bearer = /^Bearer +(.+)$/i.exec(headers.get("Authorization") ?? "")?.[1];
    return isSecret(bearer ?? headers.get("X-Vapi-Secret") ?? "", secret);
  },

  toRecord(payload) {
    const message = at(payload, "message");
    if (at(message, "type") !== "end-of-call-report") {
      return NoRecord.otherEvent("no end of a call");
    }
    const call = at(message, "call");
    const type = text(at(call, "type"));
    if (type && !BROWSER_CALLS.includes(type)) return NoRecord.otherEvent("no call from a browser");

    const id = text(at(call, "id"));
    const started_at = instant(at(message, "startedAt") ?? at(call, "startedAt"));
    const reason = text(at(message, "endedReason") ?? at(call, "endedReason"));
    return {
      record_id: id,
      call_id: id,
      started_at,
      ended_at: instant(at(message, "endedAt") ?? at(call, "endedAt")),
      outcome: !started_at || NEVER_CAME_ABOUT.test(reason ?? "") ? "failed" : "completed",
      reason,
      agent: text(at(call, "assistantId") ?? at(message, "assistant.id") ?? at(call, "squadId")),
      // Each of these places has been seen without them.
      ...ourIds(
        at(call, "assistantOverrides.metadata"),
        at(call, "assistantOverrides.variableValues"),
        at(message, "assistant.metadata"),
        at(message, "artifact.variableValues"),
      ),
      ...costIn("USD", at(message, "cost") ?? at(call, "cost")),
    };
  },
};

function isHmac({ headers, body, receivedAt }: Delivery, secret: string) {
  const timestamp = headers.get("x-timestamp") ?? "";
  // Whether Vapi means seconds or milliseconds is nowhere said.
  const signedAt = /^\d{10,13}$/.test(timestamp)
    ? Number(timestamp) * (timestamp.length > 11 ? 1 : 1000)
    : NaN;
  const signature = fromHex(headers.get("x-signature"));
  return isRecent(signedAt, receivedAt, TOLERANCE_SECONDS) &&
    isSigned("SHA-256", utf8(secret), signature, `${timestamp}.`, body);
}

async function isStandardWebhook({ headers, body }: Delivery, secret: string) {
  // Imported here, as few deliveries need it and it takes a while.
  const { Webhook } = await import("standardwebhooks");
  try {
    const text = new TextDecoder("utf-8", { ignoreBOM: true }).decode(body);
    new Webhook(secret).verify(text, Object.fromEntries(headers), { jsonParse: false });
    return true;
  } catch {
    return false;
  }
}
