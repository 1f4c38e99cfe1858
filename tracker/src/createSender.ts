import type { createQueue } from "./createQueue";
import type { TrackerOptions } from "./types";

/** How long the server took to answer the last request, until an event reports it. */
export type LastAnswer = { rtt_ms?: number | undefined };

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
  const beacon = (body: BodyInit): boolean | undefined => {
    try {
      return !byHeader && navigator.sendBeacon(target, body);
    } catch {
      return undefined;
    }
  };

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
    try {
      // Bodies in flight share 64 KiB a page: 40 kB here and 20 kB at the end stay under it. The newest go first then:
      // if not all of it fits, it is the call's end that must.
      [names, body] = nextBatch(leaving ? 2e4 : 4e4, leaving);
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
        const said = /retry\D+(\d+)/i.exec(await answer.text());
        wait = +(answer.headers.get("Retry-After") || said![1]!);
      }
    } catch {}
    if (names[0]) {
      // Offline, refused, blocked, or a fetch that the page has replaced and broken.
      if (!status) beacon(body);
      if (!status || status > 499 || /40[^039]|42[59]/.test(`${status}`)) {
        clearTimeout(timer);
        timer = setTimeout(flush, (wait || Math.min(2 ** failures++, 300)) * (1e3 + 500 * Math.random()));
      } else {
        // Taken, or refused for good. 400, 403 and 413 are about the events; the other 4xx are about a server that is
        // read-only (405), half deployed (404) or has changed its keys (401): that passes.
        failures = 0;
        names.forEach(settle);
      }
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
