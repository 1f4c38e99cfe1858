export { createTracker } from "./createTracker";
export type { Call, Flag, Tracker, TrackerOptions } from "./types";
