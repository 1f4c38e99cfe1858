import type { Queue } from "../src/createQueue";
import type { UsageEvent } from "../src/types";

/** Just enough of `localStorage`: stored items are own enumerable properties, methods are not. */
export class FakeStorage {
  [name: string]: unknown;
}
Object.defineProperties(FakeStorage.prototype, {
  setItem: { value(this: FakeStorage, name: string, text: string) { this[name] = text; } },
  removeItem: { value(this: FakeStorage, name: string) { delete this[name]; } },
});

/** Replaces a global for the rest of the test file, getter included. */
export const setGlobal = (name: string, get: () => unknown): void => {
  Object.defineProperty(globalThis, name, { configurable: true, get });
};

/** Clocks that move only when told to. */
export const useClocks = () => {
  const clocks = { wall: Date.UTC(2026, 10, 22), monotonic: 1000 };
  Date.now = () => clocks.wall;
  performance.now = () => clocks.monotonic;
  return {
    pass: (ms: number) => { clocks.wall += ms; clocks.monotonic += ms; },
    sleep: (ms: number) => { clocks.wall += ms; },
    setWallClock: (ms: number) => { clocks.wall += ms; },
    /** A new page's monotonic clock starts anew. */
    newPage: () => { clocks.monotonic = 50; },
  };
};

let count = 0;
export const newEvent = (event_type: UsageEvent["event_type"], more: Partial<UsageEvent> = {}): UsageEvent => ({
  widget_id: "widget",
  event_type,
  session_id: "session",
  event_id: `event-${String(++count).padStart(6, "0")}`,
  seq: count,
  ...more,
});

export type Sent = UsageEvent & { age_ms: number };

export const eventsIn = (body: URLSearchParams): Sent[] => JSON.parse(body.get("events")!) as Sent[];

/** The events of a queue's next batch, as they go over the wire; none where there is no batch. */
export const sentOf = (queue: Queue, limit = 1e9, newestFirst?: boolean): Sent[] => {
  const batch = queue.nextBatch(limit, newestFirst);
  return batch ? eventsIn(batch[1]) : [];
};

export const namesOf = (queue: Queue): readonly string[] => (queue.nextBatch(1e9) || [[]])[0];
