import type { ChartConfiguration } from "chart.js";
import { useMemo } from "preact/hooks";
import { Chart, type Palette } from "./Chart";
import * as format from "./format";
import { Panel } from "./Panel";
import type { Traffic } from "./types";
import type { Loaded } from "./useLoaded";

export function FunnelPanel({ loaded }: { loaded: Loaded<Traffic | undefined> }) {
  return (
    <Panel
      class="half"
      title="From page to call"
      note="How many visitors go on to the next step. Counted every five minutes."
      loaded={loaded}
      isEmpty={(traffic) => !traffic || traffic.events_received === 0}
      empty="No events in this period."
    >
      {(traffic) => <Funnel traffic={traffic!} />}
    </Panel>
  );
}

function Funnel({ traffic }: { traffic: Traffic }) {
  const { loads, opens, calls_started, calls_completed } = traffic;
  const steps = [
    ["Page loads", loads],
    ["Widget opens", opens],
    ["Calls started", calls_started],
    ["Calls completed", calls_completed],
  ] as const;
  const configure = useMemo(
    () => (colour: Palette): ChartConfiguration<"bar"> => ({
      type: "bar",
      data: {
        labels: [`Loads`, "Opens", "Calls", "Completed"],
        datasets: [{ data: [loads, opens, calls_started, calls_completed], backgroundColor: colour("accent") }],
      },
      options: {
        indexAxis: "y",
        datasets: { bar: { categoryPercentage: 0.8, barPercentage: 1, borderRadius: 3 } },
        scales: {
          x: { beginAtZero: true, grid: { display: false }, border: { display: false }, ticks: { precision: 0, maxTicksLimit: 5 } },
          y: { grid: { display: false }, border: { display: false } },
        },
        plugins: { legend: { display: false } },
      },
    }),
    [loads, opens, calls_started, calls_completed],
  );
  return (
    <>
      <Chart label={steps.map(([title, n]) => `${title} ${format.count(n)}`).join(", ")} height={150} configure={configure} />
      <table>
        <caption class="unseen">From page to call</caption>
        <thead>
          <tr><th scope="col">Step</th><th scope="col" class="number">Number</th><th scope="col" class="number">Of the step before</th></tr>
        </thead>
        <tbody>
          {steps.map(([title, n], place) => {
            const before = place > 0 ? steps[place - 1]![1] : 0;
            return (
              <tr key={title}>
                <th scope="row">{title}</th>
                <td class="number">{format.count(n)}</td>
                <td class="number">{before > 0 ? format.share(n / before) : ""}</td>
              </tr>
            );
          })}
        </tbody>
      </table>
    </>
  );
}
