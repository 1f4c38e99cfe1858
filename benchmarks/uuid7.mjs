import { randomBytes } from "node:crypto";

/** Milliseconds, then at random, as the tracker makes them. */
export function uuid7() {
  const digits = Date.now().toString(16).padStart(12, "0") + "7" + randomBytes(10).toString("hex").slice(1);
  return digits.replace(/^(.{8})(.{4})(.{4}).(.{3})(.{12})$/, "$1-$2-$3-8$4-$5");
}
