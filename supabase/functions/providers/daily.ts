import { NoRecord, type Provider } from "./provider.ts";
import { fromBase64, isRecent, isSigned, msOfSeconds } from "./signatures.ts";
import { after, at, instantOfSeconds, parsed, text } from "./values.ts";

/** Daily's own retries may carry the first attempt's time. */
const TOLERANCE_SECONDS = 30 * 60;

export const daily: Provider = {
  verify({ headers, body, receivedAt }, secret) {
    const timestamp = headers.get("X-Webhook-Timestamp") ?? "";
    const key = fromBase64(secret);
    const signature = fromBase64(headers.get("X-Webhook-Signature"));
    return key !== null && isRecent(msOfSeconds(timestamp), receivedAt, TOLERANCE_SECONDS) &&
      isSigned("SHA-256", key, signature, `${timestamp}.`, body);
  },

  /** Sent while a webhook is created, when nobody knows its secret yet. */
  isProbe(body) {
    return body.length < 64 && at(parsed(new TextDecoder().decode(body)), "test") === "test";
  },

  toRecord(payload) {
    if (at(payload, "type") !== "participant.left") return NoRecord.otherEvent("no end of a leg");
    const leg = at(payload, "payload");
    // The tokens of agents and staff are an owner's, and name the user `staff`; the visitor's names the session.
    const user = text(at(leg, "user_id"));
    if (
      at(leg, "owner") === true || at(leg, "permissions.hasPresence") === false || user === "staff"
    ) {
      return NoRecord.otherEvent("no leg of a visitor");
    }

    const started_at = instantOfSeconds(at(leg, "joined_at"));
    return {
      record_id: text(at(leg, "session_id")),
      call_id: text(at(leg, "meeting_id")),
      started_at,
      ended_at: after(started_at, at(leg, "duration")),
      outcome: "completed",
      agent: text(at(leg, "room")),
      // A token has room for one id.
      session_id: user,
    };
  },
};
