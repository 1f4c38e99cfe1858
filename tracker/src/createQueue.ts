import { safely } from "./safely";
import type { UsageEvent } from "./types";

type OnSettled = (() => void) | 0 | undefined;

/** An event that waits, when it happened by both clocks, and who wants to know that it was delivered. */
type Entry = [event: UsageEvent, wall: number, monotonic: number, onSettled: OnSettled];

export type Queue = ReturnType<typeof createQueue>;

/** A little under seven days: the server refuses what is older. */
const WEEK = 6e8;

/** Drops the least wanted entry of a map that is over its limit: insight, then signs of life, then the oldest. */
const shed = (entries: Map<string, Entry>, limit: number, drop: (name: string) => void): void => {
  if (entries.size > limit)
    for (const kind of [/^w/, /b/, /./])
      for (const [name, [event]] of entries) if (kind.test(event.event_type)) return drop(name);
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

  const unstore = safely((name: string): void => {
    stored.delete(name);
    localStorage.removeItem(name);
  });

  const settle = (name: string): void => {
    const onSettled = (waiting.get(name) || ([] as Partial<Entry>))[3];
    waiting.delete(name);
    unstore(name);
    if (onSettled) onSettled();
  };

  const enqueue = (event: UsageEvent, onSettled?: OnSettled, age = 0, wall = Date.now() - age): undefined => {
    const name = namespace + event.event_id;
    const entry: Entry = [event, wall, performance.now() - age, onSettled];
    waiting.set(name, entry);
    stored.set(name, entry);
    // Storage is denied in third-party iframes and private modes, and may be full: memory will have to do.
    safely(() => localStorage.setItem(name, JSON.stringify({ ...event, wall })))();
    shed(stored, 500, unstore);
    shed(waiting, 2e4, settle);
  };

  /** Takes up what an earlier page, or another tab that has since closed, left behind. */
  const adopt = safely(() => {
    for (const name of Object.keys(localStorage))
      if (
        name.startsWith(namespace) &&
        !waiting.has(name) &&
        !safely(() => {
          const { wall, ...event } = JSON.parse(localStorage[name]) as UsageEvent & { wall: number };
          const age = Date.now() - wall;
          // The other page's monotonic clock means nothing here: count on from what the wall clock says now. If that has
          // since been put back, the age is unknown: too long a one ends a call too early, never too late.
          return age < WEEK && !enqueue(event, 0, age < -6e4 ? 5e8 : age, wall);
        })()
      )
        settle(name);
  });

  /** The next events whose encoded size fits (one fits always): their names, and the request's body. */
  const nextBatch = safely((limit: number, newestFirst?: boolean) => {
    const names: string[] = [];
    const items: string[] = [];
    const entries = [...waiting];
    for (const [name, [event, wall, monotonic]] of newestFirst ? entries.reverse() : entries) {
      // The monotonic clock is blind to a sleeping laptop, the wall clock to its own corrections. Where they disagree,
      // the age that bills less is taken (of a start the shorter, of an end the longer), unless the wall clock jumped
      // beyond belief.
      const awake = performance.now() - monotonic;
      const age = Date.now() - wall;
      const item = JSON.stringify({
        ...event,
        age_ms: Math.round(
          Math.max(0, /^w|st/.test(event.event_type) ? Math.min(age, awake) : Math.max(awake, age < WEEK ? age : 0)),
        ),
      })
        // Left out are empty properties, and what jsonb cannot hold (NUL, half a surrogate pair): it would cost the batch.
        .replace(/(\\\\)|\\u(?:0000|d...)|"properties":{},/g, "$1");
      limit -= encodeURIComponent(item).length;
      if (limit < 0 && names[0]) break;
      items.push(item);
      names.push(name);
    }
    return names[0] && ([names, new URLSearchParams({ events: "[" + items + "]" })] as const);
  });

  return { enqueue, adopt, nextBatch, settle };
};
