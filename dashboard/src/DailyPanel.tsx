import type { ChartConfiguration } from "chart.js";
import { useMemo } from "preact/hooks";
import { Chart, type Palette } from "./Chart";
import { EVIDENCE_TITLES } from "./evidence";
import * as format from "./format";
import { Panel } from "./Panel";
import { daysOf, type Period } from "./period";
import { type Column, DownloadButton, Table } from "./Table";
import { totals } from "./totals";
import { type DailyUsage, EVIDENCE } from "./types";
import type { Loaded } from "./useLoaded";

const COLUMNS: Column<DailyUsage>[] = [
  { title: "day", value: (row) => row.day, show: (row) => format.longDay(row.day) },
  { title: "calls", value: (row) => row.calls, isNumber: true },
  { title: "billable_seconds", value: (row) => row.billable_seconds, isNumber: true },
  ...EVIDENCE.flatMap((kind): Column<DailyUsage>[] => [
    { title: `${kind}_calls`, value: (row) => row[`${kind}_calls`], isNumber: true },
    { title: `${kind}_seconds`, value: (row) => row[`${kind}_seconds`], isNumber: true, isHidden: true },
  ]),
  { title: "open_calls", value: (row) => row.open_calls, isNumber: true },
  { title: "failed_calls", value: (row) => row.failed_calls, isNumber: true },
];

const SHOWN = COLUMNS.map((column) => ({ ...column, title: heading(column.title) }));

function heading(title: string): string {
  return title === "billable_seconds" ? "Billable seconds" : title.replace("_calls", "").replace(/^./, (letter) => letter.toUpperCase());
}

export function DailyPanel({ loaded, period, name }: { loaded: Loaded<DailyUsage[]>; period: Period; name: string }) {
  return (
    <Panel
      class="wide"
      title="Day by day"
      loaded={loaded}
      isEmpty={(days) => days.length === 0}
      empty="No calls in this period."
      action={<DownloadButton name={name} columns={COLUMNS} rows={loaded.value ?? []} />}
    >
      {(days) => <Charts days={days} period={period} />}
    </Panel>
  );
}

function Charts({ days, period: { firstDay, lastDay } }: { days: DailyUsage[]; period: Period }) {
  const { calls, minutes } = useMemo(() => {
    const byDay = new Map(days.map((row) => [row.day, row]));
    const all = daysOf({ firstDay, lastDay });
    const pick = (value: (row: DailyUsage) => number) => all.map((day) => (byDay.has(day) ? value(byDay.get(day)!) : 0));
    return {
      calls: (colour: Palette): ChartConfiguration<"bar"> => ({
        type: "bar",
        data: {
          labels: all,
          datasets: [
            ...EVIDENCE.map((kind) => ({ label: EVIDENCE_TITLES[kind], data: pick((row) => row[`${kind}_calls`]), backgroundColor: colour(kind) })),
            { label: "Going on", data: pick((row) => row.open_calls), backgroundColor: colour("open") },
          ].filter(({ data }) => data.some((n) => n > 0)),
        },
        options: options("calls", true),
      }),
      minutes: (colour: Palette): ChartConfiguration<"bar"> => ({
        type: "bar",
        data: {
          labels: all,
          datasets: [{ label: "Billable minutes", data: pick((row) => Number(row.billable_seconds) / 60), backgroundColor: colour("accent") }],
        },
        options: options("minutes", false),
      }),
    };
  }, [days, firstDay, lastDay]);
  const sums = totals(days);
  const busiest = days.reduce((best, row) => (row.calls > best.calls ? row : best));
  const label = `${format.count(sums.calls)} calls from ${format.longDay(firstDay)} to ${format.longDay(lastDay)}; the most, ${format.count(busiest.calls)}, on ${format.longDay(busiest.day)}.`;

  return (
    <>
      <h3>Calls</h3>
      <Chart label={`Calls per day. ${label} The table below has every day.`} height={190} configure={calls} />
      <h3>Billable minutes</h3>
      <Chart
        label={`Billable minutes per day, ${format.minutes(sums.billable_seconds)} in all. The table below has every day.`}
        height={150}
        configure={minutes}
      />
      <details>
        <summary>Show as a table</summary>
        <Table caption="Usage by day" columns={SHOWN} rows={days} rowKey={(row) => row.day} />
      </details>
    </>
  );
}

function options(unit: "calls" | "minutes", hasLegend: boolean): NonNullable<ChartConfiguration<"bar">["options"]> {
  return {
    interaction: { mode: "index", intersect: false },
    datasets: { bar: { categoryPercentage: 0.86, barPercentage: 1, borderRadius: 2 } },
    scales: {
      x: {
        stacked: true,
        grid: { display: false },
        ticks: {
          maxRotation: 0,
          autoSkipPadding: 16,
          callback(value) {
            return format.day(this.getLabelForValue(Number(value)));
          },
        },
      },
      y: { stacked: true, beginAtZero: true, border: { display: false }, ticks: { precision: 0, maxTicksLimit: 5 }, afterFit: (axis) => (axis.width = 46) },
    },
    plugins: {
      legend: { display: hasLegend, position: "bottom", align: "start", labels: { boxWidth: 10, boxHeight: 10, padding: 14 } },
      tooltip: {
        callbacks: {
          title: ([item]) => (item ? format.longDay(item.label) : ""),
          label: (item) => ` ${item.dataset.label}: ${unit === "calls" ? format.count(item.raw as number) : format.minutes((item.raw as number) * 60)}`,
        },
        filter: (item) => (item.raw as number) > 0,
      },
    },
  };
}
