import { useEffect, useState } from "preact/hooks";
import type { Api } from "./api";
import { Contact } from "./Contact";
import * as format from "./format";
import { setting } from "./settings";
import type { FirstEvent, Widget } from "./types";

const SHORTEST_PAUSE = 2000; // milliseconds
const LONGEST_PAUSE = 30_000;

const EVENTS: Record<string, string> = {
  widget_load: "a page loaded the widget", widget_open: "somebody opened it", call_start: "a call started",
};

type Props = {
  api: Api; widget: Widget; name: string;
  /** After each look in vain: how many there were. */
  onNothing: (looks: number) => void;
  onFirstEvent: () => void;
};

/** For a widget that has sent nothing yet: what to put on its pages, and word of the first event when it comes. */
export function EmptyWidget({ api, widget, name, onNothing, onFirstEvent }: Props) {
  const [event, setEvent] = useState<FirstEvent | null | undefined>(undefined);

  useEffect(() => {
    let timer: ReturnType<typeof setTimeout> | undefined;
    let pause = SHORTEST_PAUSE;
    let isOver = false;
    let looks = 0;

    async function look() {
      const found = await api.firstEvent(widget.id).catch(() => undefined);
      if (isOver) return;
      if (found !== undefined && (found === null || looks > 0)) setEvent(found);
      if (found) {
        isOver = true;
        if (looks > 0) onFirstEvent();
        return;
      }
      if (found === null) onNothing(looks += 1);
      // Nobody looks at a hidden page: it goes on when it is shown again.
      if (!document.hidden) timer = setTimeout(look, pause);
      pause = Math.min(pause * 1.5, LONGEST_PAUSE);
    }

    function follow() {
      clearTimeout(timer);
      if (document.hidden || isOver) return;
      pause = SHORTEST_PAUSE;
      void look();
    }

    void look();
    document.addEventListener("visibilitychange", follow);
    return () => {
      isOver = true;
      clearTimeout(timer);
      document.removeEventListener("visibilitychange", follow);
    };
  }, [api, widget.id]);

  if (event === undefined) return null;
  if (event === null) return <Waiting widget={widget} name={name} />;
  return (
    <section class="card full first" role="status">
      <h2>The first event of {name} has arrived</h2>
      <p>
        At {format.localInstant(event.timestamp)} {EVENTS[event.event_type ?? ""] ?? "an event came"}
        {event.page_url && <> on <code>{event.page_url}</code></>}. Completion, delivery and pages follow within five minutes.
      </p>
    </section>
  );
}

function Waiting({ widget, name }: { widget: Widget; name: string }) {
  const [copied, setCopied] = useState("");
  const snippet = snippetOf(widget);
  const hosts = widget.allowed_domains;

  async function copy() {
    try {
      await navigator.clipboard.writeText(snippet);
      setCopied("Copied");
    } catch {
      // Without the right to, or over plain HTTP.
      getSelection()?.selectAllChildren(document.querySelector(".snippet")!);
      setCopied("Press Ctrl+C or ⌘C");
    }
  }

  return (
    <section class="card full first" aria-label="Set up">
      <h2>{name} has sent nothing yet</h2>
      <p>Put this into each page that has the widget, before the end of its <code>body</code>:</p>
      <pre class="snippet" tabIndex={0}>{snippet}</pre>
      <p class="copy"><button onClick={() => void copy()}>Copy</button> <span role="status" class="muted">{copied}</span></p>
      <p>
        {hosts.length === 0
          ? <>No page may send its events yet: ask <Contact subject={`Allowed domains of ${name}`} /> to allow your site's domain.</>
          : hosts.includes("*")
          ? <>Events are taken from any site.</>
          : (
            <>
              Events are taken from {hosts.map((host, place) => <>{place > 0 && ", "}<code key={host}>{host}</code></>)} alone; to
              add a domain, ask <Contact subject={`Allowed domains of ${name}`} />.
            </>
          )}
        {!widget.is_active && <strong> The widget is switched off.</strong>}
      </p>
      <p class="waiting muted" role="status"><span class="pulse" aria-hidden="true" />Waiting for the first event. Open a page with the widget: it appears here by itself.</p>
    </section>
  );
}

function snippetOf(widget: Widget): string {
  return `<script src="${setting("tracker-url") || "usage.min.js"}"
  data-url="${setting("supabase-url")}"
  data-key="${setting("supabase-publishable-key")}"
  data-widget-id="${widget.id}"></script>`;
}
