import { isOn } from "./createTracker";
import { safely } from "./safely";
import type { Tracker, TrackerOptions } from "./types";

// Words for developers, in a script whose tag stands before the tracker's: on `localhost`, or with `data-debug` on its
// own tag, it warns in the console of what keeps the tracker from being heard. Anywhere else it does nothing.

type Options = Partial<TrackerOptions>;

const UUID = /^[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}$/i;
const PATIENCE = 4e3;

const said = new Set<string>();

const warn = (words: string): void => {
  if (!said.has(words)) console.warn("widgetUsage: " + words);
  said.add(words);
};

/** What is wrong with the options, whatever the server says. */
const judgeOptions = ({ url, key, widgetId, transport, endpoint, demo }: Options): void => {
  if (isOn(demo)) return warn("demo is on: nothing is sent or stored. Remove data-demo to track");
  if (!url && !widgetId)
    return warn(
      "the script has no options. If a tag manager stripped its data- attributes, write them into its address: " +
        "usage.min.js?url=…&key=…&widgetId=…",
    );
  if (!url) warn("url is empty: set data-url to the project's, https://YOUR-REF.supabase.co");
  if (!widgetId) warn("widgetId is empty: set data-widget-id to the id in the table widgets");
  else if (!UUID.test(widgetId)) warn(`widgetId "${widgetId}" is no UUID: copy the id from the table widgets`);
  if (!key && !endpoint && transport != "function") warn("key is empty: set data-key to the project's publishable key");
};

/** What stands in the way of the events of these widgets, by the server's answer. */
const judgeAnswer = (status: number, text: string, widgetIds: string[]): void => {
  if (status == 401) return warn("the key was refused (401): compare data-key with Settings > API Keys of this project");
  const { rejected } = (safely(JSON.parse as (text: string) => { rejected?: { reason: string }[] })(text) || {}) as {
    rejected?: { reason: string }[];
  };
  const reasons = (rejected || []).map(({ reason }) => reason);
  if (status == 403 && /"widget_id/.test(text)) reasons.push("not allowed");
  for (const reason of reasons)
    if (/not allowed/.test(reason))
      for (const id of widgetIds.filter((id) => UUID.test(id)))
        warn(
          `events are refused: widget ${id} is unknown, not active, or not allowed on ${location.hostname}. In the SQL Editor, ` +
            `to allow this host: update widgets set allowed_domains = allowed_domains || '{${location.hostname}}' where id = '${id}'; ` +
            "if that changes no row, the id is unknown; if it helps nothing, is_active is false",
        );
    else warn("an event is refused: " + reason);
  if (!reasons.length && !/"accepted"/.test(text))
    warn(`unexpected answer, HTTP ${status}: ${text.slice(0, 200) || "empty"}`);
};

const listen = (): void => {
  const { fetch } = window;
  window.fetch = function (this: unknown, ...given: Parameters<typeof fetch>) {
    const answer = fetch.apply(window, given);
    safely(() => {
      const target = String(given[0]);
      const events = new URLSearchParams(given[1]!.body as URLSearchParams).get("events")!;
      const ids = [...new Set((JSON.parse(events) as { widget_id: string }[]).map((event) => event.widget_id))];
      const { origin } = new URL(target, location.href);
      const silence = () =>
        warn(
          `no answer from ${origin}: offline, a content blocker, a Content-Security-Policy without it in connect-src, ` +
            "a wrong data-url, or a project that is paused. Events wait in the browser and are sent again",
        );
      const timer = setTimeout(silence, PATIENCE);
      answer
        .then(async (got) => {
          clearTimeout(timer);
          judgeAnswer(got.status, await got.clone().text(), ids);
        })
        .catch(() => {
          clearTimeout(timer);
          silence();
        });
    })();
    return answer;
  };
};

/** Learns the options as the tracker does, at the moment when it takes the global's place. */
const watch = (): void => {
  let value = window.widgetUsage;
  Object.defineProperty(window, "widgetUsage", {
    configurable: true,
    enumerable: true,
    get: () => value,
    set(next: Tracker & Options) {
      const before = value as Options | undefined;
      value = next;
      safely(() => {
        if (!next.callStart) return;
        const script = document.currentScript as HTMLScriptElement | null;
        const query = script ? Object.fromEntries(new URL(script.src).searchParams) : {};
        judgeOptions({ ...before, ...query, ...(script ? script.dataset : {}) });
      })();
    },
  });
};

safely(() => {
  const { debug } = (document.currentScript as HTMLScriptElement).dataset;
  if (location.hostname == "localhost" || isOn(debug)) {
    listen();
    watch();
  }
})();
