import assert from "node:assert/strict";
import { deliver, door, ENDED, RECORD, SECRETS, SIGNERS, variable } from "./provider_senders.ts";
import { capturedLog, deadAddress, exchange, silentAddress, upstream } from "./servers.ts";

const NAMES = Object.keys(ENDED);
const taken = () => Response.json({ matched: true });

/** What the answer says, read to its end. */
async function answerTo(sent: Promise<Response>) {
  const response = await sent;
  return { status: response.status, body: await response.json() };
}

/** A provider's payload with some of it changed, by path. */
function changed(name: string, changes: Record<string, unknown>): string {
  const payload = JSON.parse(ENDED[name]);
  for (const [path, value] of Object.entries(changes)) {
    const keys = path.split(".");
    const last = keys.pop()!;
    const inner = keys.reduce((object, key) => object[key] ??= {}, payload);
    if (value === undefined) delete inner[last];
    else inner[last] = value;
  }
  return JSON.stringify(payload);
}

/** One delivery, while the API answers like that; `changes` are of the function's environment. */
function delivered(
  name: string,
  body: string,
  { reply = taken, changes = {}, ...sent }: Parameters<typeof deliver>[3] & {
    reply?: () => Response;
    changes?: Record<string, string>;
  } = {},
) {
  return exchange(reply, (api) => door(api, changes), (url) => deliver(url, name, body, sent));
}

/** What one delivery makes the function store, or why it stores nothing. */
async function recordOf(name: string, body: string, query = "") {
  const { status, received, json } = await delivered(name, body, { query });
  assert.equal(status, 200);
  return received.length ? JSON.parse(received[0].text) : json();
}

for (const name of NAMES) {
  Deno.test(`providers: ${name}: a signed end of a call is recorded`, async () => {
    const answer = await delivered(name, ENDED[name]);

    assert.equal(answer.status, 200);
    assert.deepEqual(answer.json(), { recorded: true });
    assert.equal(answer.received[0].path, "/rest/v1/rpc/record_widget_provider_call");
    const record = JSON.parse(answer.received[0].text);
    assert.deepEqual({ ...record, ...RECORD, provider: name }, record);
    assert.ok(record.record_id && record.call_id);
    assert.ok(!answer.received[0].text.includes("private"));
    assert.deepEqual(answer.lines, []);
  });

  Deno.test(`providers: ${name}: forged, unsigned and cut deliveries are 401 and store nothing`, async () => {
    using log = capturedLog();
    await using api = upstream(taken);
    await using functions = door(api.url);
    const body = ENDED[name];
    const wrong = name === "livekit" ? "abcdefg:wrong" : "d3Jvbmc=";

    const statuses = [
      await deliver(functions.url, name, body, { secret: wrong }),
      await deliver(functions.url, name, body, { sent: body.slice(0, -1) }),
      await deliver(functions.url, name, body, {
        sent: body.replace("10:02", "11:02").concat("&a=1"),
      }),
      await fetch(`${functions.url}/providers/${name}`, { method: "POST", body }),
    ].map((response) => (response.body?.cancel(), response.status));

    assert.deepEqual(statuses, [401, 401, 401, 401]);
    assert.equal(api.received.length, 0);
    assert.ok(
      log.lines.every((line) => line.includes(variable(name)) && !line.includes("private")),
    );
  });

  Deno.test(`providers: ${name}: without a secret everything is refused, signed with nothing too`, async () => {
    const empty = name === "livekit" ? "abcdefg:x" : "";

    const answer = await delivered(name, ENDED[name], {
      changes: { [variable(name)]: "  " },
      secret: empty,
    });

    assert.equal(answer.status, 401);
    assert.equal(answer.received.length, 0);
    assert.match(answer.lines.join(), new RegExp(`set ${variable(name)}`));
  });

  Deno.test(`providers: ${name}: while a secret is replaced, both count`, async () => {
    await using api = upstream(taken);
    const next = name === "livekit" ? "next:secret" : "bmV4dC1zZWNyZXQ=";
    await using functions = door(api.url, { [variable(name)]: `${SECRETS[name]} ${next}` });

    const before = await answerTo(deliver(functions.url, name, ENDED[name]));
    const after = await answerTo(deliver(functions.url, name, ENDED[name], { secret: next }));

    assert.deepEqual([before.status, after.status], [200, 200]);
  });

  if (name !== "twilio") {
    Deno.test(`providers: ${name}: a replay of yesterday's delivery is 401`, async () => {
      const yesterday = Date.now() - 86_400_000;

      const answer = await delivered(name, ENDED[name], { at: yesterday });

      assert.equal(answer.status, 401);
      assert.equal(answer.received.length, 0);
    });
  }

  Deno.test(`providers: ${name}: a signed payload of anything at all is 200`, async () => {
    for (
      const body of ["", "private {", "null", "[]", '"private"', '{"event":5}', '{"message":null}']
    ) {
      const answer = await delivered(name, body);
      assert.deepEqual([answer.status, answer.json().recorded], [200, false], body);
      assert.equal(answer.received.length, 0);
      assert.ok(!answer.lines.join().includes("private"));
    }
  });
}

/** The paths of all values of a payload. */
function leaves(value: unknown, path: string[] = []): string[] {
  if (typeof value !== "object" || value === null) return [path.join(".")];
  return Object.entries(value).flatMap(([key, inner]) => leaves(inner, [...path, key]));
}

const junk = [null, true, -1, 1e300, "", "x", "1e300", "9".repeat(400), [], {}, ["x"]];
for (const name of NAMES) {
  Deno.test(`providers: ${name}: junk in any field is 200, as it would be junk the next time`, async () => {
    using log = capturedLog();
    await using api = upstream(taken);
    await using functions = door(api.url);
    const form = name === "twilio" ? new URLSearchParams(ENDED.twilio) : null;
    const fields = form ? [...form.keys()] : leaves(JSON.parse(ENDED[name]));

    for (const field of fields) {
      for (const value of junk) {
        const changes = { [field]: value };
        const body = form
          ? new URLSearchParams({ ...Object.fromEntries(form), [field]: String(value) }).toString()
          : changed(name, changes);
        const { status } = await answerTo(deliver(functions.url, name, body));
        assert.equal(status, 200, JSON.stringify(changes));
      }
    }

    assert.ok(api.received.every(({ text }) => !text.includes("private")));
    assert.ok(!log.lines.join().includes("private"));
  });
}

const otherEvents: Record<string, [string, string][]> = {
  vapi: [
    ["another event", changed("vapi", { "message.type": "status-update" })],
    ["a telephone call", changed("vapi", { "message.call.type": "inboundPhoneCall" })],
  ],
  retell: [
    ["another event", changed("retell", { event: "call_started" })],
    ["a telephone call", changed("retell", { "call.call_type": "phone_call" })],
  ],
  elevenlabs: [
    ["another event", changed("elevenlabs", { type: "post_call_audio" })],
    [
      "a telephone call",
      changed("elevenlabs", { "data.metadata.phone_call": { direction: "inbound" } }),
    ],
  ],
  livekit: [
    ["another event", changed("livekit", { event: "track_published" })],
    ["the agent's leg", changed("livekit", { "participant.kind": "AGENT" })],
    ["a telephone's leg", changed("livekit", { "participant.kind": "SIP" })],
    ["a hidden leg", changed("livekit", { "participant.permission": { hidden: true } })],
    ["the staff's leg", changed("livekit", { "participant.attributes": { widget_role: "staff" } })],
  ],
  twilio: [
    ["another event", ENDED.twilio.replace("=completed", "=ringing")],
    ["the other leg", `${ENDED.twilio}&ParentCallSid=CA2`],
    ["a telephone call", ENDED.twilio.replace("client%3Avisitor", "%2B15550100")],
  ],
  daily: [
    ["another event", changed("daily", { type: "participant.joined" })],
    ["the agent's leg", changed("daily", { "payload.owner": true })],
    ["the staff's leg", changed("daily", { "payload.user_id": "staff" })],
    ["a hidden leg", changed("daily", { "payload.permissions": { hasPresence: false } })],
  ],
  ultravox: [
    ["another event", changed("ultravox", { event: "call.billed" })],
    ["a telephone call", changed("ultravox", { "call.medium": { twilio: {} } })],
  ],
};
for (const [name, bodies] of Object.entries(otherEvents)) {
  for (const [what, body] of bodies) {
    Deno.test(`providers: ${name}: ${what} is 200, and no record`, async () => {
      const answer = await delivered(name, body);

      assert.deepEqual([answer.status, answer.json().recorded], [200, false]);
      assert.equal(answer.received.length, 0);
      assert.deepEqual(answer.lines, []);
    });
  }
}

const ours = { widget_id: "w", session_id: "s", call_id: "c" };
const carriers: [string, string, string?][] = [
  ["vapi", changed("vapi", { "message.call.assistantOverrides": { metadata: ours } })],
  ["vapi", changed("vapi", { "message.call.assistantOverrides": { variableValues: ours } })],
  ["vapi", changed("vapi", { "message.assistant": { metadata: ours } })],
  ["vapi", changed("vapi", { "message.artifact.variableValues": ours })],
  ["retell", changed("retell", { "call.metadata": ours })],
  [
    "elevenlabs",
    changed("elevenlabs", {
      "data.conversation_initiation_client_data": { dynamic_variables: ours },
    }),
  ],
  ["livekit", changed("livekit", { "participant.attributes": ours })],
  ["livekit", changed("livekit", { "participant.metadata": JSON.stringify(ours) })],
  ["livekit", changed("livekit", { "room.metadata": JSON.stringify(ours) })],
  ["twilio", ENDED.twilio, "?widget_id=w&session_id=s&call_id=c"],
  ["ultravox", changed("ultravox", { "call.metadata": ours })],
];
for (const [name, body, query] of carriers) {
  Deno.test(`providers: ${name}: our ids ride along in ${query ?? body.slice(0, 40)}…`, async () => {
    const record = await recordOf(name, body, query);

    const { widget_id, session_id, widget_call_id } = record;
    assert.deepEqual({ widget_id, session_id, call_id: widget_call_id }, ours);
  });
}

Deno.test("providers: daily: the token's user is the session", async () => {
  assert.equal((await recordOf("daily", ENDED.daily)).session_id, "session-1");
});

Deno.test("providers: a leg is named by itself, its call by the room's instance", async () => {
  const livekit = await recordOf("livekit", ENDED.livekit);
  const daily = await recordOf("daily", ENDED.daily);

  assert.deepEqual([livekit.record_id, livekit.call_id], ["PA_1", "RM_1"]);
  assert.deepEqual([daily.record_id, daily.call_id], ["leg-1", "call-1"]);
});

const failures: [string, string][] = [
  [
    "vapi",
    changed("vapi", { "message.endedReason": "customer-did-not-give-microphone-permission" }),
  ],
  ["vapi", changed("vapi", { "message.endedReason": "call.start.error-get-assistant" })],
  ["vapi", changed("vapi", { "message.startedAt": undefined })],
  ["retell", changed("retell", { "call.start_timestamp": undefined })],
  [
    "elevenlabs",
    changed("elevenlabs", {
      "data.status": "failed",
      "data.metadata.call_duration_secs": 0,
    }),
  ],
  ["livekit", changed("livekit", { event: "participant_connection_aborted" })],
  ["twilio", ENDED.twilio.replace("=completed", "=no-answer")],
  ["ultravox", changed("ultravox", { "call.joined": null, "call.endReason": "unjoined" })],
];
for (const [name, body] of failures) {
  Deno.test(`providers: ${name}: a call that never came about has failed`, async () => {
    assert.equal((await recordOf(name, body)).outcome, "failed");
  });
}

for (
  const [name, body] of [
    ["vapi", changed("vapi", { "message.call.id": undefined })],
    ["daily", changed("daily", { "payload.session_id": " " })],
  ]
) {
  Deno.test(`providers: ${name}: a call without an id is 200, logged and no record`, async () => {
    const answer = await delivered(name, body);

    assert.deepEqual([answer.status, answer.json().recorded], [200, false]);
    assert.equal(answer.received.length, 0);
    assert.match(answer.lines.join(), /not recorded: a call has no id/);
  });
}

Deno.test("providers: costs are in money where the provider names money", async () => {
  const costs = await Promise.all(
    ["vapi", "retell", "elevenlabs", "ultravox"].map(async (name) => {
      const { cost, cost_currency } = await recordOf(name, ENDED[name]);
      return [cost, cost_currency];
    }),
  );

  assert.deepEqual(costs, [[0.0871, "USD"], [0.0871, "USD"], [320, "credits"], [
    undefined,
    undefined,
  ]]);
});

Deno.test("providers: times to the fraction that the provider gives", async () => {
  const vapi = await recordOf(
    "vapi",
    changed("vapi", { "message.startedAt": "2026-11-20T10:00:00.123Z" }),
  );
  const daily = await recordOf(
    "daily",
    changed("daily", { "payload.joined_at": 1795168800.25, "payload.duration": 60.5 }),
  );

  assert.equal(vapi.started_at, "2026-11-20T10:00:00.123Z");
  assert.deepEqual(
    [daily.started_at, daily.ended_at],
    ["2026-11-20T10:00:00.250Z", "2026-11-20T10:01:00.750Z"],
  );
});

Deno.test("providers: text that Postgres cannot hold is mended, and cut to what it takes", async () => {
  const reason = "a\0b\ud83d" + "x".repeat(300);
  const record = await recordOf("vapi", changed("vapi", { "message.endedReason": reason }));

  assert.ok(record.reason.startsWith("a\uFFFDb\uFFFDxx"));
  assert.equal(record.reason.length, 255);
});

Deno.test("providers: elevenlabs: OpenTelemetry tells of the pull, and is 200", async () => {
  const body = JSON.stringify({
    type: "post_call_transcription_otel",
    data: { conversation_id: "conv_1", agent_id: "a", otlp_traces: { resourceSpans: ["private"] } },
  });

  const answer = await delivered("elevenlabs", body);

  assert.deepEqual([answer.status, answer.json().recorded], [200, false]);
  assert.equal(answer.received.length, 0);
  assert.match(answer.lines.join(), /conv_1 .*providers pull elevenlabs/);
  assert.ok(!answer.lines.join().includes("private"));
});

Deno.test("providers: daily: its test is 200, unsigned and without a secret", async () => {
  await using api = upstream(taken);
  await using functions = door(api.url, { DAILY_WEBHOOK_SECRET: "" });

  const body = '{"test":"test"}';
  const answer = await answerTo(
    fetch(`${functions.url}/providers/daily`, { method: "POST", body }),
  );

  assert.deepEqual([answer.status, answer.body.recorded], [200, false]);
  assert.equal(api.received.length, 0);
});

Deno.test("providers: a body that is too large is 200, unread and unrecorded", async () => {
  const body = changed("vapi", { "message.artifact.transcript": "private ".repeat(600_000) });

  const answer = await delivered("vapi", body);

  assert.deepEqual([answer.status, answer.json().recorded], [200, false]);
  assert.equal(answer.received.length, 0);
  assert.match(answer.lines.join(), /vapi: not recorded: a body has over/);
  assert.ok(!answer.lines.join().includes("private"));
});

Deno.test("providers: what the database refuses for good is 200, and the log names the field", async () => {
  const answer = await delivered("vapi", ENDED.vapi, {
    reply: () => Response.json({ code: "22023", message: "ended_at: private" }, { status: 400 }),
  });

  assert.deepEqual([answer.status, answer.json().recorded], [200, false]);
  assert.match(answer.lines.join(), /vapi: not recorded: record call-1 is refused for ended_at/);
  assert.ok(!answer.lines.join().includes("private"));
});

const outages: Record<string, () => Response> = {
  "a dead connection": () => Response.json({ code: "", message: "" }, { status: 400 }),
  "a standby": () => Response.json({ code: "25006", message: "read-only" }, { status: 405 }),
  "no database": () => Response.json({ code: "PGRST001", message: "no" }, { status: 503 }),
  "a wrong key": () => Response.json({ message: "Invalid API key" }, { status: 401 }),
  "no migrations": () => Response.json({ code: "PGRST202", message: "none" }, { status: 404 }),
};
for (const [what, reply] of Object.entries(outages)) {
  Deno.test(`providers: ${what} is 503, so that the provider tries again`, async () => {
    const answer = await delivered("vapi", ENDED.vapi, { reply });

    assert.deepEqual([answer.status, answer.json().code], [503, "database_unavailable"]);
    assert.equal(answer.lines.length, 1);
    assert.ok(!answer.lines[0].includes("private"));
  });
}

Deno.test("providers: an API that is gone or silent is 503", async () => {
  using _log = capturedLog();
  using silent = silentAddress();
  await using gone = door(deadAddress());
  await using waiting = door(silent.url, {}, 200);

  const answers = [
    await answerTo(deliver(gone.url, "vapi", ENDED.vapi)),
    await answerTo(deliver(waiting.url, "vapi", ENDED.vapi)),
  ];

  assert.deepEqual(answers.map(({ status }) => status), [503, 503]);
});

Deno.test("providers: other methods are 405, other providers 404", async () => {
  await using functions = door(deadAddress());

  const get = await fetch(`${functions.url}/providers/vapi`);
  const unknown = await fetch(`${functions.url}/providers/constructor`, {
    method: "POST",
    body: "{}",
  });
  const none = await fetch(`${functions.url}/providers`, { method: "POST", body: "{}" });
  await Promise.all([get, unknown, none].map((response) => response.body?.cancel()));

  assert.deepEqual([get.status, get.headers.get("Allow")], [405, "POST"]);
  assert.deepEqual([unknown.status, none.status], [404, 404]);
});

Deno.test("providers: twilio: the address is the project's own where none is configured", async () => {
  await using api = upstream(taken);
  await using functions = door(api.url, { PROVIDERS_PUBLIC_URL: "" });
  const address = `${api.url}/functions/v1/providers/twilio?session_id=a%20b`;
  const headers = await SIGNERS.twilio(ENDED.twilio, SECRETS.twilio, 0, address);

  const url = `${functions.url}/providers/twilio?session_id=a%20b`;
  const answer = await answerTo(fetch(url, { method: "POST", body: ENDED.twilio, headers }));

  assert.equal(answer.status, 200);
  assert.equal(JSON.parse(api.received[0].text).session_id, "a b");
});
