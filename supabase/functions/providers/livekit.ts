import { isSecret, sha256 } from "../_shared/secrets.ts";
import { NoRecord, type Provider } from "./provider.ts";
import { toBase64 } from "./signatures.ts";
import { at, instantOfMs, instantOfSeconds, ourIds, parsed, text } from "./values.ts";

/** Aborted: the visitor went before the connection was made. */
const ENDS = ["participant_left", "participant_connection_aborted"];

/**
 * A leg is the visitor's where the participant is a person (agents, telephones, recorders and
 * streams have kinds of their own), is seen by the others, and is not marked as staff: the company's
 * own people are persons too, so their tokens carry the attribute `widget_role`, `staff`.
 */
function isVisitor(participant: unknown): boolean {
  return ["STANDARD", undefined].includes(text(at(participant, "kind"))) &&
    !at(participant, "permission.hidden") && !at(participant, "permission.recorder") &&
    at(participant, "attributes.widget_role") !== "staff";
}

export const livekit: Provider = {
  /** The secret is `key:secret`. The token says what the body's hash is. */
  async verify({ headers, body }, secret) {
    // Imported here, as the other providers' deliveries do not need it and it takes a while.
    const { TokenVerifier } = await import("livekit-server-sdk");
    const [key, ...rest] = secret.split(":");
    try {
      const claims = await new TokenVerifier(key, rest.join(":"))
        .verify(headers.get("Authorization") ?? "");
      return isSecret(String(claims.sha256), toBase64(await sha256(body)));
    } catch {
      return false;
    }
  },

  toRecord(payload) {
    const event = text(at(payload, "event")) ?? "";
    if (!ENDS.includes(event)) return NoRecord.otherEvent("no end of a leg");
    const participant = at(payload, "participant");
    if (!isVisitor(participant)) return NoRecord.otherEvent("no leg of a visitor");

    // The server floors the end to its second. Without the start's fraction a leg is right to a second either way.
    const joined = instantOfSeconds(at(participant, "joinedAt"));
    return {
      record_id: text(at(participant, "sid")),
      // A room's name comes again tomorrow; its sid is of this one time.
      call_id: text(at(payload, "room.sid")),
      started_at: joined ?? instantOfMs(at(participant, "joinedAtMs")),
      ended_at: instantOfSeconds(at(payload, "createdAt")),
      outcome: event === "participant_left" ? "completed" : "failed",
      reason: text(at(participant, "disconnectReason")),
      agent: text(at(payload, "room.name")),
      ...ourIds(
        at(participant, "attributes"),
        parsed(at(participant, "metadata")),
        parsed(at(payload, "room.metadata")),
      ),
    };
  },
};
