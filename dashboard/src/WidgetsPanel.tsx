import { Assumed } from "./Assumed";
import * as format from "./format";
import { Panel } from "./Panel";
import { type Column, DownloadButton, PagedTable } from "./Table";
import type { WidgetUsage } from "./types";
import type { Loaded } from "./useLoaded";

type Props = { loaded: Loaded<WidgetUsage[]>; names: Map<string, string>; name: string; onPick: (widget: string) => void };

export function WidgetsPanel({ loaded, names, name, onPick }: Props) {
  const nameOf = (row: WidgetUsage) => names.get(row.widget_id) ?? row.widget_id;
  const columns: Column<WidgetUsage>[] = [
    { title: "widget_id", value: (row) => row.widget_id, isHidden: true },
    { title: "Widget", value: nameOf, show: (row) => <button class="link" onClick={() => onPick(row.widget_id)}>{nameOf(row)}</button> },
    { title: "Calls", value: (row) => row.calls, show: (row) => format.count(row.calls), isNumber: true },
    { title: "Failed", value: (row) => row.failed_calls, show: (row) => format.count(row.failed_calls), isNumber: true, isMinor: true },
    { title: "Billable seconds", value: (row) => row.billable_seconds, show: (row) => <>{format.seconds(row.billable_seconds)}<Assumed of={row} /></>, isNumber: true },
    { title: "Charged seconds", value: (row) => row.charged_seconds, show: (row) => format.seconds(row.charged_seconds), isNumber: true, isMinor: true },
    {
      title: "Amount",
      value: (row) => row.amount,
      show: (row) => (row.amount === null || row.currency === null ? "no plan" : (
        <>
          {format.money(row.amount, row.currency)}
          {Number(row.pending_amount) !== 0 && (
            <span class="muted meaning">pending {format.money(row.pending_amount!, row.currency)}</span>
          )}
        </>
      )),
      isNumber: true,
    },
    { title: "Pending seconds", value: (row) => row.pending_seconds, isHidden: true },
    { title: "Pending amount", value: (row) => row.pending_amount, isHidden: true },
    { title: "Assumed seconds", value: (row) => row.assumed_seconds, isHidden: true },
    { title: "Currency", value: (row) => row.currency, isHidden: true },
  ];
  return (
    <Panel
      class="full"
      title="By widget"
      note="The bill of these days, after the minutes that a plan includes each month. Of a closed month it is what was charged."
      loaded={loaded}
      isEmpty={(rows) => rows.length === 0}
      empty="No calls in this period."
      action={<DownloadButton name={name} columns={columns} rows={loaded.value ?? []} />}
    >
      {(rows) => (
        <PagedTable
          caption="Usage by widget"
          columns={columns}
          rows={[...rows].sort((a, b) => nameOf(a).localeCompare(nameOf(b)))}
          rowKey={(row) => row.widget_id}
        />
      )}
    </Panel>
  );
}
