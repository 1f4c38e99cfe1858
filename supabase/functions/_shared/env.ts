import { HttpError } from "./responses.ts";

/** `Deno.env` is one; so is a `Map`. */
export interface Env {
  get(name: string): string | undefined;
}

/** Where this project's REST API is, and the key to call it with. */
export interface Gateway {
  url: string;
  key: string;
}

// The platform injects both generations. The dictionary goes first: a project that
// switched its legacy keys off still has their variables, and they no longer work.
const KEY_NAMES = {
  publishable: { dictionary: "SUPABASE_PUBLISHABLE_KEYS", single: "SUPABASE_ANON_KEY" },
  secret: { dictionary: "SUPABASE_SECRET_KEYS", single: "SUPABASE_SERVICE_ROLE_KEY" },
};

export function gateway(env: Env, role: keyof typeof KEY_NAMES): Gateway {
  const { dictionary, single } = KEY_NAMES[role];

  const url = setting(env, "SUPABASE_URL");
  if (!URL.canParse(url) || !/^https?:$/.test(new URL(url).protocol)) {
    throw notConfigured("Set SUPABASE_URL to the project's address, https://….");
  }
  const key = namedKey(setting(env, dictionary)) || setting(env, single);
  if (!key) throw notConfigured(`Set ${single} (or ${dictionary}) to the project's ${role} key.`);

  return { url: url.replace(/\/+$/, ""), key };
}

/** Trimmed, because a header value loses its outer blanks on the way and could never match. */
export function setting(env: Env, name: string): string {
  return env.get(name)?.trim() ?? "";
}

export function notConfigured(message: string): HttpError {
  return new HttpError(503, "not_configured", message);
}

/** `{"default": "sb_…"}`; a project whose keys all have other names has one of those. */
function namedKey(dictionary: string): string {
  try {
    const keys = JSON.parse(dictionary);
    const key = keys?.default ?? Object.values(keys ?? {})[0];
    return typeof key === "string" ? key.trim() : "";
  } catch {
    return "";
  }
}
