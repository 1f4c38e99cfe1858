import { useState } from "preact/hooks";
import type { Api, Selection } from "./api";
import { CallStory } from "./CallStory";
import { EVIDENCE_TITLES } from "./evidence";
import * as format from "./format";
import { Panel } from "./Panel";
import { type Column, downloadRows, Pages, plainColumns, Table } from "./Table";
import type { Call, ListedCall } from "./types";
import { useDownload } from "./useDownload";
import { useLoaded } from "./useLoaded";

const PAGE_SIZE = 25;
const DOWNLOAD_PAGE_SIZE = 1000;

const FILTERS: [string, string][] = [
  ["", "All calls"],
  ["completed", "Completed"],
  ["failed", "Failed"],
  ["open", "Going on"],
  ...Object.entries(EVIDENCE_TITLES).map(([kind, title]): [string, string] => [kind, `End: ${title.toLowerCase()}`]),
];

const OUTCOMES = { completed: "Completed", failed: "Failed", open: "Going on" };

// As the database answers them, so that a file can be compared with the bill to the letter.
const IN_FILE = plainColumns<Call>([
  "widget_id", "session_id", "call_id", "started_at", "ended_at", "outcome", "evidence", "duration_seconds",
  "billable_seconds", "rule", "amount", "currency",
]);

type Props = { api: Api; selection: Selection; names: Map<string, string>; name: string; total: number | undefined };

export function CallList({ api, selection, names, name, total }: Props) {
  const [only, setOnly] = useState("");
  const [cursors, setCursors] = useState<string[]>([]); // of the pages turned so far
  const [story, setStory] = useState<ListedCall | null>(null);
  const after = cursors.at(-1) ?? null;
  // One more than fits: says whether there is a next page.
  const loaded = useLoaded(`${only} ${after}`, () => api.calls(selection, only || null, after, PAGE_SIZE + 1));

  const columns: Column<ListedCall>[] = [
    {
      title: "Started",
      value: (call) => call.started_at,
      show: (call) => (
        <button class="link" aria-haspopup="dialog" onClick={() => setStory(call)}>
          {format.localInstant(call.started_at)}
          <span class="muted meaning">{format.utcInstant(call.started_at)}</span>
        </button>
      ),
    },
    { title: "Widget", value: (call) => names.get(call.widget_id) ?? call.widget_id, isMinor: true },
    { title: "Outcome", value: (call) => call.outcome, show: (call) => <span class={`tag ${call.outcome}`}>{OUTCOMES[call.outcome]}</span> },
    { title: "Evidence", value: (call) => call.evidence, show: (call) => (call.evidence ? EVIDENCE_TITLES[call.evidence] : "–"), isMinor: true },
    { title: "Length", value: (call) => call.duration_seconds, show: (call) => format.duration(call.duration_seconds), isNumber: true, isMinor: true },
    { title: "Billable", value: (call) => call.billable_seconds, show: (call) => format.seconds(call.billable_seconds), isNumber: true },
    {
      title: "Before included",
      value: (call) => call.amount,
      show: (call) => (call.amount !== null && call.currency ? format.price(call.amount, call.currency) : "–"),
      isNumber: true,
      isMinor: true,
    },
  ];

  const filter = (
    <label>
      <span class="unseen">Which calls</span>
      <select
        value={only}
        onChange={(event) => {
          setCursors([]);
          setOnly(event.currentTarget.value);
        }}
      >
        {FILTERS.map(([value, title]) => <option key={value} value={value}>{title}</option>)}
      </select>
    </label>
  );

  return (
    <section class="full calls">
      <Panel
        title="Calls"
        note="Latest first. Open one to see how its bill came about."
        loaded={loaded}
        isEmpty={(calls) => calls.length === 0 && only === "" && cursors.length === 0}
        empty="No calls in this period."
        action={<>{filter}<DownloadCalls {...{ api, selection, name, only }} /></>}
      >
        {(calls) => (
          <>
            {calls.length === 0
              ? <p class="state muted">No such calls in this period.</p>
              : <Table caption="Calls" columns={columns} rows={calls.slice(0, PAGE_SIZE)} rowKey={(call) => call.cursor} />}
            <Pages
              label="Pages of calls"
              first={cursors.length * PAGE_SIZE}
              shown={Math.min(calls.length, PAGE_SIZE)}
              total={only === "" ? total : undefined}
              before="Newer"
              next="Older"
              onBefore={cursors.length > 0 ? () => setCursors(cursors.slice(0, -1)) : null}
              onNext={calls.length > PAGE_SIZE ? () => setCursors([...cursors, calls[PAGE_SIZE - 1]!.cursor]) : null}
            />
          </>
        )}
      </Panel>
      {story && <CallStory api={api} call={story} widgetName={names.get(story.widget_id) ?? ""} onClose={() => setStory(null)} />}
    </section>
  );
}

type DownloadProps = { api: Api; selection: Selection; name: string; only: string };

/** All calls of the period, not only the page in sight. */
function DownloadCalls({ api, selection, name, only }: DownloadProps) {
  const { start, status } = useDownload(async (say) => {
    const calls: ListedCall[] = [];
    let page: ListedCall[];
    do {
      page = await api.calls(selection, only || null, calls.at(-1)?.cursor ?? null, DOWNLOAD_PAGE_SIZE);
      calls.push(...page);
      say(`${format.count(calls.length)} calls …`);
    } while (page.length === DOWNLOAD_PAGE_SIZE);
    downloadRows(only ? `${name}-${only}` : name, IN_FILE, calls);
  });
  return <>{status}<button onClick={start} aria-label="Download CSV: all calls of the period">Download CSV</button></>;
}
