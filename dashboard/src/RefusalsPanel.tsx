import * as format from "./format";
import { Panel } from "./Panel";
import { type Column, DownloadButton, PagedTable } from "./Table";
import type { Refusal } from "./types";
import type { Loaded } from "./useLoaded";

type Props = { loaded: Loaded<Refusal[]>; names: Map<string, string>; name: string };

export const MOST_REFUSALS = 1000;

const REASONS: Record<string, string> = {
  domain_not_allowed: "Domain not allowed",
  widget_inactive: "Widget switched off",
  invalid_input: "Unusable event",
  over_quota: "Over quota",
};

function remedy({ reason, detail }: Refusal) {
  switch (reason) {
    case "domain_not_allowed":
      if (detail === "") return "The page named no host. Look at its referrer policy.";
      if (detail === "(others)") return "Many different hosts: somebody may be trying.";
      return <>If this is your page, add <code>{detail}</code> to the widget's allowed domains.</>;
    case "widget_inactive":
      return "Switch the widget on, or take it off its pages.";
    case "invalid_input":
      return detail ? <>The field <code>{detail}</code> was wrong. Look at how the page sends events.</> : "Look at how the page sends events.";
    case "over_quota":
      return "More events than agreed. Ask for a higher quota.";
    default:
      return detail;
  }
}

export function RefusalsPanel({ loaded, names, name }: Props) {
  const columns: Column<Refusal>[] = [
    { title: "Widget", value: (row) => names.get(row.widget_id) ?? row.widget_id, isMinor: true },
    { title: "Host or field", value: (row) => row.detail, show: (row) => <span class="place" title={row.detail}>{row.detail || "–"}</span> },
    { title: "What to do", value: () => null, show: remedy },
    { title: "Reason", value: (row) => row.reason, show: (row) => REASONS[row.reason] ?? row.reason, isMinor: true },
    { title: "Events", value: (row) => row.refusals, show: (row) => format.count(row.refusals), isNumber: true },
    {
      title: "Last hour",
      value: (row) => row.last_hour,
      show: (row) => <>{format.localInstant(row.last_hour)}<span class="muted meaning">{format.utcInstant(row.last_hour)}</span></>,
      isMinor: true,
    },
  ];
  const inFile = columns.filter(({ title }) => title !== "What to do");
  return (
    <Panel
      class="full"
      title="Refused events"
      note={
        loaded.value?.length === MOST_REFUSALS
          ? `Sent from your widgets, and not taken: the ${format.count(MOST_REFUSALS)} most frequent`
          : "Sent from your widgets, and not taken"
      }
      loaded={loaded}
      isEmpty={(rows) => rows.length === 0}
      empty="None in this period."
      action={<DownloadButton name={name} columns={inFile} rows={loaded.value ?? []} />}
    >
      {(rows) => (
        <PagedTable caption="Refused events" columns={columns} rows={rows} rowKey={(row) => `${row.widget_id} ${row.reason} ${row.detail}`} />
      )}
    </Panel>
  );
}
