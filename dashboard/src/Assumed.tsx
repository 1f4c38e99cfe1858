import * as format from "./format";
import type { Numeric } from "./types";

/** How much of a bill rests on a guess: the share of calls whose end nothing tells. */
export function Assumed({ of: { assumed_seconds, billable_seconds } }: { of: { assumed_seconds: Numeric; billable_seconds: Numeric } }) {
  const share = Number(billable_seconds) > 0 ? Number(assumed_seconds) / Number(billable_seconds) : 0;
  return share > 0 ? <span class="muted meaning">{format.share(share)} assumed</span> : null;
}
