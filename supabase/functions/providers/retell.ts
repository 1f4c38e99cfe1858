import { NoRecord, type Provider } from "./provider.ts";
import { fromHex, headerFields, isRecent, isSigned, utf8 } from "./signatures.ts";
import { at, costIn, instantOfMs, number, ourIds, text } from "./values.ts";

const TOLERANCE_SECONDS = 5 * 60;

/** `call_analyzed` repeats the end of the call some time later: another chance, where the first was lost. */
const ENDS = ["call_ended", "call_analyzed"];

export const retell: Provider = {
  verify({ headers, body, receivedAt }, secret) {
    const { v: timestamp = "", d: signature } = headerFields(headers.get("X-Retell-Signature"));
    const signedAt = /^\d{1,15}$/.test(timestamp) ? Number(timestamp) : NaN;
    return isRecent(signedAt, receivedAt, TOLERANCE_SECONDS) &&
      isSigned("SHA-256", utf8(secret), fromHex(signature), body, timestamp);
  },

  toRecord(payload) {
    if (!ENDS.includes(text(at(payload, "event")) ?? "")) {
      return NoRecord.otherEvent("no end of a call");
    }
    const call = at(payload, "call");
    if (at(call, "call_type") === "phone_call") {
      return NoRecord.otherEvent("no call from a browser");
    }

    const id = text(at(call, "call_id"));
    const started_at = instantOfMs(at(call, "start_timestamp"));
    const cents = number(at(call, "call_cost.combined_cost"));
    return {
      record_id: id,
      call_id: id,
      started_at,
      ended_at: instantOfMs(at(call, "end_timestamp")),
      outcome: started_at ? "completed" : "failed",
      reason: text(at(call, "disconnection_reason")),
      agent: text(at(call, "agent_id")),
      ...ourIds(at(call, "metadata"), at(call, "retell_llm_dynamic_variables")),
      ...costIn("USD", cents === undefined ? undefined : Number((cents / 100).toFixed(8))),
    };
  },
};
