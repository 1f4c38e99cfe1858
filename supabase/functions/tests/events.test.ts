import assert from "node:assert/strict";
import { relay } from "../events/handler.ts";
import { capturedLog, deadAddress, rawHead, serve, silentAddress, upstream } from "./servers.ts";

const ANON_KEY = "eyJhbGciOiJIUzI1NiJ9.eyJyb2xlIjoiYW5vbiJ9.c2lnbmF0dXJl";
const PAGE = "https://shop.example";
const EVENTS = [{ widget_id: "w", event_type: "widget_load", session_id: "s", seq: 1 }];
const TAKEN = { accepted: 1, duplicates: 0, rejected: [] };
const LIMIT = 64 * 1024;

const taken = () => Response.json(TAKEN);

function environment(supabaseUrl: string, settings: Record<string, string> = {}) {
  return new Map(Object.entries({
    SUPABASE_URL: supabaseUrl,
    SUPABASE_ANON_KEY: ANON_KEY,
    ...settings,
  }));
}

function relayTo(supabaseUrl: string, settings: Record<string, string> = {}, timeoutMs?: number) {
  const env = environment(supabaseUrl, settings);
  return serve((request) => relay(request, env, timeoutMs));
}

/** A body without a content type: `fetch` names the type of a string, not of bytes. */
function post(url: string, body: string | Uint8Array, type?: string, more: HeadersInit = {}) {
  const headers = new Headers({ Origin: PAGE, ...more });
  if (type !== undefined) headers.set("Content-Type", type);
  const bytes = typeof body === "string" ? new TextEncoder().encode(body) : body;
  return fetch(url, { method: "POST", headers, body: bytes as Uint8Array<ArrayBuffer> });
}

const json = JSON.stringify(EVENTS);
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
    await using api = upstream(taken);
    await using functions = relayTo(api.url);

    const response = await post(functions.url, body, type);

    assert.equal(response.status, 200);
    assert.equal(response.headers.get("Content-Type"), "application/json");
    assert.equal(response.headers.get("Cache-Control"), "no-store");
    assert.deepEqual(await response.json(), TAKEN);
    assert.equal(api.received.length, 1);
    assert.equal(api.received[0].method, "POST");
    assert.equal(api.received[0].path, "/rest/v1/rpc/track_events");
    assert.equal(api.received[0].headers.get("Content-Type"), "application/json");
    assert.deepEqual(JSON.parse(api.received[0].text), { events: EVENTS });
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
  await using api = upstream(taken);
  await using functions = relayTo(api.url);

  const body = 'events=[1]&events=[{"page_url":"https://shop.example/?a=b=c"}]&other=[2]';
  await (await post(functions.url, body, FORM)).body?.cancel();

  const { events } = JSON.parse(api.received[0].text);
  assert.deepEqual(events, [{ page_url: "https://shop.example/?a=b=c" }]);
});

Deno.test("events: the sender's headers are passed on, its cookies and keys are not", async () => {
  await using api = upstream(taken);
  await using functions = relayTo(api.url);

  const response = await post(functions.url, json, "text/plain", {
    Referer: `${PAGE}/cart`,
    "User-Agent": "Mozilla/5.0 (Test)",
    "X-Forwarded-For": "198.51.100.7, 203.0.113.9",
    Authorization: "Bearer someone",
    apikey: "sb_secret_someones",
    Cookie: "session=1",
  });
  await response.body?.cancel();

  const { headers } = api.received[0];
  assert.equal(headers.get("Origin"), PAGE);
  assert.equal(headers.get("Referer"), `${PAGE}/cart`);
  assert.equal(headers.get("User-Agent"), "Mozilla/5.0 (Test)");
  assert.equal(headers.get("X-Forwarded-For"), "198.51.100.7, 203.0.113.9");
  assert.equal(headers.get("apikey"), ANON_KEY);
  assert.equal(headers.get("Authorization"), `Bearer ${ANON_KEY}`);
  assert.equal(headers.get("Cookie"), null);
});

Deno.test("events: what the sender did not say is not made up", async () => {
  await using api = upstream(taken);
  await using functions = relayTo(api.url);

  await rawHead(
    functions.port,
    `POST / HTTP/1.1\r\nHost: x\r\nContent-Length: ${json.length}\r\n\r\n${json}`,
  );

  const { headers } = api.received[0];
  assert.equal(headers.get("Origin"), null);
  assert.equal(headers.get("Referer"), null);
  assert.equal(headers.get("X-Forwarded-For"), null);
  assert.equal(headers.get("User-Agent"), "");
});

const octets = (text: string) => Uint8Array.from(text, (letter) => letter.charCodeAt(0));
for (
  const [what, sent, passed] of [
    ["a byte that is no UTF-8", "caf\xe9", "caf\xc3\xa9"],
    ["half a UTF-8 letter", "x\xc3", "x\xc3\x83"],
    ["UTF-8", "caf\xc3\xa9", "caf\xc3\xa9"],
  ]
) {
  Deno.test(`events: headers with ${what} reach the database as UTF-8`, async () => {
    await using api = upstream(taken);
    await using functions = relayTo(api.url);

    const head = await rawHead(
      functions.port,
      octets(
        `POST / HTTP/1.1\r\nHost: x\r\nOrigin: ${sent}\r\nReferer: ${sent}\r\nUser-Agent: ${sent}\r\n` +
          `X-Forwarded-For: ${sent}\r\nContent-Length: ${json.length}\r\n\r\n${json}`,
      ),
    );

    assert.match(head, /^HTTP\/1.1 200 /);
    const { headers } = api.received[0];
    for (const name of ["Origin", "Referer", "User-Agent", "X-Forwarded-For"]) {
      assert.equal(headers.get(name), passed);
    }
  });
}

Deno.test("events: a publishable key goes as apikey alone", async () => {
  await using api = upstream(taken);
  await using functions = relayTo(api.url, {
    SUPABASE_PUBLISHABLE_KEYS: '{"default":"sb_publishable_d"}',
  });

  await (await post(functions.url, json)).body?.cancel();

  assert.equal(api.received[0].headers.get("apikey"), "sb_publishable_d");
  assert.equal(api.received[0].headers.get("Authorization"), null);
});

Deno.test("events: status, body and Retry-After of a refusal come back", async () => {
  const refusal = { code: "WA429", message: "over quota", retry_after: 30 };
  await using api = upstream(() =>
    Response.json(refusal, { status: 429, headers: { "Retry-After": "30", "X-Internal": "1" } })
  );
  await using functions = relayTo(api.url);

  const response = await post(functions.url, json, "text/plain");

  assert.equal(response.status, 429);
  assert.equal(response.headers.get("Retry-After"), "30");
  assert.equal(response.headers.get("Access-Control-Expose-Headers"), "Retry-After");
  assert.equal(response.headers.get("X-Internal"), null);
  assert.deepEqual(await response.json(), refusal);
});

const aboutTheEvents: [number, string][] = [
  [400, "22023"],
  [400, "22P05"],
  [400, "PGRST102"],
  [403, "42501"],
  [413, "54000"],
  [500, "57014"],
  [503, "PGRST001"],
];
for (const [status, code] of aboutTheEvents) {
  Deno.test(`events: a ${status} with ${code} comes back as it is`, async () => {
    const refusal = { code, message: "as it is" };
    await using api = upstream(() => Response.json(refusal, { status }));
    await using functions = relayTo(api.url);

    const response = await post(functions.url, json);

    assert.equal(response.status, status);
    assert.deepEqual(await response.json(), refusal);
  });
}

const notTheCallers: Record<string, [() => Response, number, RegExp]> = {
  "a refused key": [() => Response.json({}, { status: 401 }), 502, /key was refused/],
  "a missing function": [() => Response.json({}, { status: 404 }), 502, /apply the migrations/],
  "a read-only database": [
    () => Response.json({ code: "25006" }, { status: 405 }),
    502,
    /database is read-only/,
  ],
  "a missing column": [
    () => Response.json({ code: "42703" }, { status: 400 }),
    502,
    /failed with 42703: apply the migrations/,
  ],
  "a pooled connection that died": [
    () => Response.json({ code: "", details: null, hint: null, message: "" }, { status: 400 }),
    502,
    /answered 400 with no code/,
  ],
  "a standby": [
    () => Response.json({ code: "0A000", message: "not on a standby" }, { status: 400 }),
    502,
    /answered 400 with 0A000/,
  ],
  "a pooler without prepared statements": [
    () => Response.json({ code: "42P05", message: "already exists" }, { status: 400 }),
    502,
    /failed with 42P05/,
  ],
  "a 400 with no JSON": [
    () => new Response("Bad Request", { status: 400 }),
    502,
    /answered 400 with no code/,
  ],
  "a firewall's page": [
    () => new Response("<h1>Blocked</h1>", { status: 403 }),
    502,
    /answered 403 with no code/,
  ],
  "a 413 of another's": [
    () => new Response("<h1>Too large</h1>", { status: 413 }),
    502,
    /answered 413 with no code/,
  ],
  "JSON that does not say what was accepted": [
    () => Response.json({ ok: true }),
    502,
    /answered 200 with no code/,
  ],
  "a page instead of JSON": [
    () => new Response("<h1>Hello</h1>"),
    502,
    /answered 200 with no code/,
  ],
  "a redirect": [() => Response.redirect("http://127.0.0.1:1/"), 502, /answered 302/],
  "an error page": [() => new Response("<h1>Busy</h1>", { status: 503 }), 503, /answered 503/],
};
for (const [what, [reply, status, message]] of Object.entries(notTheCallers)) {
  Deno.test(`events: ${what} answers ${status}, so that the tracker keeps its events`, async () => {
    using log = capturedLog();
    await using api = upstream(reply);
    await using functions = relayTo(api.url);

    const response = await post(functions.url, json);

    assert.equal(response.status, status);
    assert.equal(response.headers.get("Access-Control-Allow-Origin"), PAGE);
    assert.match((await response.json()).message, message);
    assert.match(log.lines[0], message);
  });
}

Deno.test("events: an unreachable API answers 502, a silent one 504, a missing one 503", async () => {
  using _log = capturedLog();
  using api = silentAddress();
  await using unreachable = relayTo(deadAddress());
  await using silent = relayTo(api.url, {}, 100);
  await using unset = relayTo("");

  const responses = [];
  for (const { url } of [unreachable, silent, unset]) responses.push(await post(url, json));

  assert.deepEqual(responses.map(({ status }) => status), [502, 504, 503]);
  for (const response of responses) {
    assert.equal(response.headers.get("Access-Control-Allow-Origin"), PAGE);
    assert.equal(typeof (await response.json()).message, "string");
  }
});

Deno.test("events: any page may read the answer, with credentials as a beacon sends them", async () => {
  await using api = upstream(taken);
  await using functions = relayTo(api.url);

  const fromPage = await post(functions.url, json, "text/plain");
  const sandboxed = await post(functions.url, json, "text/plain", { Origin: "null" });
  const server = await fetch(functions.url, { method: "POST", body: json });
  for (const response of [fromPage, sandboxed, server]) await response.body?.cancel();

  assert.equal(fromPage.headers.get("Access-Control-Allow-Origin"), PAGE);
  assert.equal(fromPage.headers.get("Access-Control-Allow-Credentials"), "true");
  assert.match(fromPage.headers.get("Vary") ?? "", /Origin/);
  assert.equal(sandboxed.headers.get("Access-Control-Allow-Origin"), "null");
  assert.equal(server.headers.get("Access-Control-Allow-Origin"), "*");
  assert.equal(server.headers.get("Access-Control-Allow-Credentials"), null);
});

Deno.test("events: a preflight is answered here, and for a day", async () => {
  await using api = upstream(taken);
  await using functions = relayTo(api.url);

  const response = await fetch(functions.url, {
    method: "OPTIONS",
    headers: {
      Origin: PAGE,
      "Access-Control-Request-Method": "POST",
      "Access-Control-Request-Headers": "content-type,apikey",
    },
  });

  assert.equal(response.status, 204);
  assert.equal(await response.text(), "");
  assert.equal(response.headers.get("Access-Control-Allow-Origin"), PAGE);
  assert.equal(response.headers.get("Access-Control-Allow-Credentials"), "true");
  assert.match(response.headers.get("Access-Control-Allow-Methods") ?? "", /\bPOST\b/);
  assert.equal(response.headers.get("Access-Control-Allow-Headers"), "content-type,apikey");
  assert.equal(response.headers.get("Access-Control-Max-Age"), "86400");
  assert.equal(api.received.length, 0);
});

for (const method of ["GET", "HEAD", "PUT", "PATCH", "DELETE"]) {
  Deno.test(`events: ${method} is not allowed`, async () => {
    await using api = upstream(taken);
    await using functions = relayTo(api.url);

    const response = await fetch(functions.url, { method, headers: { Origin: PAGE } });
    await response.body?.cancel();

    assert.equal(response.status, 405);
    assert.equal(response.headers.get("Allow"), "POST, OPTIONS");
    assert.equal(response.headers.get("Access-Control-Allow-Origin"), PAGE);
    assert.equal(api.received.length, 0);
  });
}

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
    await using api = upstream(taken);
    await using functions = relayTo(api.url);

    const response = await post(functions.url, body, type);

    assert.equal(response.status, 400);
    assert.equal(response.headers.get("Access-Control-Allow-Origin"), PAGE);
    const answer = await response.json();
    assert.equal(answer.code, "22023");
    assert.match(answer.message, /^events: /);
    assert.equal(api.received.length, 0);
  });
}

for (const type of ["multipart/form-data; boundary=x", "application/xml", "image/gif"]) {
  Deno.test(`events: ${type} is 415`, async () => {
    await using api = upstream(taken);
    await using functions = relayTo(api.url);

    const response = await post(functions.url, json, type);
    await response.body?.cancel();

    assert.equal(response.status, 415);
    assert.equal(api.received.length, 0);
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
    await using api = upstream(taken);
    await using functions = relayTo(api.url);

    const body = `[{"n":1},{"properties":${raw}},${raw},{"n":3}]`;
    await (await post(functions.url, body, "text/plain")).body?.cancel();

    const expected = [{ n: 1 }, { properties: stored }, stored, { n: 3 }];
    assert.deepEqual(JSON.parse(api.received[0].text).events, expected);
    assert.ok(!/\\u0000|\\ud83d|\\ude00/i.test(api.received[0].text));
  });
}

Deno.test("events: what is nested without end is cut, and no event moves", async () => {
  await using api = upstream(taken);
  await using functions = relayTo(api.url);

  const body = `[{"n":1},{"properties":${deep(30_000)}},{"n":3}]`;
  const response = await post(functions.url, body, "text/plain");
  await response.body?.cancel();

  assert.equal(response.status, 200);
  const { events } = JSON.parse(api.received[0].text);
  assert.equal(events.length, 3);
  assert.deepEqual([events[0], events[2]], [{ n: 1 }, { n: 3 }]);
  assert.ok(api.received[0].text.length < 500);
});

Deno.test("events: good values stay what they were", async () => {
  await using api = upstream(taken);
  await using functions = relayTo(api.url);
  const values = [null, true, 0, -1.5, 9007199254740991, "", "😀", [], {}, {
    a: [null, { b: "" }],
  }];
  const body = `[${JSON.stringify({ properties: values })},{"__proto__":{"x":1}}]`;

  await (await post(functions.url, body, "application/json")).body?.cancel();

  assert.equal(api.received[0].text, `{"events":${body}}`);
});
