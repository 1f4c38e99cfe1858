import assert from "node:assert/strict";
import { cleanup } from "../cleanup/handler.ts";
import {
  capturedLog,
  deadAddress,
  exchange,
  rawHead,
  serve,
  silentAddress,
  upstream,
} from "./servers.ts";

const SECRET = "correct horse battery staple";
const LEGACY_KEY = "eyJhbGciOiJIUzI1NiJ9.eyJyb2xlIjoic2VydmljZV9yb2xlIn0.c2lnbmF0dXJl";
const COUNTS = { calls_checked: 3, calls_completed: 2, calls_still_active: 1 };

type Settings = Record<string, string>;

function door(supabaseUrl: string, settings: Settings = {}, timeoutMs?: number) {
  const env = new Map(Object.entries({
    SUPABASE_URL: supabaseUrl,
    SUPABASE_SERVICE_ROLE_KEY: LEGACY_KEY,
    CRON_SECRET: SECRET,
    ...settings,
  }));
  return serve((request) => cleanup(request, env, timeoutMs));
}

function bearer(token: string) {
  return { headers: { Authorization: `Bearer ${token}` } };
}

const counts = () => Response.json([COUNTS]);

/** One request, with the secret if not told otherwise, while the API answers like that. */
function run(
  { reply = counts, settings = {}, timeoutMs, path = "", ...init }: RequestInit & {
    reply?: () => Response | Promise<Response>;
    settings?: Settings;
    timeoutMs?: number;
    path?: string;
  } = {},
) {
  return exchange(
    reply,
    (api) => door(api, settings, timeoutMs),
    (url) => fetch(url + path, { ...bearer(SECRET), ...init }),
  );
}

for (const method of ["GET", "POST"]) {
  Deno.test(`cleanup: ${method} with the secret runs the job and answers its counts`, async () => {
    const answer = await run({ method });

    assert.equal(answer.status, 200);
    assert.equal(answer.headers.get("Content-Type"), "application/json");
    assert.equal(answer.headers.get("Cache-Control"), "no-store");
    assert.deepEqual(answer.json(), COUNTS);
    assert.equal(answer.received.length, 1);
    assert.equal(answer.received[0].method, "POST");
    assert.equal(answer.received[0].path, "/rest/v1/rpc/complete_stale_sessions");
    assert.equal(answer.received[0].text, "{}");
    assert.match(answer.lines.join(), /"calls_completed":2/);
  });
}

Deno.test("cleanup: an answer that is one object, or holds more, gives the same counts", async () => {
  using _log = capturedLog();
  await using api = upstream(() => Response.json({ ...COUNTS, id: 7 }));
  await using functions = door(`${api.url}/`);

  const response = await fetch(functions.url, bearer(SECRET));

  assert.deepEqual(await response.json(), COUNTS);
  assert.equal(api.received[0].path, "/rest/v1/rpc/complete_stale_sessions");
});

/** Answers one row after another, and the last one for ever. */
function rows(...all: Record<string, number>[]) {
  return () => Response.json([all.length > 1 ? all.shift() : all[0]]);
}

Deno.test("cleanup: runs follow each other until no calls are left, and their counts are added up", async () => {
  const reply = rows(
    { calls_checked: 500, calls_completed: 490, calls_still_active: 10, calls_left: 700 },
    { calls_checked: 500, calls_completed: 500, calls_still_active: 0, calls_left: 200 },
    { calls_checked: 200, calls_completed: 199, calls_still_active: 1, calls_left: 0 },
  );

  const answer = await run({ reply });

  assert.deepEqual(answer.json(), {
    calls_checked: 1200,
    calls_completed: 1189,
    calls_still_active: 11,
    calls_left: 0,
  });
  assert.equal(answer.received.length, 3);
  assert.equal(answer.lines.length, 3);
});

Deno.test("cleanup: while another one is at work it does not ask for ever", async () => {
  const none = { calls_checked: 0, calls_completed: 0, calls_still_active: 0, calls_left: 700 };

  const answer = await run({ reply: rows(none) });

  assert.deepEqual(answer.json(), none);
  assert.equal(answer.received.length, 2);
});

Deno.test("cleanup: no run starts in the second half of the time, and the answer says how many calls are left", async () => {
  let left = 1000;
  const reply = async () => {
    await new Promise((resolve) => setTimeout(resolve, 300));
    return Response.json([{ ...COUNTS, calls_left: --left }]);
  };

  const { status, json, received } = await run({ reply, timeoutMs: 1000 });

  assert.equal(status, 200);
  const { calls_checked, calls_left } = json();
  assert.ok(received.length < 4, `${received.length} runs`);
  assert.equal(calls_left, left);
  assert.equal(calls_checked, COUNTS.calls_checked * received.length);
});

Deno.test("cleanup: a run that fails after others answers as a failed one, and the log has what was done", async () => {
  const replies = [
    () => Response.json([{ ...COUNTS, calls_left: 10 }]),
    () => Response.json({ code: "57014", message: "statement timeout" }, { status: 500 }),
  ];

  const { status, json, lines } = await run({ reply: () => replies.shift()!() });

  assert.equal(status, 502);
  assert.match(json().message, /statement timeout/);
  assert.match(lines[0], /"calls_completed":2/);
});

Deno.test("cleanup: stale_after is not the caller's to choose", async () => {
  const body = JSON.stringify({ stale_after: "1 second" });

  const { status, received } = await run({ method: "POST", path: "/?stale_after=1s", body });

  assert.equal(status, 200);
  assert.equal(received[0].path, "/rest/v1/rpc/complete_stale_sessions");
  assert.equal(received[0].text, "{}");
});

for (const method of ["HEAD", "OPTIONS", "PUT", "PATCH", "DELETE"]) {
  Deno.test(`cleanup: ${method} is not allowed, even with the secret`, async () => {
    const { status, headers, received } = await run({ method });

    assert.equal(status, 405);
    assert.equal(headers.get("Allow"), "GET, POST");
    assert.equal(received.length, 0);
  });
}

const refused: Record<string, Settings> = {
  "no credentials": {},
  "an empty token": { Authorization: "Bearer " },
  "another secret of the same length": { Authorization: `Bearer ${SECRET.slice(0, -1)}X` },
  "the secret's beginning": { Authorization: `Bearer ${SECRET.slice(0, -1)}` },
  "more than the secret": { Authorization: `Bearer ${SECRET}X` },
  "the secret in capitals": { Authorization: `Bearer ${SECRET.toUpperCase()}` },
  "the secret without a scheme": { Authorization: SECRET },
  "the secret under another scheme": { Authorization: `Basic ${SECRET}` },
  "the service key": { Authorization: `Bearer ${LEGACY_KEY}`, apikey: LEGACY_KEY },
};
for (const [what, sent] of Object.entries(refused)) {
  Deno.test(`cleanup: ${what} is refused`, async () => {
    // A configured secret counts, whatever the switch for internal networks says.
    const settings = { CLEANUP_ALLOW_UNAUTHENTICATED: "true" };

    const answer = await run({ settings, method: "POST", headers: sent });

    assert.equal(answer.status, 401);
    assert.equal(answer.headers.get("WWW-Authenticate"), "Bearer");
    assert.equal(answer.json().code, "unauthorized");
    assert.ok(!answer.text.includes(SECRET));
    assert.equal(answer.received.length, 0);
  });
}

Deno.test("cleanup: the scheme's case does not matter", async () => {
  const { status } = await run({ headers: { Authorization: `bEARER ${SECRET}` } });

  assert.equal(status, 200);
});

Deno.test("cleanup: a secret may hold any letters, and a line end in its variable is not its own", async () => {
  using _log = capturedLog();
  await using api = upstream(counts);
  await using functions = door(api.url, { CRON_SECRET: "Schlüssel-鍵\n" });

  const head = await rawHead(
    functions.port,
    "GET / HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer Schlüssel-鍵\r\nConnection: close\r\n\r\n",
  );

  assert.match(head, /^HTTP\/1.1 200 /);
});

for (const secret of ["", "  "]) {
  for (const flag of ["", "false", "TRUE", "1"]) {
    for (
      const [who, headers] of [["nobody", {}], ["an empty token", {
        Authorization: "Bearer ",
      }]] as const
    ) {
      Deno.test(`cleanup: secret "${secret}" and switch "${flag}" refuse ${who}`, async () => {
        const settings = { CRON_SECRET: secret, CLEANUP_ALLOW_UNAUTHENTICATED: flag };

        const { status, json, lines, received } = await run({ settings, headers });

        assert.equal(status, 503);
        assert.match(json().message, /Set CRON_SECRET/);
        assert.match(lines[0], /Set CRON_SECRET/);
        assert.equal(received.length, 0);
      });
    }
  }
}

Deno.test("cleanup: without a secret, the switch for internal networks opens the door", async () => {
  const settings = { CRON_SECRET: "", CLEANUP_ALLOW_UNAUTHENTICATED: "true" };

  const { json } = await run({ settings, headers: {} });

  assert.deepEqual(json(), COUNTS);
});

const keys: Record<string, [Settings, string, string?]> = {
  "a legacy key goes as apikey and bearer token": [{}, LEGACY_KEY, `Bearer ${LEGACY_KEY}`],
  "the default of the new keys goes as apikey alone": [
    { SUPABASE_SECRET_KEYS: '{"other":"sb_secret_o","default":"sb_secret_d"}' },
    "sb_secret_d",
  ],
  "a new key of another name will do": [
    { SUPABASE_SECRET_KEYS: '{"other":"sb_secret_o"}' },
    "sb_secret_o",
  ],
  "a new key may stand in the legacy variable": [
    { SUPABASE_SECRET_KEYS: "{}", SUPABASE_SERVICE_ROLE_KEY: "sb_secret_s" },
    "sb_secret_s",
  ],
};
for (const [what, [settings, key, token]] of Object.entries(keys)) {
  Deno.test(`cleanup: ${what}`, async () => {
    const { received } = await run({ settings });

    assert.equal(received[0].headers.get("apikey"), key);
    assert.equal(received[0].headers.get("Authorization"), token ?? null);
  });
}

const incomplete: Record<string, [Settings, RegExp]> = {
  "no address": [{ SUPABASE_URL: "" }, /SUPABASE_URL/],
  "an address that is none": [{ SUPABASE_URL: "localhost:54321" }, /SUPABASE_URL/],
  "no key": [{ SUPABASE_SERVICE_ROLE_KEY: "" }, /SUPABASE_SERVICE_ROLE_KEY/],
  "a broken dictionary and no key": [
    { SUPABASE_SERVICE_ROLE_KEY: "", SUPABASE_SECRET_KEYS: "sb_secret_not_in_a_dictionary" },
    /SUPABASE_SECRET_KEYS/,
  ],
};
for (const [what, [settings, names]] of Object.entries(incomplete)) {
  Deno.test(`cleanup: ${what} answers 503 and names what to set`, async () => {
    const { status, json, lines, received } = await run({ settings });

    assert.equal(status, 503);
    assert.match(json().message, names);
    assert.match(lines[0], names);
    assert.equal(received.length, 0);
  });
}

Deno.test("cleanup: a run that failed partly answers 500 with its message and counts", async () => {
  const message = "2 calls could not be completed";

  const { status, headers, json, lines } = await run({
    reply: () => Response.json([{ ...COUNTS, message }], { status: 500 }),
  });

  assert.equal(status, 500);
  assert.equal(headers.get("Cache-Control"), "no-store");
  assert.deepEqual(json(), { code: "run_failed", message, ...COUNTS });
  assert.match(lines[0], /2 calls could not be completed/);
});

const failures: Record<string, [() => Response, RegExp]> = {
  "a refused key": [
    () => Response.json({ message: "Invalid API key" }, { status: 401 }),
    /key was refused.*Invalid API key/,
  ],
  "a missing function": [
    () => Response.json({ code: "PGRST202", message: "Could not find" }, { status: 404 }),
    /apply the migrations/,
  ],
  "a failing database": [
    () => Response.json({ code: "57014", message: "statement timeout" }, { status: 500 }),
    /answered 500.*statement timeout/,
  ],
  "a page instead of JSON": [
    () => new Response("<h1>Bad gateway</h1>", { status: 502 }),
    /complete_stale_sessions answered 502/,
  ],
  "a success without counts": [() => Response.json([]), /without counts/],
  "counts that are no numbers": [
    () => Response.json({ ...COUNTS, calls_checked: "3" }),
    /without counts/,
  ],
  "a redirect": [() => Response.redirect("http://127.0.0.1:1/elsewhere"), /answered 302/],
  "an answer that echoes the key": [
    () => Response.json({ message: `no such key: ${LEGACY_KEY}` }, { status: 400 }),
    /no such key: …/,
  ],
};
for (const [what, [reply, message]] of Object.entries(failures)) {
  Deno.test(`cleanup: ${what} answers 502, says so and keeps the key`, async () => {
    const { status, json, text, lines } = await run({ reply });

    assert.equal(status, 502);
    assert.match(json().message, message);
    assert.ok(!(text + lines.join()).includes(LEGACY_KEY));
  });
}

Deno.test("cleanup: an unreachable API answers 502", async () => {
  using log = capturedLog();
  await using functions = door(deadAddress());

  const response = await fetch(functions.url, bearer(SECRET));
  const body = await response.text();

  assert.equal(response.status, 502);
  assert.match(JSON.parse(body).message, /complete_stale_sessions could not be reached/);
  assert.match(log.lines[0], /refused/i);
  assert.ok(!(body + log.lines.join()).includes(LEGACY_KEY));
});

Deno.test("cleanup: an API that does not answer in time answers 504", async () => {
  using _log = capturedLog();
  using api = silentAddress();
  await using functions = door(api.url, {}, 100);

  const response = await fetch(functions.url, bearer(SECRET));

  assert.equal(response.status, 504);
  assert.match((await response.json()).message, /complete_stale_sessions did not answer within/);
});
