import assert from "node:assert/strict";
import { relay } from "../events/handler.ts";
import {
  environment,
  EVENTS,
  json,
  LIMIT,
  PAGE,
  post,
  relayed,
  relayTo,
  TAKEN,
  taken,
} from "./relays.ts";
import { capturedLog, deadAddress, rawHead, serve, upstream } from "./servers.ts";

const wrapped = JSON.stringify({ events: EVENTS });
const form = new URLSearchParams({ events: json }).toString();
const FORM = "application/x-www-form-urlencoded";
const bodies: Record<string, [string, string?]> = {
  "a JSON array": [json, "application/json"],
  "a JSON object": [wrapped, "application/json"],
  "JSON with a charset": [json, "Application/JSON; charset=UTF-8"],
  "JSON in a JSON string": [JSON.stringify({ events: json }), "application/json"],
  "a form": [form, FORM],
  "a form with a charset": [form, `${FORM};charset=UTF-8`],
  "a form with other fields": [`a=1&${form}&b`, FORM],
  "a form with JSON in a JSON string": [
    new URLSearchParams({ events: JSON.stringify(json) }).toString(),
    FORM,
  ],
  "a text beacon": [json, "text/plain;charset=UTF-8"],
  "a text beacon of an object": [wrapped, "text/plain"],
  "an array without a content type": [json],
  "an object without a content type": [wrapped],
  "JSON behind a byte order mark": ["\uFEFF" + json, "application/json"],
};
for (const [what, [body, type]] of Object.entries(bodies)) {
  Deno.test(`events: ${what} reaches track_events as JSON, and its answer comes back`, async () => {
    const answer = await relayed(body, type);

    assert.equal(answer.status, 200);
    assert.equal(answer.headers.get("Content-Type"), "application/json");
    assert.equal(answer.headers.get("Cache-Control"), "no-store");
    assert.deepEqual(answer.json(), TAKEN);
    assert.equal(answer.received.length, 1);
    assert.equal(answer.received[0].method, "POST");
    assert.equal(answer.received[0].path, "/rest/v1/rpc/track_events");
    assert.equal(answer.received[0].headers.get("Content-Type"), "application/json");
    assert.deepEqual(JSON.parse(answer.received[0].text), { events: EVENTS });
  });
}

Deno.test("events: letters of every kind survive each form of body", async () => {
  await using api = upstream(taken);
  await using functions = relayTo(api.url);
  const events = [{ session_id: "+ & = % é 鍵 😀" }];
  const text = JSON.stringify(events);

  await (await post(functions.url, text, "application/json")).body?.cancel();
  await (await post(functions.url, text, "text/plain")).body?.cancel();
  await (await post(functions.url, `events=${encodeURIComponent(text)}`, FORM)).body?.cancel();
  await (await post(functions.url, `${new URLSearchParams({ events: text })}`, FORM)).body
    ?.cancel();

  const sent = api.received.map(({ text }) => JSON.parse(text).events);
  assert.deepEqual(sent, [events, events, events, events]);
});

Deno.test("events: a form may leave an equals sign as it is, and its last field wins", async () => {
  const body = 'events=[1]&events=[{"page_url":"https://shop.example/?a=b=c"}]&other=[2]';

  const answer = await relayed(body, FORM);

  const { events } = JSON.parse(answer.received[0].text);
  assert.deepEqual(events, [{ page_url: "https://shop.example/?a=b=c" }]);
});

Deno.test("events: a body of 64 KiB passes, one byte more is 413", async () => {
  await using api = upstream(taken);
  await using functions = relayTo(api.url);

  const most = await post(functions.url, json.padEnd(LIMIT), "text/plain");
  const more = await post(functions.url, json.padEnd(LIMIT + 1), "text/plain");
  await most.body?.cancel();

  assert.equal(most.status, 200);
  assert.equal(more.status, 413);
  assert.equal(more.headers.get("Access-Control-Allow-Origin"), PAGE);
  assert.equal((await more.json()).code, "54000");
  assert.equal(api.received.length, 1);
});

Deno.test("events: a length header over the limit is 413 before any of the body came", async () => {
  await using api = upstream(taken);
  await using functions = relayTo(api.url);

  const head = await rawHead(
    functions.port,
    `POST / HTTP/1.1\r\nHost: x\r\nContent-Length: ${LIMIT + 1}\r\n\r\n`,
  );

  assert.match(head, /^HTTP\/1.1 413 /);
  assert.equal(api.received.length, 0);
});

Deno.test("events: a body without a length is 413 while more of it is still to come", async () => {
  await using api = upstream(taken);
  await using functions = relayTo(api.url);

  const chunk = `${(LIMIT + 1).toString(16)}\r\n${" ".repeat(LIMIT + 1)}\r\n`;
  const head = await rawHead(
    functions.port,
    `POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n${chunk}`,
  );

  assert.match(head, /^HTTP\/1.1 413 /);
  assert.equal(api.received.length, 0);
});

Deno.test("events: no more of an endless body is read than the limit and a chunk", async () => {
  let given = 0;
  let cancelled = false;
  const body = new ReadableStream({
    pull(controller) {
      given += 1024;
      controller.enqueue(new Uint8Array(1024).fill(32));
    },
    cancel() {
      cancelled = true;
    },
  });

  const request = new Request("http://relay.example/", { method: "POST", body });
  const response = await relay(request, environment(deadAddress()));
  await response.body?.cancel();

  assert.equal(response.status, 413);
  assert.ok(given <= LIMIT + 2 * 1024, `${given} bytes were read`);
  assert.ok(cancelled);
});

Deno.test("events: a body that ends early goes no further and is no fault to log", async () => {
  using log = capturedLog();
  await using api = upstream(taken);
  const answered = Promise.withResolvers<number>();
  await using functions = serve(async (request) => {
    const response = await relay(request, environment(api.url));
    answered.resolve(response.status);
    return response;
  });

  using connection = await Deno.connect({ hostname: "127.0.0.1", port: functions.port });
  const start = `POST / HTTP/1.1\r\nHost: x\r\nContent-Length: ${json.length + 1}\r\n\r\n${json}`;
  await connection.write(new TextEncoder().encode(start));
  await connection.closeWrite();

  assert.equal(await answered.promise, 400);
  assert.equal(api.received.length, 0);
  assert.deepEqual(log.lines, []);
});

const malformed: Record<string, [string | Uint8Array, string?]> = {
  "an empty body": [""],
  "broken JSON": ["[{", "application/json"],
  "broken JSON in a text beacon": ["[{", "text/plain"],
  "broken JSON in a form": ["events=%5B%7B", FORM],
  "broken JSON in a string": ['{"events":"[{"}', "application/json"],
  "an object without events": ["{}", "application/json"],
  "a bare event": [JSON.stringify(EVENTS[0]), "application/json"],
  "events that are no array": ['{"events":{}}', "application/json"],
  "null": ["null", "application/json"],
  "a form without events": ["event=%5B%5D", FORM],
  "a form's JSON sent as text": [form, "text/plain"],
  "invalid UTF-8 in JSON": [Uint8Array.of(0x5b, 0x22, 0xff, 0x22, 0x5d), "application/json"],
  "invalid UTF-8 in text": [Uint8Array.of(0x5b, 0x22, 0xff, 0x22, 0x5d), "text/plain"],
  "invalid UTF-8 escaped in a form": ["events=%5B%22a%FFb%22%5D", FORM],
  "invalid UTF-8 raw in a form": [
    Uint8Array.of(...new TextEncoder().encode('events=["'), 0xff, 0x22, 0x5d),
    FORM,
  ],
  "a broken escape in a form": ["events=%5B%zz%5D", FORM],
};
for (const [what, [body, type]] of Object.entries(malformed)) {
  Deno.test(`events: ${what} is 400, names events and goes no further`, async () => {
    const answer = await relayed(body, type);

    assert.equal(answer.status, 400);
    assert.equal(answer.headers.get("Access-Control-Allow-Origin"), PAGE);
    assert.equal(answer.json().code, "22023");
    assert.match(answer.json().message, /^events: /);
    assert.equal(answer.received.length, 0);
  });
}

for (const type of ["multipart/form-data; boundary=x", "application/xml", "image/gif"]) {
  Deno.test(`events: ${type} is 415`, async () => {
    const answer = await relayed(json, type);

    assert.equal(answer.status, 415);
    assert.equal(answer.received.length, 0);
  });
}

const deep = (levels: number) => "[".repeat(levels) + "]".repeat(levels);
const poison: Record<string, [string, unknown]> = {
  "a NUL": [String.raw`"a\u0000b"`, "a\uFFFDb"],
  "an unpaired high surrogate": [String.raw`"a\ud83db"`, "a\uFFFDb"],
  "an unpaired low surrogate": [String.raw`"\ude00"`, "\uFFFD"],
  "a NUL deep down": [String.raw`{"a":[{"b":"\u0000"}]}`, { a: [{ b: "\uFFFD" }] }],
  "a NUL in a key": [String.raw`{"\u0000":1}`, { "\uFFFD": 1 }],
  "a number beyond numeric": ["1e999999", "Infinity"],
  "a negative number beyond numeric": ["-1e999999", "-Infinity"],
};
for (const [what, [raw, stored]] of Object.entries(poison)) {
  Deno.test(`events: ${what} is made storable, and no event moves`, async () => {
    const body = `[{"n":1},{"properties":${raw}},${raw},{"n":3}]`;

    const answer = await relayed(body, "text/plain");

    const expected = [{ n: 1 }, { properties: stored }, stored, { n: 3 }];
    assert.deepEqual(JSON.parse(answer.received[0].text).events, expected);
    assert.ok(!/\\u0000|\\ud83d|\\ude00/i.test(answer.received[0].text));
  });
}

Deno.test("events: what is nested without end is cut, and no event moves", async () => {
  const body = `[{"n":1},{"properties":${deep(30_000)}},{"n":3}]`;

  const answer = await relayed(body, "text/plain");

  assert.equal(answer.status, 200);
  const { events } = JSON.parse(answer.received[0].text);
  assert.equal(events.length, 3);
  assert.deepEqual([events[0], events[2]], [{ n: 1 }, { n: 3 }]);
  assert.ok(answer.received[0].text.length < 500);
});

Deno.test("events: good values stay what they were", async () => {
  const values = [null, true, 0, -1.5, 9007199254740991, "", "😀", [], {}, {
    a: [null, { b: "" }],
  }];
  const body = `[${JSON.stringify({ properties: values })},{"__proto__":{"x":1}}]`;

  const answer = await relayed(body, "application/json");

  assert.equal(answer.received[0].text, `{"events":${body}}`);
});
