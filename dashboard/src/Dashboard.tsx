import { useEffect, useMemo, useRef } from "preact/hooks";
import type { Api, Selection } from "./api";
import { CallList } from "./CallList";
import { Controls } from "./Controls";
import { DailyPanel } from "./DailyPanel";
import { EvidencePanel } from "./EvidencePanel";
import { Figures } from "./Figures";
import * as format from "./format";
import { FunnelPanel } from "./FunnelPanel";
import { MonthPanel } from "./MonthPanel";
import { boundsOf, readPeriod } from "./period";
import { PlacesPanel } from "./PlacesPanel";
import { RefusalsPanel } from "./RefusalsPanel";
import { totals } from "./totals";
import { useAddress } from "./useAddress";
import { useLoaded } from "./useLoaded";
import { WidgetsPanel } from "./WidgetsPanel";

type Props = { api: Api; email: string; onSignOut: () => void };

export function Dashboard({ api, email, onSignOut }: Props) {
  const basics = useLoaded("basics", async () => {
    const [widgets, zone] = await Promise.all([api.widgets(), api.billingZone()]);
    return { widgets, zone };
  });

  return (
    <>
      <a class="skip" href="#main" onClick={skip}>Skip to the figures</a>
      <header class="top">
        <span class="brand">Usage</span>
        <span class="who muted">{email}</span>
        <button onClick={onSignOut}>Sign out</button>
      </header>
      <main id="main" tabIndex={-1}>
        <h1 class="unseen">Usage of your widgets</h1>
        {basics.error !== undefined ? (
          <div class="card state" role="alert">
            <p>Your widgets could not be loaded: {basics.error}</p>
            <button onClick={basics.retry}>Try again</button>
          </div>
        ) : basics.value === undefined ? (
          <p class="starting" role="status">Loading…</p>
        ) : basics.value.widgets.length === 0 ? (
          <div class="card state">
            <h2>No widgets yet</h2>
            <p>No widget belongs to {email}. Ask whoever runs them to make you the owner of yours.</p>
          </div>
        ) : (
          <Report api={api} {...basics.value} />
        )}
      </main>
    </>
  );
}

// The address holds the selection, so a link to #main would lose it.
function skip(event: Event) {
  event.preventDefault();
  document.getElementById("main")?.focus();
}

type ReportProps = { api: Api; widgets: Awaited<ReturnType<Api["widgets"]>>; zone: string };

function Report({ api, widgets, zone }: ReportProps) {
  const [address, change] = useAddress();
  const { preset, period } = readPeriod(address.period, zone);
  const only = widgets.find(({ id }) => id === address.widget) ?? null;
  const { firstDay, lastDay } = period;
  const selection: Selection = useMemo(
    () => ({ ...boundsOf({ firstDay, lastDay }, zone), only_widget: only?.id ?? null }),
    [firstDay, lastDay, zone, only],
  );
  const key = JSON.stringify(selection);
  const names = useMemo(() => new Map(widgets.map(({ id, name }) => [id, name || "Unnamed widget"])), [widgets]);
  const inName = `${firstDay}-to-${lastDay}`;

  // What the page is opened for comes first; sums over more calls wait for it, as they would slow it down.
  const first = useRef<Promise<unknown>>(Promise.resolve());
  const after = async <T,>(ask: () => Promise<T>) => {
    await first.current.catch(() => undefined);
    return ask();
  };
  const daily = useLoaded(key, () => {
    const asked = api.daily(selection);
    first.current = asked;
    return asked;
  });
  const traffic = useLoaded(key, () => api.traffic(selection));
  const months = useLoaded(String(only?.id), () => after(() => api.months(only?.id ?? null)));
  const pages = useLoaded(key, () => api.places(selection, "page"));
  const hosts = useLoaded(key, () => api.places(selection, "host"));
  const refusals = useLoaded(key, () => api.refusals(selection));
  const usage = useLoaded(key, async () =>
    (await after(() => api.usage(selection))).filter((row) => !only || row.widget_id === only.id),
  );

  useEffect(() => {
    document.title = `Usage: ${only ? names.get(only.id) : "all widgets"}`;
  }, [only, names]);

  return (
    <>
      <Controls {...{ widgets, names, only, preset, period, zone, change }} />
      <p class="muted zone">
        Days and months are those of the bill, in {zone}. Times of single calls are yours ({format.viewerZone}), with UTC beside them.
      </p>
      <div class="grid">
        <Figures daily={daily} traffic={traffic} />
        <DailyPanel loaded={daily} period={period} name={`usage-by-day-${inName}`} />
        <MonthPanel loaded={months} />
        <EvidencePanel loaded={daily} />
        <FunnelPanel loaded={traffic} />
        <PlacesPanel title="Busiest pages" column="Page" loaded={pages} name={`pages-${inName}`} />
        <PlacesPanel title="Busiest domains" column="Domain" loaded={hosts} name={`domains-${inName}`} />
        <RefusalsPanel loaded={refusals} names={names} name={`refusals-${inName}`} />
        <WidgetsPanel loaded={usage} names={names} name={`usage-by-widget-${inName}`} onPick={(widget) => change({ widget })} />
        <CallList key={key} api={api} selection={selection} names={names} name={`calls-${inName}`} total={daily.value && totals(daily.value).calls} />
      </div>
    </>
  );
}
