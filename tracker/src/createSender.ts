import type { Queue } from "./createQueue";
import { safely } from "./safely";
import type { TrackerOptions } from "./types";

/** How long the server took to answer the last request: one number, until an event reports it. */
export type RoundTrip = number[];

/**
 * Refused for good is what the answer says of the request's body: too large, or one of these codes. Any other refusal may
 * be the server's own trouble: PostgREST answers 400 without a code when its connection to the database has died, and 403
 * when a role has lost its right. The door's 403, which a server of yours may pass on, names widget_id.
 */
const REFUSED = /^(413|400.*"code\W+(22|PGRST1|inv)|403.*"widget_id)/s;

/**
 * Delivers a queue. In the page's life by `fetch` with `keepalive`, one request at a time; on the way out by
 * `sendBeacon`; each stands in for the other. Bodies are form-encoded: the one type that PostgREST maps to parameters
 * and that needs no preflight, which at unload would never be answered.
 */
export const createSender = (
  given: Partial<TrackerOptions>,
  adopt: Queue["adopt"],
  nextBatch: Queue["nextBatch"],
  settle: Queue["settle"],
  roundTrip: RoundTrip,
) => {
  const byHeader = given.transport == "header";
  const target =
    given.endpoint ||
    // The address may be given with a slash at its end.
    (given.url + "").replace(
      /\/?$/,
      given.transport == "function"
        ? "/functions/v1/events"
        : byHeader
          ? "/rest/v1/rpc/track_events"
          : "/rest/v1/rpc/track_events?apikey=" + given.key,
    );
  let busyUntil = 0;
  let timer: ReturnType<typeof setTimeout> | 0;
  let failures = 0;

  /** `true` means only that the browser took it: no answer is ever seen, so the events stay queued until one is. */
  const beacon = safely((body: BodyInit) => !byHeader && navigator.sendBeacon(target, body));

  const send = async (leaving?: boolean): Promise<void> => {
    if (!leaving) {
      if (timer || +new Date() < busyUntil) return;
      // A connection that hangs must not hold up what comes after it.
      busyUntil = +new Date() + 3e4;
      await 0; // what the host page says in one breath goes in one request
    }
    // Bodies in flight share 64 KiB a page, and Firefox counts one for some milliseconds after its answer: two of
    // 30 kB stay under it. At the end the newest go first: if not all of it fits, it is the call's end that must.
    const batch = nextBatch(leaving ? 2e4 : 3e4, leaving);
    if (batch) {
      const [names, body] = batch;
      let wait: number | undefined;
      let isSettled: boolean | undefined;
      if (leaving && beacon(body)) return;
      try {
        const asked = Date.now();
        const answer = await fetch(target, {
          method: "POST",
          headers: byHeader ? { apikey: given.key! } : {},
          body,
          keepalive: true,
        });
        roundTrip[0] = Date.now() - asked;
        // Read even where nobody asks: until then the browser counts the request's body as in flight. And across
        // origins Retry-After cannot be read: the body of a 429 says it too.
        const text = answer.headers.get("retry-after") + (await answer.text());
        // Any 200 may come from somebody else: a service worker's offline page, an endpoint that answers index.html.
        isSettled = answer.ok ? /"accepted"/.test(text) : REFUSED.test(answer.status + text);
        wait = +(/(^|retry\D+)(\d+)/i.exec(text) || [])[2]!;
      } catch {
        // Offline, refused, blocked, or a fetch that the page has replaced and broken.
        beacon(body);
      }
      if (isSettled) {
        failures = 0;
        names.forEach(settle);
      } else timer = setTimeout(flush, (wait || Math.min(2 ** failures++, 300)) * (1e3 + 500 * Math.random()));
    }
    if (!leaving) {
      busyUntil = 0;
      if (batch) send();
    }
  };

  /** Sends whatever the backoff says, and whatever is in flight: what was when the page was cached is never answered. */
  const flush = (): void => {
    clearTimeout(timer);
    timer = busyUntil = 0;
    adopt();
    send();
  };

  return { send, flush };
};
