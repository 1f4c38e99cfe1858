import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";
import { createQueue, type Queue } from "../src/createQueue";
import { FakeStorage, namesOf, sentOf, newEvent, setGlobal, useClocks } from "./browser";

const HOUR = 3_600_000;
const DAY = 24 * HOUR;

let storage: FakeStorage;
let clocks: ReturnType<typeof useClocks>;

beforeEach(() => {
  storage = new FakeStorage();
  setGlobal("localStorage", () => storage);
  clocks = useClocks();
});

const idsOf = (queue: Queue, limit = 1e9, newestFirst?: boolean) =>
  sentOf(queue, limit, newestFirst).map((event) => event.event_id);

const ageOf = (queue: Queue) => sentOf(queue)[0]!.age_ms;

test("an event waits, in memory and in storage, until it is settled", () => {
  const queue = createQueue("ns:");
  const event = newEvent("call_end");

  queue.enqueue(event);
  const names = namesOf(queue);

  assert.deepEqual(names, [`ns:${event.event_id}`]);
  assert.deepEqual(Object.keys(storage), names);
  names.forEach(queue.settle);
  assert.deepEqual(Object.keys(storage), []);
  assert.deepEqual(namesOf(queue), []);
});

test("the next page takes up what an earlier one left, with the same ids and numbers, once, oldest first", () => {
  const left = [newEvent("call_start", { call_id: "c" }), newEvent("call_end", { call_id: "c" })];
  const earlier = createQueue("ns:");
  left.forEach((event) => earlier.enqueue(event));
  const queue = createQueue("ns:");

  queue.adopt();
  queue.adopt();

  const sent = sentOf(queue).map(({ age_ms, ...event }) => event);
  assert.deepEqual(sent, left);
});

test("what another project's tracker, or the page itself, has stored is left alone", () => {
  createQueue("other:").enqueue(newEvent("call_end"));
  storage["theirs"] = "{}";
  const queue = createQueue("ns:");

  queue.adopt();

  assert.deepEqual(namesOf(queue), []);
  assert.equal(Object.keys(storage).length, 2);
});

test("tabs that share the storage neither overwrite nor lose each other's events", () => {
  const [one, two] = [createQueue("ns:"), createQueue("ns:")];
  const [first, second] = [newEvent("call_end"), newEvent("call_end")];

  one.enqueue(first);
  two.enqueue(second);
  namesOf(one).forEach(one.settle);

  assert.deepEqual(Object.keys(storage), [`ns:${second.event_id}`]);
  assert.deepEqual(idsOf(two), [second.event_id]);
});

test("of more than 500 events, insight leaves the storage first, then heartbeats, then the oldest; memory keeps all", () => {
  const queue = createQueue("ns:");
  const start = newEvent("call_start");
  const beats = [newEvent("call_heartbeat"), newEvent("call_heartbeat")];
  const load = newEvent("widget_load");
  const ends = Array.from({ length: 498 }, () => newEvent("call_end"));
  const isStored = ({ event_id }: { event_id: string }) => `ns:${event_id}` in storage;

  [start, ...beats, load, ...ends.slice(0, 497)].forEach((event) => queue.enqueue(event));
  assert.deepEqual([start, ...beats, load].map(isStored), [true, true, true, false]);
  queue.enqueue(ends[497]!);
  assert.deepEqual([start, ...beats].map(isStored), [true, false, true]);
  queue.enqueue(newEvent("call_end"));
  assert.deepEqual([start, ...beats].map(isStored), [true, false, false]);
  queue.enqueue(newEvent("call_end"));
  assert.deepEqual([start, ...ends.slice(0, 2)].map(isStored), [false, true, true]);

  assert.equal(Object.keys(storage).length, 500);
  assert.equal(idsOf(queue).length, 504);
});

test("memory is bounded too", () => {
  const queue = createQueue("ns:");
  const end = newEvent("call_end");

  queue.enqueue(end);
  for (let i = 0; i < 20_100; i++) queue.enqueue(newEvent("widget_open"));

  const ids = idsOf(queue);
  assert.equal(ids.length, 20_000);
  assert.ok(ids.includes(end.event_id));
});

for (const [what, broken] of [
  ["denied", () => { throw new DOMException("denied", "SecurityError"); }],
  ["missing", () => undefined],
  ["null", () => null],
  ["full", () => ({ setItem() { throw new DOMException("full", "QuotaExceededError"); }, removeItem() {} })],
] as const)
  test(`with storage ${what}, memory does`, () => {
    setGlobal("localStorage", broken);
    const queue = createQueue("ns:");
    const event = newEvent("call_end");

    queue.adopt();
    queue.enqueue(event);

    assert.deepEqual(idsOf(queue), [event.event_id]);
    namesOf(queue).forEach(queue.settle);
    assert.deepEqual(idsOf(queue), []);
  });

test("what is stored but is no event, or is older than a week, is thrown away", () => {
  createQueue("ns:").enqueue(newEvent("call_end"));
  clocks.pass(7 * DAY);
  Object.assign(storage, { "ns:broken": "{", "ns:null": "null", "ns:text": '"x"' });
  const queue = createQueue("ns:");

  queue.adopt();

  assert.deepEqual(namesOf(queue), []);
  assert.deepEqual(Object.keys(storage), []);
});

test("the age is counted anew at each sending", () => {
  const queue = createQueue("ns:");
  queue.enqueue(newEvent("call_end"));

  assert.equal(ageOf(queue), 0);
  clocks.pass(1500.4);
  assert.equal(ageOf(queue), 1500);
});

test("a sleeping computer stops the monotonic clock only: the age counts the sleep", () => {
  const queue = createQueue("ns:");
  queue.enqueue(newEvent("call_end"));

  clocks.pass(1000);
  clocks.sleep(2 * HOUR);

  assert.equal(ageOf(queue), 2 * HOUR + 1000);
});

test("a wall clock set back, or from its epoch to today, leaves the age to the monotonic clock", () => {
  const queue = createQueue("ns:");
  queue.enqueue(newEvent("call_end"));
  clocks.pass(1000);

  clocks.setWallClock(-DAY);
  assert.equal(ageOf(queue), 1000);
  clocks.setWallClock(20_000 * DAY);
  assert.equal(ageOf(queue), 1000);
});

test("across pages the wall clock tells the age, and the new page's monotonic clock goes on from there", () => {
  createQueue("ns:").enqueue(newEvent("call_end"));
  clocks.pass(HOUR);
  clocks.newPage();
  const queue = createQueue("ns:");

  queue.adopt();
  assert.equal(ageOf(queue), HOUR);
  clocks.pass(1000);
  clocks.setWallClock(-DAY);

  assert.equal(ageOf(queue), HOUR + 1000);
});

for (const [type, age] of [["call_start", 0], ["widget_load", 0], ["call_end", 5e8], ["call_heartbeat", 5e8]] as const)
  test(`a ${type} that the clock puts into the future is given the age that bills less`, () => {
    createQueue("ns:").enqueue(newEvent(type));
    clocks.setWallClock(-DAY);
    const queue = createQueue("ns:");

    queue.adopt();

    assert.equal(ageOf(queue), age);
  });

test("a clock that was put back by less than a minute leaves the age at nothing", () => {
  createQueue("ns:").enqueue(newEvent("call_end"));
  clocks.setWallClock(-50_000);
  const queue = createQueue("ns:");

  queue.adopt();

  assert.equal(ageOf(queue), 0);
});

test("where the clocks disagree, a start takes the shorter age", () => {
  const queue = createQueue("ns:");
  queue.enqueue(newEvent("call_start"));
  clocks.pass(4000);

  clocks.setWallClock(HOUR);
  assert.equal(ageOf(queue), 4000);
  clocks.setWallClock(-2 * HOUR);
  assert.equal(ageOf(queue), 0);
});

test("who asked is told once that an event was settled", () => {
  const queue = createQueue("ns:");
  let told = 0;
  queue.enqueue(newEvent("call_start"), () => { told++; });

  const names = namesOf(queue);
  assert.equal(told, 0);
  names.forEach(queue.settle);
  names.forEach(queue.settle);

  assert.equal(told, 1);
});

test("empty properties are not sent", () => {
  const queue = createQueue("ns:");
  queue.enqueue(newEvent("call_end", { properties: {} }));
  queue.enqueue(newEvent("call_end", { properties: { cause: '"properties":{},' } }));

  const sent = sentOf(queue);

  assert.deepEqual(sent.map(({ properties }) => properties), [undefined, { cause: '"properties":{},' }]);
});

test("a batch fits its limit as it is encoded, and takes up where the last one ended", () => {
  const queue = createQueue("ns:");
  for (let i = 0; i < 1000; i++) queue.enqueue(newEvent("widget_open"));
  const seen: string[] = [];

  for (;;) {
    const batch = queue.nextBatch(20_000);
    if (!batch) break;
    const [names, body] = batch;
    assert.ok(`${body}`.length < 20_500, `${`${body}`.length}`);
    assert.ok(names.length > 40);
    seen.push(...names);
    names.forEach(queue.settle);
  }

  assert.equal(new Set(seen).size, 1000);
  assert.deepEqual(seen, [...seen].sort());
});

test("an event over the limit goes alone, so it cannot block the others", () => {
  const queue = createQueue("ns:");
  queue.enqueue(newEvent("widget_load", { page_url: "x".repeat(30_000) }));
  queue.enqueue(newEvent("call_end"));

  assert.equal(idsOf(queue, 20_000).length, 1);
});

test("on the way out the newest go first", () => {
  const queue = createQueue("ns:");
  for (let i = 0; i < 1000; i++) queue.enqueue(newEvent("call_heartbeat"));
  const end = newEvent("call_end");
  queue.enqueue(end);

  assert.equal(idsOf(queue, 40_000, true)[0], end.event_id);
});

test("what jsonb cannot hold is left out; what only looks like it is kept", () => {
  const queue = createQueue("ns:");
  queue.enqueue(newEvent("call_error", { properties: { cause: "a\0b\ud800c\udfffd \\u0000 é 😀 \\\\ud83d" } }));

  const [sent] = sentOf(queue);

  assert.deepEqual(sent!.properties, { cause: "abcd \\u0000 é 😀 \\\\ud83d" });
});
