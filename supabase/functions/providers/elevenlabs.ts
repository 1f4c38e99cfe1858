import { NoRecord, type Provider } from "./provider.ts";
import { fromHex, headerFields, isRecent, isSigned, msOfSeconds, utf8 } from "./signatures.ts";
import { after, at, costIn, instantOfSeconds, number, ourIds, text } from "./values.ts";

const TOLERANCE_SECONDS = 30 * 60;

export const elevenlabs: Provider = {
  verify({ headers, body, receivedAt }, secret) {
    const { t: timestamp = "", v0: signature } = headerFields(headers.get("ElevenLabs-Signature"));
    return isRecent(msOfSeconds(timestamp), receivedAt, TOLERANCE_SECONDS) &&
      isSigned("SHA-256", utf8(secret), fromHex(signature), `${timestamp}.`, body);
  },

  toRecord(payload) {
    const type = at(payload, "type");
    const data = at(payload, "data");
    const id = text(at(data, "conversation_id"));
    if (type === "post_call_transcription_otel") {
      // The workspace's transcript format is OpenTelemetry, whose payload says nothing of the call itself.
      return NoRecord.incomplete(
        `conversation ${id} came in the OpenTelemetry format, without its times: ` +
          "run `widget-analytics providers pull elevenlabs`",
      );
    }
    if (type !== "post_call_transcription") return NoRecord.otherEvent("no end of a call");
    const metadata = at(data, "metadata");
    if (at(metadata, "phone_call")) return NoRecord.otherEvent("no call from a browser");

    const started_at = instantOfSeconds(at(metadata, "start_time_unix_secs"));
    const seconds = number(at(metadata, "call_duration_secs"));
    return {
      record_id: id,
      call_id: id,
      started_at,
      ended_at: after(started_at, seconds),
      // What failed after it began was a conversation until then.
      outcome: at(data, "status") === "failed" && !seconds ? "failed" : "completed",
      reason: text(at(metadata, "termination_reason")),
      agent: text(at(data, "agent_id")),
      ...ourIds(at(data, "conversation_initiation_client_data.dynamic_variables")),
      ...costIn("credits", at(metadata, "cost")),
    };
  },
};
