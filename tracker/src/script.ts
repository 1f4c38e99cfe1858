import { createTracker } from "./createTracker";
import { safely } from "./safely";
import type { Tracker, TrackerOptions } from "./types";

declare global {
  interface Window {
    widgetUsage?: Tracker;
  }
}

// For `<script data-url data-key data-widget-id …>`: the attributes are the options, and the script's load is the widget's.
safely(() => {
  const options = document.currentScript!.dataset as unknown as TrackerOptions;
  window.widgetUsage = createTracker(options);
  window.widgetUsage.load();
})();
