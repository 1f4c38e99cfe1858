import type { createQueue } from "./createQueue";
import { safely } from "./safely";
import type { TrackerOptions } from "./types";

/** How long the server took to answer the last request, until an event reports it. */
export type LastAnswer = { rtt_ms?: number | undefined };

/**
 * Refused for good is what the answer says of the request's body: too large, or one of these codes. Any other refusal may
 * be the server's own trouble: PostgREST answers 400 without a code when its connection to the database has died.
 */
const REFUSED = /^(413|40[03].*"code": ?"(22|PGRST1|42501|inv))/s;

/**
 * Delivers a queue. In the page's life by `fetch` with `keepalive`, one request at a time; on the way out by
 * `sendBeacon`; each stands in for the other. Bodies are form-encoded: the one type that PostgREST maps to parameters
 * and that needs no preflight, which at unload would never be answered.
 */
export const createSender = (
  { url, key, transport, endpoint }: Partial<TrackerOptions>,
  { adopt, nextBatch, settle }: ReturnType<typeof createQueue>,
  lastAnswer: LastAnswer,
) => {
  const byHeader = transport === "header";
  const target =
    endpoint ||
    url +
      (transport === "function"
        ? "/functions/v1/events"
        : "/rest/v1/rpc/track_events" + (byHeader ? "" : "?apikey=" + key));
  let busy = false;
  let timer: ReturnType<typeof setTimeout> | 0 = 0;
  let failures = 0;

  /** `true` means only that the browser took it: no answer is ever seen, so the events stay queued until one is. */
  const beacon = safely((body: BodyInit): boolean => !byHeader && navigator.sendBeacon(target, body));

  const send = async (leaving?: boolean): Promise<void> => {
    if (!leaving) {
      if (busy || timer) return;
      busy = true;
      await 0; // what the host page says in one breath goes in one request
    }
    let names: string[] = [];
    let body!: URLSearchParams;
    let status = 0;
    let wait = 0;
    let isSettled = false;
    try {
      // Bodies in flight share 64 KiB a page, and Firefox counts one for some milliseconds after its answer: two of
      // 30 kB stay under it. At the end the newest go first: if not all of it fits, it is the call's end that must.
      [names, body] = nextBatch(leaving ? 2e4 : 3e4, leaving);
      if (leaving && names[0] && beacon(body)) return;
      if (names[0]) {
        const asked = performance.now();
        const answer = await fetch(target, {
          method: "POST",
          body,
          keepalive: true,
          credentials: "omit",
          headers: byHeader ? { apikey: key! } : {},
          // A connection that hangs must not hold up what comes after it.
          signal: AbortSignal.timeout ? AbortSignal.timeout(3e4) : null,
        });
        status = answer.status;
        lastAnswer.rtt_ms = Math.round(performance.now() - asked);
        // Read even where nobody asks: until then the browser counts the request's body as in flight. And across
        // origins Retry-After cannot be read: the body of a 429 says it too.
        const text = await answer.text();
        // Any 200 may come from somebody else: a service worker's offline page, an endpoint that answers index.html.
        isSettled = answer.ok ? /"accepted":/.test(text) : REFUSED.test(status + text);
        wait = +(answer.headers.get("Retry-After") || /retry\D+(\d+)/i.exec(text)![1]!);
      }
    } catch {}
    if (isSettled) {
      failures = 0;
      names.forEach(settle);
    } else if (names[0]) {
      // Offline, refused, blocked, or a fetch that the page has replaced and broken.
      if (!status) beacon(body);
      clearTimeout(timer);
      timer = setTimeout(flush, (wait || Math.min(2 ** failures++, 300)) * (1e3 + 500 * Math.random()));
    }
    if (!leaving) {
      busy = false;
      if (names[0]) send();
    }
  };

  const flush = (): void => {
    clearTimeout(timer);
    timer = 0;
    adopt();
    send();
  };

  return { send, flush };
};
