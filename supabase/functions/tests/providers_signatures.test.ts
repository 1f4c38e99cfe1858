// Vectors that the vendors publish in their own tests, and where they publish none, from their documented rule.
import assert from "node:assert/strict";
import { daily } from "../providers/daily.ts";
import { elevenlabs } from "../providers/elevenlabs.ts";
import { livekit } from "../providers/livekit.ts";
import type { Delivery, Provider } from "../providers/provider.ts";
import { retell } from "../providers/retell.ts";
import { toBase64, utf8 } from "../providers/signatures.ts";
import { sha256 } from "../_shared/secrets.ts";
import { twilio } from "../providers/twilio.ts";
import { ultravox } from "../providers/ultravox.ts";
import { vapi } from "../providers/vapi.ts";
import { SECRETS, SIGNERS, STANDARD_SECRET, standardWebhook } from "./provider_senders.ts";

interface Vector {
  provider: Provider;
  secret: string;
  headers: Record<string, string>;
  body: string;
  signedAt?: number;
  url?: string;
  toleranceSeconds: number;
}

const SIGNED_AT = 1_700_000_000_000;
const VECTORS: Record<string, Vector> = {
  "Retell, published": {
    provider: retell,
    secret: "test-api-key",
    headers: {
      "X-Retell-Signature":
        "v=1700000000000,d=07024cabe7dd8f6d1c6e4a8324ca92c812e6ad4a7ee506c04f7e462e3321823e",
    },
    body: '{"event":"call_ended"}',
    toleranceSeconds: 300,
  },
  "Twilio, published": {
    provider: twilio,
    secret: "12345",
    headers: { "X-Twilio-Signature": "RSOYDt4T1cUTdK1PDd93/VVr8B8=" },
    url: "https://mycompany.com/myapp.php?foo=1&bar=2",
    body: new URLSearchParams({
      CallSid: "CA1234567890ABCDE",
      Digits: "1234",
      From: "+14158675309",
      Caller: "+14158675309",
      To: "+18005551212",
    }).toString(),
    toleranceSeconds: Infinity,
  },
  "ElevenLabs, by the rule": {
    provider: elevenlabs,
    secret: "webhook_secret",
    headers: {
      "ElevenLabs-Signature":
        "t=1700000000,v0=4af66ec258e0c7dd5394737f5896966db3840e9325ad1632f8227bff895bcd77",
    },
    body: '{"type":"post_call_transcription"}',
    toleranceSeconds: 1800,
  },
  "Daily, by the rule": {
    provider: daily,
    secret: "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=",
    headers: {
      "X-Webhook-Timestamp": "1700000000",
      "X-Webhook-Signature": "kxJ9EbuxVK83GVwXUM9B3GewUp78phw/2khGyacEdAw=",
    },
    body: '{"type":"participant.left"}',
    toleranceSeconds: 1800,
  },
  "Ultravox, by the rule": {
    provider: ultravox,
    secret: "ultravox-secret",
    headers: {
      "X-Ultravox-Webhook-Timestamp": "2023-11-14T22:13:20Z",
      "X-Ultravox-Webhook-Signature":
        "42567582d9862df37d54f99bd8023aa1468183ce6e8fef0c1afb2db7ea7bcdde",
    },
    body: '{"event":"call.ended"}',
    toleranceSeconds: 60,
  },
  "Vapi's HMAC, by the rule": {
    provider: vapi,
    secret: "vapi-secret",
    headers: {
      "x-timestamp": "1700000000",
      "x-signature": "db859ca753bebfe5209df04b355498a962f7371218f063f083ca1b4264d74db1",
    },
    body: '{"message":{"type":"end-of-call-report"}}',
    toleranceSeconds: 300,
  },
};

function delivery(vector: Vector, changes: Partial<Delivery> = {}): Delivery {
  return {
    headers: new Headers(vector.headers),
    body: utf8(vector.body),
    url: vector.url ?? "https://project.example/providers",
    receivedAt: SIGNED_AT,
    ...changes,
  };
}

for (const [what, vector] of Object.entries(VECTORS)) {
  const { provider, secret, body, toleranceSeconds } = vector;

  Deno.test(`providers: ${what}: the signature matches, and nothing but it`, async () => {
    const forged = Object.entries(vector.headers).map(([name, value]) =>
      [name, value.replace(/\w(?=\W*$)/, (last) => last === "A" ? "B" : "A")] as const
    );

    assert.ok(await provider.verify(delivery(vector), secret));
    assert.ok(!await provider.verify(delivery(vector), "c29tZXRoaW5nIGVsc2U="));
    assert.ok(!await provider.verify(delivery(vector, { body: utf8(body.slice(0, -1)) }), secret));
    assert.ok(!await provider.verify(delivery(vector, { body: utf8(`${body} `) }), secret));
    assert.ok(!await provider.verify(delivery(vector, { headers: new Headers() }), secret));
    assert.ok(
      !await provider.verify(
        delivery(vector, { headers: new Headers(Object.fromEntries(forged)) }),
        secret,
      ),
    );
  });

  if (toleranceSeconds < Infinity) {
    Deno.test(`providers: ${what}: good for ${toleranceSeconds} s in both directions`, async () => {
      const afterSeconds = (seconds: number) =>
        provider.verify(delivery(vector, { receivedAt: SIGNED_AT + seconds * 1000 }), secret);

      assert.ok(await afterSeconds(toleranceSeconds));
      assert.ok(await afterSeconds(-toleranceSeconds));
      assert.ok(!await afterSeconds(toleranceSeconds + 1));
      assert.ok(!await afterSeconds(-toleranceSeconds - 1));
    });
  }
}

Deno.test("providers: LiveKit's published hash of a body", async () => {
  const body =
    '{"event":"room_started", "room":{"sid":"RM_TkVjUvAqgzKz", "name":"mytestroom", "emptyTimeout":300, "creationTime":"1628545903", "turnPassword":"ICkSr2rEeslkN6e9bXL4Ji5zzMD5Z7zzr6ulOaxMj6N", "enabledCodecs":[{"mime":"audio/opus"}, {"mime":"video/VP8"}]}}';

  assert.equal(toBase64(await sha256(utf8(body))), "CoEQz1chqJ9bnZRcORddjplkvpjmPujmLTR42DbefYI=");
});

Deno.test("providers: LiveKit's token is of this body, this key and this time", async () => {
  const body = '{"event":"participant_left"}';
  const sent = async (secret: string, signedAt: number, sentBody = body) => ({
    headers: new Headers(await SIGNERS.livekit(body, secret, signedAt, "")),
    body: utf8(sentBody),
    url: "",
    receivedAt: Date.now(),
  });
  const verified = async (...[secret, at, sentBody]: Parameters<typeof sent>) =>
    await livekit.verify(await sent(secret, at, sentBody), SECRETS.livekit);

  assert.ok(await verified("abcdefg:abababa", Date.now()));
  assert.ok(!await verified("abcdefg:another", Date.now()));
  assert.ok(!await verified("another:abababa", Date.now()));
  assert.ok(!await verified("abcdefg:abababa", Date.now(), `${body} `));
  assert.ok(!await verified("abcdefg:abababa", Date.now() - 400_000));
  const { body: bytes, ...unsigned } = await sent("abcdefg:abababa", Date.now());
  const payload = unsigned.headers.get("Authorization")?.split(".")[1];
  const headers = new Headers({ Authorization: `${btoa('{"alg":"none"}')}.${payload}.` });
  assert.ok(!await livekit.verify({ ...unsigned, body: bytes, headers }, SECRETS.livekit));
});

Deno.test("providers: Vapi in the shape of Standard Webhooks, whose vector is published", async () => {
  const { Webhook } = await import("standardwebhooks");
  const published = new Webhook(STANDARD_SECRET).sign(
    "msg_p5jXN8AQM9LWM0D4loKWxJek",
    new Date(1_614_265_330_000),
    '{"test": 2432232314}',
  );
  const body = VECTORS["Vapi's HMAC, by the rule"].body;
  const verified = (at: number, secret = STANDARD_SECRET, sentBody = body) =>
    vapi.verify({
      headers: new Headers(standardWebhook(body, at)),
      body: utf8(sentBody),
      url: "",
      receivedAt: Date.now(),
    }, secret);

  assert.equal(published, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
  assert.ok(await verified(Date.now()));
  assert.ok(!await verified(Date.now() - 400_000));
  assert.ok(!await verified(Date.now() + 400_000));
  assert.ok(!await verified(Date.now(), "whsec_AAAA"));
  assert.ok(!await verified(Date.now(), STANDARD_SECRET, `${body} `));
});

for (
  const [what, headers] of Object.entries<Record<string, string>>({
    "a bearer token": { Authorization: "Bearer vapi-secret" },
    "the older header": { "X-Vapi-Secret": "vapi-secret" },
  })
) {
  Deno.test(`providers: Vapi with ${what}`, async () => {
    const sent = (headers: Record<string, string>) => ({
      headers: new Headers(headers),
      body: utf8("{}"),
      url: "",
      receivedAt: Date.now(),
    });

    assert.ok(await vapi.verify(sent(headers), "vapi-secret"));
    assert.ok(!await vapi.verify(sent(headers), "vapi-secret2"));
    assert.ok(!await vapi.verify(sent({ Authorization: "vapi-secret" }), "vapi-secret"));
  });
}

Deno.test("providers: Vapi's timestamp may be in milliseconds", async () => {
  const body = "{}";
  const at = String(SIGNED_AT);
  const { "x-signature": ofSeconds } = await SIGNERS.vapi(body, "vapi-secret", SIGNED_AT, "");
  const { createHmac } = await import("node:crypto");
  const ofMs = createHmac("sha256", "vapi-secret").update(`${at}.${body}`).digest("hex");
  const verified = (signature: string, receivedAt = SIGNED_AT) =>
    vapi.verify({
      headers: new Headers({ "x-timestamp": at, "x-signature": signature }),
      body: utf8(body),
      url: "",
      receivedAt,
    }, "vapi-secret");

  assert.ok(await verified(ofMs));
  assert.ok(!await verified(ofMs, SIGNED_AT + 301_000));
  assert.ok(!await verified(ofSeconds));
});

Deno.test("providers: Ultravox lists a signature by each of two secrets", async () => {
  const vector = VECTORS["Ultravox, by the rule"];
  const headers = new Headers(vector.headers);
  headers.set(
    "X-Ultravox-Webhook-Signature",
    `${"0".repeat(64)}, ${headers.get("X-Ultravox-Webhook-Signature")}`,
  );

  assert.ok(await ultravox.verify(delivery(vector, { headers }), vector.secret));
});

Deno.test("providers: an apostrophe in Twilio's address counts as it was given", async () => {
  const body = "CallSid=CA1";
  const given = "https://project.example/providers/twilio?name=O'Brien";
  const headers = new Headers(await SIGNERS.twilio(body, "12345", 0, given));
  const sent = { headers, body: utf8(body), receivedAt: 0 };

  assert.ok(await twilio.verify({ ...sent, url: given }, "12345"));
  assert.ok(await twilio.verify({ ...sent, url: given.replace("'", "%27") }, "12345"));
  assert.ok(!await twilio.verify({ ...sent, url: given.replace("O'", "") }, "12345"));
});
