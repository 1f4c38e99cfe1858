// What the providers' signatures have in common.
import { concatenated } from "../_shared/body.ts";

type Hash = "SHA-1" | "SHA-256";

/**
 * Whether a signature is the message's under this key. By `crypto.subtle.verify`, which takes the
 * same time wherever they differ.
 */
export async function isSigned(
  hash: Hash,
  key: Uint8Array<ArrayBuffer>,
  signature: Uint8Array<ArrayBuffer> | null,
  ...message: (string | Uint8Array)[]
): Promise<boolean> {
  if (!signature || key.length === 0) return false;
  const algorithm = { name: "HMAC", hash };
  const imported = await crypto.subtle.importKey("raw", key, algorithm, false, ["verify"]);
  const signed = concatenated(message.map((part) => typeof part === "string" ? utf8(part) : part));
  return await crypto.subtle.verify("HMAC", imported, signature, signed);
}

export function utf8(text: string): Uint8Array<ArrayBuffer> {
  return new TextEncoder().encode(text);
}

export function fromHex(hex: string | undefined | null): Uint8Array<ArrayBuffer> | null {
  if (!hex || !/^([0-9a-f]{2})+$/i.test(hex)) return null;
  return Uint8Array.from(hex.match(/../g) ?? [], (byte) => parseInt(byte, 16));
}

export function fromBase64(base64: string | undefined | null): Uint8Array<ArrayBuffer> | null {
  try {
    return base64 ? Uint8Array.from(atob(base64), (character) => character.charCodeAt(0)) : null;
  } catch {
    return null;
  }
}

export function toBase64(bytes: Uint8Array): string {
  return btoa(String.fromCharCode(...bytes));
}

/** Whether a delivery was signed within so many seconds of now. False for a time that is none. */
export function isRecent(signedAtMs: number, receivedAtMs: number, seconds: number): boolean {
  return Math.abs(receivedAtMs - signedAtMs) <= seconds * 1000;
}

/** The fields of a header such as `t=1700000000,v0=…`. */
export function headerFields(header: string | null): Record<string, string | undefined> {
  const pairs = (header ?? "").split(",").map((field) => {
    const [name, ...rest] = field.trim().split("=");
    return [name, rest.join("=")];
  });
  return Object.fromEntries(pairs);
}

/** Milliseconds of a whole number of seconds in a header; NaN where it is none. */
export function msOfSeconds(header: string | undefined | null): number {
  return /^\d{1,12}$/.test(header ?? "") ? Number(header) * 1000 : NaN;
}
