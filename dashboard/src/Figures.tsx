import type { ComponentChildren } from "preact";
import * as format from "./format";
import { totals } from "./totals";
import type { DailyUsage, Traffic } from "./types";
import type { Loaded } from "./useLoaded";

/** The four numbers that the page is opened for. */
export function Figures({ daily, traffic }: { daily: Loaded<DailyUsage[]>; traffic: Loaded<Traffic | undefined> }) {
  const sums = daily.value && totals(daily.value);
  const rates = traffic.value;
  return (
    <section class="figures" aria-label="The period at a glance">
      <Figure title="Calls" loaded={daily} value={sums && format.count(sums.calls)}>
        {sums && (sums.failed_calls + sums.open_calls > 0
          ? [sums.failed_calls && `${format.count(sums.failed_calls)} failed`, sums.open_calls && `${format.count(sums.open_calls)} going on`].filter(Boolean).join(", ")
          : "none failed")}
      </Figure>
      <Figure title="Billable minutes" loaded={daily} value={sums && format.minutes(sums.billable_seconds)}>
        {sums && `exactly ${format.seconds(sums.billable_seconds)}`}
      </Figure>
      <Figure title="Completion" loaded={traffic} value={rates && format.share(rates.completion_rate)}>
        calls whose end was observed
      </Figure>
      <Figure title="Delivery" loaded={traffic} value={rates && format.share(rates.delivery_rate)}>
        events sent that arrived
      </Figure>
    </section>
  );
}

type Props = { title: string; loaded: Loaded<unknown>; value: string | undefined; children: ComponentChildren };

function Figure({ title, loaded, value, children }: Props) {
  return (
    <dl class="card figure" aria-busy={loaded.isLoading} data-figure={title}>
      <dt>{title}</dt>
      <dd class="value">{loaded.error !== undefined ? "–" : (value ?? "…")}</dd>
      <dd class="muted">{loaded.error !== undefined ? "could not be loaded" : children}</dd>
    </dl>
  );
}
