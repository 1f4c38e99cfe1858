import { safely } from "./safely";
import type { UsageEvent } from "./types";

/** An event that waits, and when it happened by both clocks. */
type Entry = [event: UsageEvent, wall: number, monotonic: number];

/** The server refuses what is older. */
const WEEK = 6048e5;

/** What may go first when room is short: insight, then signs of life, then the oldest. */
const LEAST_WANTED = [/^w/, /beat/, /./];

/** jsonb takes neither NUL nor half a surrogate pair, and one of them would cost the whole batch. */
const UNSTORABLE = /(\\\\)|\\u(?:0000|d...)/g;

/** Takes the least wanted entry out of a map that is over its limit, and names it. */
const shed = (entries: Map<string, Entry>, limit: number): string | undefined => {
  if (entries.size > limit)
    for (const kind of LEAST_WANTED)
      for (const [name, [event]] of entries)
        if (kind.test(event.event_type)) {
          entries.delete(name);
          return name;
        }
  return undefined;
};

/**
 * Events that are not yet known to be delivered: all of them in memory, up to 500 also in `localStorage`.
 *
 * Each stored event has a key of its own, so tabs that share the storage can neither overwrite nor lose each other's;
 * that a live tab's event is sent by another one too does no harm, as the server knows it by its id.
 */
export const createQueue = (namespace: string) => {
  const waiting = new Map<string, Entry>();
  const stored = new Map<string, Entry>();

  const unstore = safely((name: string) => localStorage.removeItem(name));

  const settle = (name: string): void => {
    waiting.delete(name);
    stored.delete(name);
    unstore(name);
  };

  const enqueue = (event: UsageEvent, wall = Date.now(), monotonic = performance.now()): void => {
    const name = namespace + event.event_id;
    const entry: Entry = [event, wall, monotonic];
    waiting.set(name, entry);
    stored.set(name, entry);
    // Storage is denied in third-party iframes and private modes, and may be full: memory will have to do.
    safely(() => localStorage.setItem(name, JSON.stringify({ ...event, wall })))();
    const overflow = shed(stored, 500);
    if (overflow) unstore(overflow);
    const lost = shed(waiting, 2e4);
    if (lost) settle(lost);
  };

  /** Takes up what an earlier page, or another tab that has since closed, left behind. Names sort by time. */
  const adopt = safely(() => {
    for (const name of Object.keys(localStorage).sort())
      if (name.startsWith(namespace) && !waiting.has(name)) {
        try {
          const { wall, ...event } = JSON.parse(localStorage[name]) as UsageEvent & { wall: number };
          const age = Date.now() - wall;
          if (age < WEEK) {
            // The other page's monotonic clock means nothing here: count on from what the wall clock says now.
            enqueue(event, wall, performance.now() - Math.max(0, age));
            continue;
          }
        } catch {}
        unstore(name);
      }
  });

  /** The next events whose encoded size fits (one fits always): their names, and the request's body. */
  const nextBatch = (limit: number, newestFirst?: boolean): [string[], URLSearchParams] => {
    const names: string[] = [];
    const items: string[] = [];
    const entries = [...waiting];
    for (const [name, [event, wall, monotonic]] of newestFirst ? entries.reverse() : entries) {
      // The monotonic clock is blind to a sleeping laptop, the wall clock to its own corrections: the longer age is
      // the cautious one (an end is never put later than it was), unless the wall clock jumped beyond belief.
      const age = Date.now() - wall;
      const item = JSON.stringify({
        ...event,
        age_ms: Math.round(Math.max(0, performance.now() - monotonic, age < WEEK ? age : 0)),
      }).replace(UNSTORABLE, "$1");
      limit -= encodeURIComponent(item).length;
      if (limit < 0 && names[0]) break;
      names.push(name);
      items.push(item);
    }
    return [names, new URLSearchParams({ events: `[${items}]` })];
  };

  return { enqueue, adopt, nextBatch, settle };
};
