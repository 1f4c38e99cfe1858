import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import type { Api, Selection } from "./api";
import { CallList } from "./CallList";
import { Controls } from "./Controls";
import { DailyPanel } from "./DailyPanel";
import { Contact } from "./Contact";
import { EmptyWidget } from "./EmptyWidget";
import { EvidencePanel } from "./EvidencePanel";
import { Figures } from "./Figures";
import * as format from "./format";
import { FunnelPanel } from "./FunnelPanel";
import { MonthPanel } from "./MonthPanel";
import { PendingPanel } from "./PendingPanel";
import { addDays, boundsOf, daysOf, readPeriod } from "./period";
import { PlacesPanel } from "./PlacesPanel";
import { PlansPanel } from "./PlansPanel";
import { MOST_REFUSALS, RefusalsPanel } from "./RefusalsPanel";
import { StatementPage } from "./StatementPage";
import { StatementsPanel } from "./StatementsPanel";
import { amounts, totals } from "./totals";
import { useAddress } from "./useAddress";
import type { Widget } from "./types";
import { useLoaded } from "./useLoaded";
import { WidgetsPanel } from "./WidgetsPanel";

type Props = { api: Api; email: string; onSignOut: () => void };

export function Dashboard({ api, email, onSignOut }: Props) {
  const basics = useLoaded("basics", async () => {
    const [widgets, zone] = await Promise.all([api.widgets(), api.billingZone()]);
    return { widgets: widgets.sort((a, b) => a.name.localeCompare(b.name) || a.id.localeCompare(b.id)), zone };
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
            <p>No widget belongs to {email}. To become the owner of yours, ask <Contact subject={`Widgets of ${email}`} />.</p>
          </div>
        ) : (
          <Report api={api} email={email} {...basics.value} />
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

type ReportProps = { api: Api; email: string; widgets: Widget[]; zone: string };

function Report({ api, email, widgets, zone }: ReportProps) {
  const [address, change] = useAddress();
  const names = useMemo(() => namesOf(widgets), [widgets]);
  const only = widgets.find(({ id }) => id === address.widget) ?? null;
  const { statement } = address;
  if (statement !== null) {
    return <StatementPage {...{ api, only, names, email, zone }} period={statement} onClose={() => change({ statement: null })} />;
  }
  return <Usage {...{ api, widgets, names, only, zone, change }} period={address.period} />;
}

/** Two widgets of one name are told apart by the beginning of their ids. */
function namesOf(widgets: Widget[]): Map<string, string> {
  const times = new Map<string, number>();
  for (const { name } of widgets) times.set(name, (times.get(name) ?? 0) + 1);
  const title = ({ id, name }: Widget) => `${name || "Unnamed widget"}${times.get(name)! > 1 ? ` (${id.slice(0, 8)})` : ""}`;
  return new Map(widgets.map((widget) => [widget.id, title(widget)]));
}

type UsageProps = {
  api: Api; widgets: Widget[]; names: Map<string, string>; only: Widget | null; zone: string; period: string;
  change: ReturnType<typeof useAddress>[1];
};

function Usage({ api, widgets, names, only, zone, change, period: wanted }: UsageProps) {
  const { preset, period } = readPeriod(wanted, zone);
  const [arrivals, setArrivals] = useState(0); // first events that came while somebody waited for them
  const shown = only ?? (widgets.length === 1 ? widgets[0]! : null);
  const [waiting, setWaiting] = useState({ id: "", looks: 0 }); // for the first event of that widget, in vain so far
  const looks = waiting.id === shown?.id ? waiting.looks : 0;
  const { firstDay, lastDay } = period;
  const selection: Selection = useMemo(
    () => ({ ...boundsOf({ firstDay, lastDay }, zone), only_widget: only?.id ?? null }),
    [firstDay, lastDay, zone, only],
  );
  const widget = selection.only_widget;
  const key = JSON.stringify([selection, arrivals]);
  const billKey = JSON.stringify([widget, arrivals]);
  const inName = `${firstDay}-to-${lastDay}`;
  const most = only ? 1 : widgets.length;

  // What the page is opened for comes first; sums over more calls wait for it, as they would slow it down.
  const first = useRef<Promise<unknown>>(Promise.resolve());
  const after = async <T,>(ask: () => Promise<T>) => {
    await first.current.catch(() => undefined);
    return ask();
  };
  const daily = useLoaded(key, () => {
    const asked = api.daily(selection, daysOf(period).length);
    first.current = asked;
    return asked;
  });
  const traffic = useLoaded(key, () => api.traffic(selection));
  const months = useLoaded(billKey, () => after(() => api.months(widget)));
  const plans = useLoaded(billKey, () => after(() => api.plans(widget, most)));
  const statements = useLoaded(billKey, () => api.statements(widget));
  const pending = useLoaded(billKey, () => after(async () => {
    const rows = await api.pending(widget);
    const usage = await Promise.all(
      [...new Set(rows.map(({ usage_period }) => usage_period))].map((month) => api.usage(monthOf(month, zone, widget), most)),
    );
    return { rows, amounts: amounts(usage.flat(), ({ currency, pending_amount }) => ({ currency, amount: pending_amount })) };
  }));
  const pages = useLoaded(key, () => api.places(selection, "page"));
  const hosts = useLoaded(key, () => api.places(selection, "host"));
  const refusals = useLoaded(`${key} ${looks}`, () => api.refusals(selection, MOST_REFUSALS));
  const usage = useLoaded(key, () => after(() => api.usage(selection, most)));

  useEffect(() => {
    document.title = `Usage: ${only ? names.get(only.id) : "all widgets"}`;
  }, [only, names]);

  const onPick = (id: string) => change({ widget: id });
  return (
    <>
      <Controls {...{ widgets, names, only, preset, period, zone, change }} />
      <p class="muted zone">
        Days and months are those of the bill, in {zone}. Times of single calls are yours ({format.viewerZone}), with UTC beside them.
      </p>
      <div class="grid">
        {shown && (
          <EmptyWidget
            key={shown.id}
            api={api}
            widget={shown}
            name={names.get(shown.id)!}
            onNothing={(looks) => setWaiting({ id: shown.id, looks })}
            onFirstEvent={() => {
              setWaiting({ id: "", looks: 0 });
              setArrivals((n) => n + 1);
            }}
          />
        )}
        {looks > 0 ? <RefusalsPanel loaded={refusals} names={names} name={`refusals-${inName}`} /> : (
          <>
            <Figures daily={daily} traffic={traffic} />
            <DailyPanel loaded={daily} period={period} name={`usage-by-day-${inName}`} />
            <MonthPanel loaded={months} plans={plans.value} />
            <PlansPanel loaded={plans} names={names} onPick={onPick} />
            <StatementsPanel loaded={statements} onOpen={(month) => change({ statement: month.slice(0, 7) })} />
            <PendingPanel loaded={pending} names={names} />
            <EvidencePanel loaded={daily} />
            <FunnelPanel loaded={traffic} />
            <PlacesPanel title="Busiest pages" column="Page" loaded={pages} name={`pages-${inName}`} />
            <PlacesPanel title="Busiest domains" column="Domain" loaded={hosts} name={`domains-${inName}`} />
            <RefusalsPanel loaded={refusals} names={names} name={`refusals-${inName}`} />
            <WidgetsPanel loaded={usage} names={names} name={`usage-by-widget-${inName}`} onPick={onPick} />
            <CallList key={key} api={api} selection={selection} names={names} name={`calls-${inName}`} total={daily.value && totals(daily.value).calls} />
          </>
        )}
      </div>
    </>
  );
}

function monthOf(month: string, zone: string, only_widget: string | null): Selection {
  const next = `${addDays(month, 31).slice(0, 8)}01`;
  return { ...boundsOf({ firstDay: month, lastDay: addDays(next, -1) }, zone), only_widget };
}
