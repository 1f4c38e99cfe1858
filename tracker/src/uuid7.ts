import { safely } from "./safely";

/** A random hex digit; `Math.random` where `crypto` is missing (some web views) or patched. */
const digit = (): string => {
  let random = Math.random() * 16;
  try {
    // getRandomValues, not randomUUID: that one is missing on plain http pages.
    random = crypto.getRandomValues(new Uint8Array(1))[0]! & 15;
  } catch {}
  return (random | 0).toString(16);
};

/** A UUIDv7: time first, so the database's indexes stay hot (random keys cost them 4–8 × the throughput). */
export const uuid7 = safely((): string =>
  // A page may have replaced the clock: an id must come out all the same.
  ((Date.now() || 0).toString(16).padStart(12, "0").slice(-12) + "-7xxx-8xxx-xxxxxxxxxxxx")
    .replace(/^.{8}/, "$&-")
    .replace(/x/g, digit),
);
