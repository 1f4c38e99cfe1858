/**
 * Whether a header's value is the secret. In constant time: hashed first, so that neither contents
 * nor length show in the time taken.
 */
export async function isSecret(sent: string, secret: string): Promise<boolean> {
  const [left, right] = await Promise.all([
    // A header holds bytes, one a character; the secret's own bytes are UTF-8.
    sha256(Uint8Array.from(sent, (character) => character.charCodeAt(0))),
    sha256(new TextEncoder().encode(secret)),
  ]);
  return left.reduce((difference, byte, i) => difference | (byte ^ right[i]), 0) === 0;
}

export async function sha256(bytes: BufferSource): Promise<Uint8Array> {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
}
