import { HttpError } from "./responses.ts";

/**
 * A request's body, or null where it has more bytes than that. Never holds more than the limit and
 * one chunk, whatever the length header says.
 */
export async function limitedBytes(
  request: Request,
  mostBytes: number,
): Promise<Uint8Array<ArrayBuffer> | null> {
  if (Number(request.headers.get("Content-Length")) > mostBytes) return null;

  const chunks: Uint8Array[] = [];
  let length = 0;
  try {
    for await (const chunk of request.body ?? []) {
      // Leaving the loop cancels the stream.
      if (length + chunk.byteLength > mostBytes) return null;
      chunks.push(chunk);
      length += chunk.byteLength;
    }
  } catch {
    // The sender closed or the network went: nobody reads this, and it is no fault to log.
    throw new HttpError(400, "incomplete_body", "The body ended early.");
  }
  return concatenated(chunks);
}

export function concatenated(parts: Uint8Array[]): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(parts.reduce((length, part) => length + part.byteLength, 0));
  let offset = 0;
  for (const part of parts) {
    bytes.set(part, offset);
    offset += part.byteLength;
  }
  return bytes;
}

/** Text as Postgres can hold it: NUL and unpaired surrogates become U+FFFD. */
export function storableText(text: string): string {
  return text.toWellFormed().replaceAll("\0", "\uFFFD");
}
