import { createTracker } from "./createTracker";
import { safely } from "./safely";
import type { Tracker, TrackerOptions } from "./types";

declare global {
  interface Window {
    /** Before the script: options, for who sets no attributes. After it: the tracker. */
    widgetUsage?: Tracker;
  }
}

// The options are the `data-` attributes of the `<script>`, else its own query (which tag managers keep), else the global
// (which bundlers and modules keep). The script's load is the widget's; the script twice on a page is one tracker.
safely(() => {
  const before = (window.widgetUsage || {}) as Partial<TrackerOptions> & Partial<Tracker>;
  const script = (document.currentScript || {}) as Partial<HTMLScriptElement>;
  if (!before.callStart)
    (window.widgetUsage = createTracker({
      ...before,
      ...safely(() => Object.fromEntries(new URLSearchParams(script.src!.split("?")[1]) as Iterable<[string, string]>))(),
      ...script.dataset,
    } as TrackerOptions)).load();
})();
