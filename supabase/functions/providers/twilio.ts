import { type Delivery, NoRecord, type Provider } from "./provider.ts";
import { fromBase64, isSigned, utf8 } from "./signatures.ts";
import { at, instant, instantOfMs, number, ourIds, text } from "./values.ts";

const FAILED = ["busy", "failed", "no-answer", "canceled"];

export const twilio: Provider = {
  /** No time is signed. A delivery sent again makes no second record, as a call has one. */
  async verify(delivery, secret) {
    const fields = formOf(delivery);
    const names = [...new Set(fields.keys())].sort();
    const signed = names.map((name) =>
      [...new Set(fields.getAll(name))].sort().map((value) => name + value)
    );
    const signature = fromBase64(delivery.headers.get("X-Twilio-Signature"));
    for (const url of spellings(delivery.url)) {
      if (await isSigned("SHA-1", utf8(secret), signature, url, ...signed.flat())) return true;
    }
    return false;
  },

  /** The form's fields, and in `query` what the voice handler put into the address. */
  parse(delivery) {
    return {
      ...Object.fromEntries(formOf(delivery)),
      query: Object.fromEntries(new URL(delivery.url).searchParams),
    };
  },

  toRecord(payload) {
    const status = text(at(payload, "CallStatus")) ?? "";
    if (status !== "completed" && !FAILED.includes(status)) {
      return NoRecord.otherEvent("no end of a call");
    }
    // The visitor's browser calls in; a child leg is whom the company connects it with.
    if (text(at(payload, "ParentCallSid"))) return NoRecord.otherEvent("no leg of a visitor");
    if (!text(at(payload, "From"))?.startsWith("client:")) {
      return NoRecord.otherEvent("no call from a browser");
    }

    const id = text(at(payload, "CallSid"));
    const ended_at = instant(at(payload, "Timestamp"));
    // `Duration` would be minutes.
    const seconds = number(at(payload, "CallDuration")) ?? 0;
    return {
      record_id: id,
      call_id: id,
      started_at: ended_at && instantOfMs(Date.parse(ended_at) - seconds * 1000),
      ended_at,
      outcome: status === "completed" ? "completed" : "failed",
      reason: text(at(payload, "SipResponseCode")) ?? status,
      agent: text(at(payload, "query.agent")) ?? text(at(payload, "ApplicationSid")) ??
        text(at(payload, "To")),
      ...ourIds(at(payload, "query")),
    };
  },
};

function formOf({ body }: Delivery): URLSearchParams {
  return new URLSearchParams(new TextDecoder().decode(body));
}

/** A gateway may have spelled an apostrophe as `%27`, where Twilio signs the address as it was given. */
function spellings(url: string): string[] {
  return [...new Set([url, url.replaceAll("%27", "'")])];
}
