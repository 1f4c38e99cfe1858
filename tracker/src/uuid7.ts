import { safely } from "./safely";

/** A random hex digit; by `Math.random` where `crypto` is missing (some web views) or patched, and for one in 256. */
const digit = (): string =>
  // getRandomValues, not randomUUID: that one is missing on plain http pages.
  ((safely(() => crypto.getRandomValues(new Uint8Array(1))[0])() || Math.random() * 256) & 15).toString(16);

/** A UUIDv7: time first, so the database's indexes stay hot (random keys cost them 4–8 × the throughput). */
export const uuid7 = safely((): string =>
  // A page may have replaced the clock: an id must come out all the same.
  ((2 ** 48 + (Date.now() || 0)).toString(16).slice(-12) + "-7xxx-8xxx-xxxxxxxxxxxx")
    .replace(/.{8}/, "$&-")
    .replace(/x/g, digit),
);
