import { useEffect, useId, useRef } from "preact/hooks";
import type { Api } from "./api";
import { EVIDENCE_MEANINGS } from "./evidence";
import * as format from "./format";
import type { Call, CallEvent, CallStory as Story } from "./types";
import { useLoaded } from "./useLoaded";

type Props = { api: Api; call: Call; widgetName: string; onClose: () => void };

/** One call, in a dialog: from its events to its bill. */
export function CallStory({ api, call, widgetName, onClose }: Props) {
  const dialog = useRef<HTMLDialogElement>(null);
  const id = useId();
  const { value, error, retry } = useLoaded(call.call_id, () => api.story(call.widget_id, call.session_id, call.call_id));

  useEffect(() => dialog.current?.showModal(), []);

  return (
    <dialog ref={dialog} aria-labelledby={id} onClose={onClose} onClick={(event) => event.target === dialog.current && dialog.current?.close()}>
      <article>
        <header>
          <div>
            <h2 id={id}>Call of {format.localInstant(call.started_at)}</h2>
            <p class="muted">{widgetName}, {format.utcInstant(call.started_at)}</p>
          </div>
          <button onClick={() => dialog.current?.close()}>Close</button>
        </header>
        {error !== undefined ? (
          <div class="state" role="alert">
            <p>This could not be loaded: {error}</p>
            <button onClick={retry}>Try again</button>
          </div>
        ) : value === undefined ? (
          <p class="state muted" role="status">Loading…</p>
        ) : value === null ? (
          <p class="state muted">This call is not there any more.</p>
        ) : (
          <>
            <h3>How its bill came about</h3>
            <Reasons story={value} />
            <h3>Events</h3>
            {value.events.length === 0
              ? <p class="muted">They are in the archive. What they say of the call, and its bill, stays.</p>
              : <Events story={value} />}
            <p class="muted small">Session {value.session_id}, call {value.call_id}</p>
          </>
        )}
      </article>
    </dialog>
  );
}

function Reasons({ story }: { story: Story }) {
  const end = story.events.find(({ id }) => id === story.ended_by);
  const code = end?.properties?.["code"];
  return (
    <ol class="reasons">
      <li><strong>Started</strong> at {format.localInstant(story.started_at)} <span class="muted">({format.utcInstant(story.started_at)})</span>.</li>
      {story.ended_at === null || !story.evidence ? (
        <li><strong>Going on</strong>: no event has ended it yet.</li>
      ) : (
        <>
          <li>
            <strong>{story.outcome === "failed" ? "Failed" : "Ended"}</strong> at {format.localInstant(story.ended_at)}
            {end && <>, by the <code>{end.event_type}</code> of source {SOURCES[end.source] ?? end.source}</>}
            {typeof code === "string" && <> with code <code>{code}</code></>}. {EVIDENCE_MEANINGS[story.evidence]}
          </li>
          <li>
            <strong>Lasted</strong> {format.seconds(story.duration_seconds ?? 0)}
            {story.is_capped && ", cut there: no call is longer than the limit"}.
          </li>
        </>
      )}
      <li>
        <strong>Billed</strong> {format.seconds(story.billable_seconds)}: {story.rule}.
        {story.amount !== null && story.currency && (
          <> At the plan's price {format.price(story.amount, story.currency)}, before the month's included minutes.</>
        )}
      </li>
    </ol>
  );
}

const SOURCES: Record<string, string> = {
  browser: "browser", server: "your server", provider: "call provider", operator: "operator", inferred: "cleanup",
};

const TITLES: Record<string, string> = {
  widget_load: "Page loaded", widget_open: "Widget opened", call_start: "Call started", call_heartbeat: "Sign of life",
  call_end: "Call ended", call_error: "Call failed",
};

type Line = { event: CallEvent; repeated: number; last: string };

/** Signs of life that follow each other make one line: a call of an hour has 120. */
function condense(events: CallEvent[]): Line[] {
  const lines: Line[] = [];
  for (const event of events) {
    const before = lines.at(-1);
    if (event.event_type === "call_heartbeat" && before?.event.event_type === "call_heartbeat") {
      before.repeated += 1;
      before.last = event.timestamp;
    } else {
      lines.push({ event, repeated: 1, last: event.timestamp });
    }
  }
  return lines;
}

function Events({ story }: { story: Story }) {
  return (
    <div class="scroll" role="region" aria-label="Events of this call" tabIndex={0}>
      <table>
        <caption class="unseen">Events of this call</caption>
        <thead>
          <tr><th scope="col">Time</th><th scope="col">Event</th><th scope="col">From</th><th scope="col">Arrived</th></tr>
        </thead>
        <tbody>
          {condense(story.events).map(({ event, repeated, last }) => (
            <tr key={event.id} class={event.id === story.ended_by ? "believed" : ""}>
              <td title={format.utcInstant(event.timestamp)}>
                {format.localClock(event.timestamp)}{repeated > 1 && ` – ${format.localClock(last)}`}
              </td>
              <td>
                {TITLES[event.event_type] ?? event.event_type}{repeated > 1 && `, ${repeated} times`}
                {event.id === story.ended_by && <span class="tag completed">believed</span>}
                {isOutranked(event, story) && <span class="tag">outranked</span>}
                {event.page_url && <span class="muted meaning place" title={event.page_url}>{event.page_url}</span>}
              </td>
              <td>{SOURCES[event.source] ?? event.source}</td>
              <td class="muted">{delay(event)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function isOutranked(event: CallEvent, story: Story): boolean {
  return story.ended_by !== null && event.id !== story.ended_by && /^call_(end|error)$/.test(event.event_type);
}

function delay({ timestamp, received_at }: CallEvent): string {
  const seconds = (Date.parse(received_at) - Date.parse(timestamp)) / 1000;
  if (seconds < 2) return "at once";
  return seconds < 120 ? `${Math.round(seconds)} s later` : `${format.count(seconds / 60)} min later`;
}
