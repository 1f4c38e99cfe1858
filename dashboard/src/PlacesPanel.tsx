import * as format from "./format";
import { Panel } from "./Panel";
import { type Column, DownloadButton, Table } from "./Table";
import type { Place } from "./types";
import type { Loaded } from "./useLoaded";

type Props = { title: string; column: string; loaded: Loaded<Place[]>; name: string };

export function PlacesPanel({ title, column, loaded, name }: Props) {
  const columns: Column<Place>[] = [
    {
      title: column,
      value: (row) => row.place,
      // Text alone, never a link: whoever sends events decides what stands here.
      show: (row) => <span class="place" title={row.place}>{row.place.replace(/^https?:\/\//, "") || "not named"}</span>,
    },
    { title: "Loads", value: (row) => row.loads, show: (row) => format.count(row.loads), isNumber: true },
    { title: "Opens", value: (row) => row.opens, show: (row) => format.count(row.opens), isNumber: true },
    { title: "Calls", value: (row) => row.calls, show: (row) => format.count(row.calls), isNumber: true },
  ];
  return (
    <Panel
      class="half"
      title={title}
      loaded={loaded}
      isEmpty={(rows) => rows.length === 0}
      empty="No visits in this period."
      action={<DownloadButton name={name} columns={columns} rows={loaded.value ?? []} />}
    >
      {(rows) => <Table caption={title} columns={columns} rows={rows} rowKey={(row) => row.place} />}
    </Panel>
  );
}
