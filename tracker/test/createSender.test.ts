import assert from "node:assert/strict";
import { afterEach, beforeEach, mock, test } from "node:test";
import { createQueue } from "../src/createQueue";
import { createSender, type RoundTrip } from "../src/createSender";
import type { TrackerOptions } from "../src/types";
import { eventsIn, FakeStorage, namesOf, newEvent, setGlobal, type Sent } from "./browser";

type Request = { url: string; init: RequestInit; events: Sent[] };

const TAKEN = '{"accepted": 1, "rejected": [], "duplicates": 0}';

let requests: Request[];
let beacons: { url: string; events: Sent[] }[];
let answer: (request: Request) => Response | Promise<Response>;
let beaconTaken: boolean;

const turn = () => new Promise<void>((resolve) => setImmediate(resolve));
const settled = async () => { for (let i = 0; i < 5; i++) await turn(); };

beforeEach(() => {
  requests = [];
  beacons = [];
  answer = () => new Response(TAKEN);
  beaconTaken = true;
  const storage = new FakeStorage();
  setGlobal("localStorage", () => storage);
  setGlobal("navigator", () => ({
    sendBeacon(url: string, body: URLSearchParams) {
      if (beaconTaken) beacons.push({ url, events: eventsIn(body) });
      return beaconTaken;
    },
  }));
  setGlobal("fetch", () => async (url: string, init: RequestInit) => {
    const request = { url, init, events: eventsIn(init.body as URLSearchParams) };
    requests.push(request);
    return answer(request);
  });
  mock.timers.enable({ apis: ["setTimeout"] });
  mock.method(Math, "random", () => 0);
});
afterEach(() => { mock.timers.reset(); mock.restoreAll(); });

const create = (options: Partial<TrackerOptions> = {}) => {
  const queue = createQueue("ns:");
  const roundTrip: RoundTrip = [];
  const given = { url: "https://api.example", key: "k", ...options };
  const sender = createSender(given, queue.adopt, queue.nextBatch, queue.settle, roundTrip);
  const waits = () => namesOf(queue).length;
  return { ...sender, queue, waits, roundTrip };
};

test("what is queued in one breath goes in one request: a form, able to outlive the page", async () => {
  const { queue, send, waits } = create();
  queue.enqueue(newEvent("widget_load"));
  send();
  queue.enqueue(newEvent("widget_open"));
  send();

  await settled();

  assert.equal(requests.length, 1);
  assert.equal(requests[0]!.events.length, 2);
  assert.equal(requests[0]!.url, "https://api.example/rest/v1/rpc/track_events?apikey=k");
  const { method, keepalive, headers } = requests[0]!.init;
  assert.deepEqual({ method, keepalive, headers }, { method: "POST", keepalive: true, headers: {} });
  assert.equal(waits(), 0);
});

for (const [transport, url, headers] of [
  ["form", "https://api.example/rest/v1/rpc/track_events?apikey=k", {}],
  ["header", "https://api.example/rest/v1/rpc/track_events", { apikey: "k" }],
  ["function", "https://api.example/functions/v1/events", {}],
] as const)
  test(`transport "${transport}" posts to its address`, async () => {
    const { queue, send } = create({ transport });
    queue.enqueue(newEvent("call_end"));
    send();

    await settled();

    assert.equal(requests[0]!.url, url);
    assert.deepEqual(requests[0]!.init.headers, headers);
  });

test("an endpoint of the site's own is used as it is written", async () => {
  const { queue, send } = create({ endpoint: "https://www.example/hello" });
  queue.enqueue(newEvent("call_end"));
  send();

  await settled();

  assert.equal(requests[0]!.url, "https://www.example/hello");
});

for (const [status, body] of [
  [400, '{"code": "22023", "message": "events: must be a JSON array of events"}'],
  [400, '{"code":"PGRST102","details":null,"hint":null,"message":"Invalid body"}'],
  [400, '{"code":"invalid_events","message":"events is missing."}'],
  [403, '{"code": "42501", "message": "widget_id: this widget is unknown"}'],
  [413, "<html>too large</html>"],
] as const)
  test(`${status} ${body} drops the events: they would only be refused again`, async () => {
    answer = () => new Response(body, { status });
    const { queue, send, waits } = create();
    queue.enqueue(newEvent("call_end"));
    send();

    await settled();

    assert.equal(waits(), 0);
  });

for (const [status, body] of [
  [200, "{}"],
  [200, "<!doctype html><title>You are offline: cookies accepted</title>"],
  [400, '{"code":"","details":null,"hint":null,"message":""}'],
  [400, '{"code":"0A000","details":null,"hint":null,"message":"cannot execute INSERT, code 22023"}'],
  [400, "Bad Request"],
  [401, '{"code":"42501","message":"permission denied for function track_events"}'],
  [403, '{"code":"42501","details":null,"hint":null,"message":"permission denied for function track_events"}'],
  [403, "<html>Are you a robot?</html>"],
  [500, '{"code":"22023"}'],
] as const)
  test(`${status} ${body} keeps the events: it says nothing of them`, async () => {
    answer = () => new Response(body, { status });
    const { queue, send, waits } = create();
    queue.enqueue(newEvent("call_end"));
    send();

    await settled();

    assert.equal(waits(), 1);
  });

for (const status of [401, 404, 405, 408, 425, 429, 500, 502, 503, 504])
  test(`${status} keeps the events, and a second later they are sent again with the same ids`, async () => {
    answer = () => new Response("{}", { status });
    const { queue, send, waits } = create();
    queue.enqueue(newEvent("call_end"));
    send();
    await settled();
    assert.equal(waits(), 1);
    answer = () => new Response(TAKEN);

    mock.timers.tick(999);
    await settled();
    assert.equal(requests.length, 1);
    mock.timers.tick(1);
    await settled();

    assert.equal(requests.length, 2);
    assert.equal(requests[0]!.events[0]!.event_id, requests[1]!.events[0]!.event_id);
    assert.equal(beacons.length, 0);
    assert.equal(waits(), 0);
  });

test("a network error keeps the events, and tries the beacon meanwhile", async () => {
  answer = () => Promise.reject(new TypeError("Failed to fetch"));
  const { queue, send, waits } = create();
  queue.enqueue(newEvent("call_end"));
  send();

  await settled();

  assert.equal(beacons.length, 1);
  assert.equal(waits(), 1);
});

for (const [what, broken] of [
  ["throws", () => { throw new Error("patched"); }],
  ["answers nothing", () => undefined],
  ["answers nonsense", () => "nonsense"],
  ["is gone", undefined],
] as const)
  test(`a fetch that ${what} is stood in for by the beacon`, async () => {
    setGlobal("fetch", () => broken);
    const { queue, send, waits } = create();
    queue.enqueue(newEvent("call_end"));
    send();

    await settled();

    assert.equal(beacons.length, 1);
    assert.equal(waits(), 1);
  });

test("each failure doubles the wait, up to five minutes, and a success starts anew", async () => {
  const waits: number[] = [];
  mock.timers.reset();
  mock.method(globalThis, "setTimeout", (_: unknown, ms: number) => { waits.push(ms); return 1; });
  mock.method(globalThis, "clearTimeout", () => {});
  answer = () => new Response("{}", { status: 503 });
  const { queue, flush } = create();
  queue.enqueue(newEvent("call_end"));

  for (let i = 0; i < 11; i++) { flush(); await settled(); }
  answer = () => new Response(TAKEN);
  flush();
  await settled();
  answer = () => new Response("{}", { status: 503 });
  queue.enqueue(newEvent("call_end"));
  flush();
  await settled();

  assert.deepEqual(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 1].map((s) => s * 1000));
});

test("jitter adds up to half of the wait", async () => {
  mock.method(Math, "random", () => 0.999);
  answer = () => new Response("{}", { status: 503 });
  const { queue, send } = create();
  queue.enqueue(newEvent("call_end"));
  send();
  await settled();

  mock.timers.tick(1490);
  await settled();
  assert.equal(requests.length, 1);
  mock.timers.tick(10);
  await settled();
  assert.equal(requests.length, 2);
});

for (const [where, tooMany] of [
  ["header", () => new Response("{}", { status: 429, headers: { "Retry-After": "7" } })],
  ["body", () => new Response('{"code":"PT429","message":"Too Many Requests","retry_after":7}', { status: 429 })],
  ["hint", () => new Response('{"code":"PT429","hint":"Retry after 7 seconds."}', { status: 429 })],
] as const)
  test(`429 waits as long as its ${where} says`, async () => {
    answer = tooMany;
    const { queue, send } = create();
    queue.enqueue(newEvent("call_end"));
    send();
    await settled();

    mock.timers.tick(6999);
    await settled();
    assert.equal(requests.length, 1);
    mock.timers.tick(1);
    await settled();
    assert.equal(requests.length, 2);
  });

test("while it backs off, new events wait too, but flush() and leaving do not", async () => {
  answer = () => new Response("{}", { status: 503 });
  const { queue, send, flush } = create();
  queue.enqueue(newEvent("call_start"));
  send();
  await settled();

  queue.enqueue(newEvent("call_end"));
  send();
  await settled();
  assert.equal(requests.length, 1);
  send(true);
  assert.equal(beacons[0]!.events.length, 2);
  flush();
  await settled();
  assert.equal(requests[1]!.events.length, 2);
});

test("ten thousand events go one request at a time, none over 30 kB", async () => {
  let open = 0;
  let most = 0;
  answer = async () => {
    most = Math.max(most, ++open);
    await turn();
    open--;
    return new Response(TAKEN);
  };
  const { queue, send, waits } = create();
  for (let i = 0; i < 10_000; i++) { queue.enqueue(newEvent("widget_open")); send(); }

  while (waits()) await turn();

  assert.equal(most, 1);
  assert.ok(requests.every(({ init }) => `${init.body}`.length < 31_000));
  const ids = requests.flatMap(({ events }) => events.map((event) => event.event_id));
  assert.equal(ids.length, 10_000);
  assert.equal(new Set(ids).size, 10_000);
});

test("what a beacon took stays queued until an answer has confirmed it", async () => {
  const { queue, send, flush, waits } = create();
  queue.enqueue(newEvent("call_end"));

  await send(true);
  assert.equal(beacons.length, 1);
  assert.equal(waits(), 1);
  flush();
  await settled();

  assert.equal(requests[0]!.events[0]!.event_id, beacons[0]!.events[0]!.event_id);
  assert.equal(waits(), 0);
});

test("on the way out a refused beacon is stood in for by fetch", async () => {
  beaconTaken = false;
  const { queue, send, waits } = create();
  queue.enqueue(newEvent("call_end"));

  send(true);
  assert.equal(requests.length, 1, "in the same turn: there may be no other");
  await settled();

  assert.equal(waits(), 0);
});

test("a beacon could not carry the header: that transport leaves by fetch", async () => {
  const { queue, send } = create({ transport: "header" });
  queue.enqueue(newEvent("call_end"));

  send(true);

  assert.equal(beacons.length, 0);
  assert.equal(requests.length, 1);
});

test("with nothing to send, nothing is sent", async () => {
  const { send, flush } = create();

  send(true);
  flush();
  await settled();

  assert.deepEqual([requests.length, beacons.length], [0, 0]);
});

test("how long the answer took is there for the next event to report", async () => {
  const { queue, send, roundTrip } = create();
  queue.enqueue(newEvent("widget_load"));
  send();

  await settled();

  assert.ok(Number.isInteger(roundTrip[0]));
});
