import * as format from "./format";
import { Panel } from "./Panel";
import { type Column, DownloadButton, Table } from "./Table";
import type { WidgetUsage } from "./types";
import type { Loaded } from "./useLoaded";

type Props = { loaded: Loaded<WidgetUsage[]>; names: Map<string, string>; name: string; onPick: (widget: string) => void };

export function WidgetsPanel({ loaded, names, name, onPick }: Props) {
  const nameOf = (row: WidgetUsage) => names.get(row.widget_id) ?? row.widget_id;
  const columns: Column<WidgetUsage>[] = [
    { title: "widget_id", value: (row) => row.widget_id, isHidden: true },
    { title: "Widget", value: nameOf, show: (row) => <button class="link" onClick={() => onPick(row.widget_id)}>{nameOf(row)}</button> },
    { title: "Calls", value: (row) => row.calls, show: (row) => format.count(row.calls), isNumber: true },
    { title: "Failed", value: (row) => row.failed_calls, show: (row) => format.count(row.failed_calls), isNumber: true },
    { title: "Billable seconds", value: (row) => row.billable_seconds, show: (row) => format.seconds(row.billable_seconds), isNumber: true },
    { title: "Charged seconds", value: (row) => row.charged_seconds, show: (row) => format.seconds(row.charged_seconds), isNumber: true },
    {
      title: "Amount",
      value: (row) => row.amount,
      show: (row) => (row.amount !== null && row.currency ? format.money(row.amount, row.currency) : "no plan"),
      isNumber: true,
    },
    { title: "Currency", value: (row) => row.currency, isHidden: true },
  ];
  return (
    <Panel
      class="full"
      title="By widget"
      note="The bill of these days, after the minutes that a plan includes each month"
      loaded={loaded}
      isEmpty={(rows) => rows.length === 0}
      empty="No calls in this period."
      action={<DownloadButton name={name} columns={columns} rows={loaded.value ?? []} />}
    >
      {(rows) => (
        <Table
          caption="Usage by widget"
          columns={columns}
          rows={[...rows].sort((a, b) => nameOf(a).localeCompare(nameOf(b)))}
          rowKey={(row) => row.widget_id}
        />
      )}
    </Panel>
  );
}
