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

// The platform injects both generations of the secret key. The dictionary goes first: a project that
// switched its legacy keys off still has their variable, and it no longer works.
const DICTIONARY = "SUPABASE_SECRET_KEYS";
const SINGLE = "SUPABASE_SERVICE_ROLE_KEY";

export function gateway(env: Env): Gateway {
  const url = setting(env, "SUPABASE_URL");
  if (!URL.canParse(url) || !/^https?:$/.test(new URL(url).protocol)) {
    throw notConfigured("Set SUPABASE_URL to the project's address, https://….");
  }
  const key = namedKey(setting(env, DICTIONARY)) || setting(env, SINGLE);
  if (!key) throw notConfigured(`Set ${SINGLE} (or ${DICTIONARY}) to the project's secret key.`);

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
