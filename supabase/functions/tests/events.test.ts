import assert from "node:assert/strict";
import { json, PAGE, post, relayed, relayTo, SERVICE_KEY, taken } from "./relays.ts";
import { capturedLog, deadAddress, rawHead, silentAddress, upstream } from "./servers.ts";

Deno.test("events: the sender's headers are passed on, its cookies and keys are not", async () => {
  const answer = await relayed(json, "text/plain", {
    headers: {
      Referer: `${PAGE}/cart`,
      "User-Agent": "Mozilla/5.0 (Test)",
      "X-Forwarded-For": "198.51.100.7, 203.0.113.9",
      Authorization: "Bearer someone",
      apikey: "sb_secret_someones",
      Cookie: "session=1",
    },
  });

  const { headers } = answer.received[0];
  assert.equal(headers.get("Origin"), PAGE);
  assert.equal(headers.get("Referer"), `${PAGE}/cart`);
  assert.equal(headers.get("X-Widget-Agent"), "Mozilla/5.0 (Test)");
  assert.equal(headers.get("User-Agent"), "widget-analytics-events");
  assert.equal(headers.get("X-Widget-Visitor"), "198.51.100.7, 203.0.113.9");
  assert.equal(headers.get("apikey"), SERVICE_KEY);
  assert.equal(headers.get("Authorization"), `Bearer ${SERVICE_KEY}`);
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
  assert.equal(headers.get("X-Widget-Visitor"), null);
  assert.equal(headers.get("X-Widget-Agent"), null);
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
    for (const name of ["Origin", "Referer", "X-Widget-Agent", "X-Widget-Visitor"]) {
      assert.equal(headers.get(name), passed);
    }
  });
}

Deno.test("events: a secret key goes as apikey alone", async () => {
  const answer = await relayed(json, undefined, {
    settings: { SUPABASE_SECRET_KEYS: '{"default":"sb_secret_d"}' },
  });

  assert.equal(answer.received[0].headers.get("apikey"), "sb_secret_d");
  assert.equal(answer.received[0].headers.get("Authorization"), null);
});

Deno.test("events: status, body and Retry-After of a refusal come back", async () => {
  const refusal = { code: "WA429", message: "over quota", retry_after: 30 };
  const headers = { "Retry-After": "30", "X-Internal": "1" };

  const answer = await relayed(json, "text/plain", {
    reply: () => Response.json(refusal, { status: 429, headers }),
  });

  assert.equal(answer.status, 429);
  assert.equal(answer.headers.get("Retry-After"), "30");
  assert.equal(answer.headers.get("Access-Control-Expose-Headers"), "Retry-After");
  assert.equal(answer.headers.get("X-Internal"), null);
  assert.deepEqual(answer.json(), refusal);
});

const aboutTheEvents: [number, string][] = [
  [400, "22023"],
  [400, "22P05"],
  [400, "PGRST102"],
  [413, "54000"],
  [500, "57014"],
  [503, "PGRST001"],
];
for (const [status, code] of aboutTheEvents) {
  Deno.test(`events: a ${status} with ${code} comes back as it is`, async () => {
    const refusal = { code, message: "as it is" };

    const answer = await relayed(json, undefined, {
      reply: () => Response.json(refusal, { status }),
    });

    assert.equal(answer.status, status);
    assert.deepEqual(answer.json(), refusal);
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
  "a right that was lost": [
    () =>
      Response.json({ code: "42501", message: "permission denied for function track_events" }, {
        status: 403,
      }),
    502,
    /failed with 42501: .*apply_rights/,
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
    const answer = await relayed(json, undefined, { reply });

    assert.equal(answer.status, status);
    assert.equal(answer.headers.get("Access-Control-Allow-Origin"), PAGE);
    assert.match(answer.json().message, message);
    assert.match(answer.lines[0], message);
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
