import assert from "node:assert/strict";
import { deliver, ENDED, SECRETS, variable } from "./provider_senders.ts";
import { upstream } from "./servers.ts";

/** Runs a function as deployed, with the permissions that its index.ts states and no network. */
async function deployed(name: string, apiUrl: string, settings: Record<string, string> = {}) {
  const environment = {
    SUPABASE_URL: apiUrl,
    SUPABASE_SECRET_KEYS: "",
    SUPABASE_SERVICE_ROLE_KEY: "sb_secret_x",
    ...settings,
  };
  const home = new URL(`../${name}/`, import.meta.url).pathname;
  const npm = await Deno.stat(`${home}npm-lock.json`).then(
    () => [
      "--cached-only",
      "--lock",
      `${home}npm-lock.json`,
      "--frozen",
      "--config",
      `${home}deno.json`,
    ],
    () => ["--no-npm"],
  );
  const process = new Deno.Command(Deno.execPath(), {
    args: [
      "run",
      "--no-prompt",
      "--no-remote",
      ...npm,
      `--allow-env=${Object.keys(environment)}`,
      "--allow-net=127.0.0.1",
      `${home}index.ts`,
    ],
    env: { ...environment, DENO_SERVE_ADDRESS: "tcp:127.0.0.1:0", NO_COLOR: "1" },
    stdout: "piped",
    stderr: "piped",
  }).spawn();

  const output = process.stderr.pipeThrough(new TextDecoderStream());
  let url: string | undefined;
  let seen = "";
  for await (const text of output.values({ preventCancel: true })) {
    url = (seen += text).match(/http:\/\/[\d.]+:\d+/)?.[0];
    if (url) break;
  }
  assert.ok(url, `${name} did not start: ${seen}`);
  return {
    url,
    async [Symbol.asyncDispose]() {
      process.kill();
      await Promise.all([output.cancel(), process.stdout.cancel(), process.status]);
    },
  };
}

Deno.test("cleanup/index.ts serves the handler with the permissions that it states", async () => {
  const counts = { calls_checked: 0, calls_completed: 0, calls_still_active: 0 };
  await using api = upstream(() => Response.json([counts]));
  await using running = await deployed("cleanup", api.url, {
    CRON_SECRET: "secret",
    CLEANUP_ALLOW_UNAUTHENTICATED: "",
  });

  const headers = { Authorization: "Bearer secret" };
  const response = await fetch(`${running.url}/cleanup`, { headers });

  assert.deepEqual(await response.json(), counts);
});

Deno.test("events/index.ts serves the handler with the permissions that it states", async () => {
  const taken = { accepted: 0, duplicates: 0, rejected: [] };
  await using api = upstream(() => Response.json(taken));
  await using running = await deployed("events", api.url);

  const response = await fetch(`${running.url}/events`, { method: "POST", body: "[]" });

  assert.deepEqual(await response.json(), taken);
});

Deno.test("providers/index.ts serves the handler with the permissions that it states", async () => {
  await using api = upstream(() => Response.json({}));
  await using running = await deployed("providers", api.url, {
    PROVIDERS_PUBLIC_URL: "",
    BUF_BIGINT_DISABLE: "",
    ...Object.fromEntries(
      Object.entries(SECRETS).map(([name, secret]) => [variable(name), secret]),
    ),
  });

  const response = await deliver(running.url, "livekit", ENDED.livekit);

  assert.deepEqual(await response.json(), { recorded: true });
});
