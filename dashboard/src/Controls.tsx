import { useId, useState } from "preact/hooks";
import { daysOf, isDay, LONGEST_PERIOD_DAYS, type Period, type Preset, PRESETS, today } from "./period";
import type { Widget } from "./types";
import type { Address } from "./useAddress";

type Props = {
  widgets: Widget[];
  names: Map<string, string>;
  only: Widget | null;
  preset: Preset | "custom";
  period: Period;
  zone: string;
  change: (changes: Partial<Address>) => void;
};

export function Controls({ widgets, names, only, preset, period, zone, change }: Props) {
  const [problem, setProblem] = useState("");
  const problemId = useId();

  function pickDays(event: Event) {
    const fields = new FormData((event.currentTarget as HTMLElement).closest("form")!);
    const [firstDay, lastDay] = [String(fields.get("from")), String(fields.get("to"))];
    if (!isDay(firstDay) || !isDay(lastDay)) return;
    if (lastDay < firstDay) return setProblem("The last day must not be before the first.");
    if (daysOf({ firstDay, lastDay }).length > LONGEST_PERIOD_DAYS) return setProblem(`At most ${LONGEST_PERIOD_DAYS} days.`);
    setProblem("");
    change({ period: `${firstDay}..${lastDay}` });
  }

  return (
    <form class="controls" onSubmit={(event) => event.preventDefault()}>
      <label>
        Widget
        <select value={only?.id ?? ""} onChange={(event) => change({ widget: event.currentTarget.value || null })}>
          <option value="">All widgets ({widgets.length})</option>
          {widgets.map((widget) => (
            <option key={widget.id} value={widget.id}>
              {names.get(widget.id)}{widget.is_active ? "" : " (switched off)"}
            </option>
          ))}
        </select>
      </label>
      <label>
        Period
        <select
          value={preset}
          onChange={(event) => {
            const chosen = event.currentTarget.value;
            setProblem("");
            change({ period: chosen === "custom" ? `${period.firstDay}..${period.lastDay}` : chosen });
          }}
        >
          {Object.entries(PRESETS).map(([value, title]) => <option key={value} value={value}>{title}</option>)}
          <option value="custom">Other days</option>
        </select>
      </label>
      <label>
        From
        <input type="date" name="from" value={period.firstDay} max={today(zone)} onChange={pickDays} aria-describedby={problemId} />
      </label>
      <label>
        To
        <input type="date" name="to" value={period.lastDay} max={today(zone)} onChange={pickDays} aria-describedby={problemId} />
      </label>
      <p id={problemId} role="alert" class="problem">{problem}</p>
    </form>
  );
}
