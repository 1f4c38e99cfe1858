import { relay } from "../events/handler.ts";
import { exchange, type Reply, serve } from "./servers.ts";

export const SERVICE_KEY = "eyJhbGciOiJIUzI1NiJ9.eyJyb2xlIjoiYW5vbiJ9.c2lnbmF0dXJl";
export const PAGE = "https://shop.example";
export const EVENTS = [{ widget_id: "w", event_type: "widget_load", session_id: "s", seq: 1 }];
export const TAKEN = { accepted: 1, duplicates: 0, rejected: [] };
export const LIMIT = 64 * 1024;

export const taken = () => Response.json(TAKEN);

export function environment(supabaseUrl: string, settings: Record<string, string> = {}) {
  return new Map(Object.entries({
    SUPABASE_URL: supabaseUrl,
    SUPABASE_SERVICE_ROLE_KEY: SERVICE_KEY,
    ...settings,
  }));
}

export function relayTo(
  supabaseUrl: string,
  settings: Record<string, string> = {},
  timeoutMs?: number,
) {
  const env = environment(supabaseUrl, settings);
  return serve((request) => relay(request, env, timeoutMs));
}

/** A body without a content type: `fetch` names the type of a string, not of bytes. */
export function post(
  url: string,
  body: string | Uint8Array,
  type?: string,
  more: HeadersInit = {},
) {
  const headers = new Headers({ Origin: PAGE, ...more });
  if (type !== undefined) headers.set("Content-Type", type);
  const bytes = typeof body === "string" ? new TextEncoder().encode(body) : body;
  return fetch(url, { method: "POST", headers, body: bytes as Uint8Array<ArrayBuffer> });
}

export const json = JSON.stringify(EVENTS);

interface Circumstances {
  reply?: Reply;
  headers?: HeadersInit;
  settings?: Record<string, string>;
}

/** One post to the relay, while the API answers like that. */
export function relayed(
  body: string | Uint8Array,
  type?: string,
  { reply = taken, headers, settings }: Circumstances = {},
) {
  return exchange(reply, (api) => relayTo(api, settings), (url) => post(url, body, type, headers));
}
