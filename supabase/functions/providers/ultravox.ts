import { NoRecord, type Provider } from "./provider.ts";
import { fromHex, isRecent, isSigned, utf8 } from "./signatures.ts";
import { at, instant, ourIds, text } from "./values.ts";

const TOLERANCE_SECONDS = 60;

/** The media of telephones. */
const TELEPHONES = ["twilio", "telnyx", "plivo", "exotel", "sip"];

export const ultravox: Provider = {
  /** The header lists a signature by each secret while one replaces another. */
  async verify({ headers, body, receivedAt }, secret) {
    const timestamp = headers.get("X-Ultravox-Webhook-Timestamp") ?? "";
    if (!isRecent(Date.parse(timestamp), receivedAt, TOLERANCE_SECONDS)) return false;
    const signatures = (headers.get("X-Ultravox-Webhook-Signature") ?? "").split(",").slice(0, 10);
    for (const signature of signatures) {
      if (await isSigned("SHA-256", utf8(secret), fromHex(signature.trim()), body, timestamp)) {
        return true;
      }
    }
    return false;
  },

  toRecord(payload) {
    if (at(payload, "event") !== "call.ended") return NoRecord.otherEvent("no end of a call");
    const call = at(payload, "call");
    if (TELEPHONES.some((medium) => at(call, `medium.${medium}`))) {
      return NoRecord.otherEvent("no call from a browser");
    }

    const id = text(at(call, "callId"));
    const started_at = instant(at(call, "joined"));
    return {
      record_id: id,
      call_id: id,
      started_at,
      ended_at: instant(at(call, "ended")),
      outcome: started_at ? "completed" : "failed",
      reason: text(at(call, "endReason")),
      agent: text(at(call, "agent.agentId") ?? at(call, "agentId")),
      ...ourIds(at(call, "metadata")),
    };
  },
};
