import type { Evidence } from "./types";

export const EVIDENCE_TITLES: Record<Evidence, string> = {
  observed: "Observed",
  provider: "Provider",
  operator: "Corrected",
  heartbeat: "Last sign of life",
  assumed: "Assumed",
};

export const EVIDENCE_MEANINGS: Record<Evidence, string> = {
  observed: "The widget itself, or your server, reported the end.",
  provider: "The call provider's record states the end.",
  operator: "Somebody set the call right by hand.",
  heartbeat: "The browser went away; billed up to its last sign of life.",
  assumed: "No sign of life after the start, so a fixed time was assumed.",
};
