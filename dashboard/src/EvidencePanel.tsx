import type { ChartConfiguration } from "chart.js";
import { useMemo } from "preact/hooks";
import { Chart, type Palette } from "./Chart";
import { EVIDENCE_MEANINGS, EVIDENCE_TITLES } from "./evidence";
import * as format from "./format";
import { Panel } from "./Panel";
import { totals } from "./totals";
import { type DailyUsage, EVIDENCE } from "./types";
import type { Loaded } from "./useLoaded";

export function EvidencePanel({ loaded }: { loaded: Loaded<DailyUsage[]> }) {
  return (
    <Panel
      class="half"
      title="How we know when calls ended"
      note="The evidence behind the bill"
      loaded={loaded}
      isEmpty={(days) => days.length === 0}
      empty="No calls in this period."
    >
      {(days) => <Mix days={days} />}
    </Panel>
  );
}

function Mix({ days }: { days: DailyUsage[] }) {
  const sums = useMemo(() => totals(days), [days]);
  const kinds = EVIDENCE.filter((kind) => sums[`${kind}_calls`] > 0);
  const ended = kinds.reduce((total, kind) => total + sums[`${kind}_calls`], 0);
  const configure = useMemo(
    () => (colour: Palette): ChartConfiguration<"doughnut"> => ({
      type: "doughnut",
      data: {
        labels: kinds.map((kind) => EVIDENCE_TITLES[kind]),
        datasets: [{
          data: kinds.map((kind) => sums[`${kind}_calls`]),
          backgroundColor: kinds.map((kind) => colour(kind)),
          borderColor: colour("card"),
          borderWidth: 2,
        }],
      },
      options: { cutout: "64%", plugins: { legend: { display: false } } },
    }),
    [sums],
  );
  if (ended === 0) return <p class="state muted">No call has ended yet.</p>;
  return (
    <div class="mix">
      <Chart
        label={kinds.map((kind) => `${EVIDENCE_TITLES[kind]} ${format.share(sums[`${kind}_calls`] / ended)}`).join(", ")}
        height={150}
        configure={configure}
      />
      <table>
        <caption class="unseen">Ended calls by evidence</caption>
        <thead>
          <tr><th scope="col">Evidence</th><th scope="col" class="number">Calls</th><th scope="col" class="number">Minutes</th></tr>
        </thead>
        <tbody>
          {kinds.map((kind) => (
            <tr key={kind}>
              <th scope="row">
                <span class={`swatch ${kind}`} aria-hidden="true" />{EVIDENCE_TITLES[kind]}
                <span class="muted meaning">{EVIDENCE_MEANINGS[kind]}</span>
              </th>
              <td class="number">
                {format.count(sums[`${kind}_calls`])}
                <span class="muted meaning">{format.share(sums[`${kind}_calls`] / ended)}</span>
              </td>
              <td class="number">{format.minutes(sums[`${kind}_seconds`])}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}
