import { useEffect, useState } from "preact/hooks";
import type { Api } from "./api";
import { Contact } from "./Contact";
import { EVIDENCE_TITLES } from "./evidence";
import * as format from "./format";
import { Panel } from "./Panel";
import { adjustmentColumns, adjustmentFile } from "./PendingPanel";
import { toPay } from "./StatementsPanel";
import { type Column, DownloadButton, downloadRows, Pages, plainColumns, Table } from "./Table";
import type { StatementCharge, StatementLine, StatementTotal, Widget } from "./types";
import { useDownload } from "./useDownload";
import { useLoaded } from "./useLoaded";

type Props = {
  api: Api; period: string; only: Widget | null; names: Map<string, string>; email: string; zone: string; onClose: () => void;
};

/** One closed month, on a page that prints as a document. */
export function StatementPage({ api, period, only, names, email, zone, onClose }: Props) {
  const day = `${period}-01`;
  const widget = only?.id ?? null;
  const title = `Statement for ${format.month(day)}`;
  const content = useLoaded(`${period} ${widget}`, async () => {
    const [totals, charges, adjustments] = await Promise.all([
      api.statements(widget, period), api.charges(day, widget), api.adjustments(day, widget),
    ]);
    return { totals, charges, adjustments };
  });

  useEffect(() => {
    document.title = title;
  }, [title]);

  const inFile: Column<StatementCharge>[] = [
    { title: "widget", value: (row) => names.get(row.widget_id) ?? "" },
    ...plainColumns<StatementCharge>([
      "widget_id", "usage_period", "monthly_fee", "included_seconds", "price_per_minute", "old_seconds", "new_seconds",
      "difference_seconds", "old_amount", "new_amount", "difference_amount", "currency",
    ]),
  ];
  return (
    <div class="statement">
      <p class="unprinted"><button onClick={onClose}>← Back to usage</button></p>
      <Panel
        title={title}
        note={<>{only ? names.get(only.id) : "All widgets"} of {email}. Days and months in {zone}.</>}
        loaded={content}
        isEmpty={({ totals }) => totals.length === 0}
        empty="There is no statement of this month: it has not been closed, or had nothing to bill."
        action={
          <>
            <DownloadButton name={`statement-${period}`} columns={inFile} rows={content.value?.charges ?? []} />
            <button class="primary" onClick={() => print()}>Print</button>
          </>
        }
      >
        {({ totals, charges, adjustments }) => (
          <>
            <Totals totals={totals} />
            <h3>Charges</h3>
            <Table
              caption="Charges"
              columns={chargeColumns(names, day)}
              rows={[...charges].sort((a, b) => order(a, names).localeCompare(order(b, names)))}
              rowKey={(row) => `${row.widget_id} ${row.usage_period}`}
            />
            {adjustments.length > 0 && (
              <>
                <h3>Calls of earlier months that changed</h3>
                <Table
                  caption="Adjusted calls"
                  columns={adjustmentColumns<StatementLine>(names)}
                  rows={adjustments}
                  rowKey={(row) => `${row.widget_id} ${row.session_id} ${row.call_id} ${row.usage_period}`}
                />
                <p class="unprinted file"><DownloadButton name={`adjusted-calls-${period}`} columns={adjustmentFile(names)} rows={adjustments} /></p>
              </>
            )}
            <p class="muted small query">
              Closed on {format.utcInstant(totals[0]!.closed_at)}. A statement never changes: what turns out later becomes an
              adjustment on a later one. To query it, ask <Contact subject={`${title} (${email})`} />.
            </p>
          </>
        )}
      </Panel>
      {content.value && content.value.totals.length > 0 && <Lines {...{ api, period, widget, names }} />}
    </div>
  );
}

const order = (row: StatementCharge, names: Map<string, string>) => `${names.get(row.widget_id)} ${row.widget_id} ${row.usage_period}`;

function Totals({ totals }: { totals: StatementTotal[] }) {
  return (
    <dl class="totals">
      {totals.map((row) => {
        const share = Number(row.seconds) > 0 ? Number(row.assumed_seconds) / Number(row.seconds) : 0;
        return (
          <div key={row.currency}>
            <dt>{row.currency ? "To be paid" : "Without a plan"}</dt>
            <dd class="value">{row.currency ? format.money(toPay(row), row.currency) : "no amount"}</dd>
            <dd class="muted">
              {format.plural(row.widgets, "widget")}, {format.minutes(row.seconds)} billed minutes (exactly {format.seconds(row.seconds)})
            </dd>
            {row.adjusted_amount !== null && row.currency && (
              <dd class="muted">
                {format.money(row.amount ?? 0, row.currency)} for this month, {format.money(row.adjusted_amount, row.currency)} adjustments of earlier months
              </dd>
            )}
            <dd class="muted">
              {share > 0
                ? `${format.share(share)} of the billed time is of calls whose end was assumed (${format.minutes(row.assumed_seconds!)} minutes).`
                : "No call's end was assumed."}
            </dd>
          </div>
        );
      })}
    </dl>
  );
}

function chargeColumns(names: Map<string, string>, period: string): Column<StatementCharge>[] {
  return [
    {
      title: "Widget",
      value: (row) => names.get(row.widget_id) ?? row.widget_id,
      show: (row) => (
        <>
          {names.get(row.widget_id) ?? row.widget_id}
          {row.usage_period !== period && <> <span class="tag">adjustment of {format.month(row.usage_period)}</span></>}
          <span class="muted meaning">{terms(row)}</span>
        </>
      ),
    },
    {
      title: "Billed seconds",
      value: (row) => row.difference_seconds,
      show: (row) => (
        <>
          {format.seconds(row.difference_seconds)}
          {row.usage_period !== period && <span class="muted meaning">{format.seconds(row.old_seconds)} → {format.seconds(row.new_seconds)}</span>}
        </>
      ),
      isNumber: true,
    },
    {
      title: "Amount",
      value: (row) => row.difference_amount,
      show: (row) => (row.difference_amount !== null && row.currency ? format.money(row.difference_amount, row.currency) : "no plan"),
      isNumber: true,
    },
  ];
}

function terms({ price_per_minute, monthly_fee, included_seconds, currency }: StatementCharge): string {
  if (price_per_minute === null || currency === null) return "no plan";
  return [
    Number(monthly_fee) > 0 && `${format.money(monthly_fee!, currency)} a month`,
    `${format.price(price_per_minute, currency)} a minute`,
    included_seconds > 0 && `${format.minutes(included_seconds)} minutes included`,
  ].filter(Boolean).join(", ");
}

const PAGE_SIZE = 25;
const LINES_IN_FILE = [
  "widget_id", "session_id", "call_id", "started_at", "ended_at", "outcome", "evidence", "duration_seconds", "new_seconds", "rule",
] as const;

type LinesProps = { api: Api; period: string; widget: string | null; names: Map<string, string> };

/** The month's calls, page by page: too many to be printed, and all of them in the file. */
function Lines({ api, period, widget, names }: LinesProps) {
  const [page, setPage] = useState(0);
  const from = page * PAGE_SIZE;
  const loaded = useLoaded(`${period} ${widget} ${page}`, () => api.lines(`${period}-01`, widget, { from, rows: PAGE_SIZE + 1 }));
  const nameOf = (row: StatementLine) => names.get(row.widget_id) ?? row.widget_id;
  const file = useDownload(async () =>
    downloadRows(
      `statement-calls-${period}`,
      [{ title: "widget", value: nameOf }, ...plainColumns<StatementLine>(LINES_IN_FILE)],
      await api.lines(`${period}-01`, widget),
    )
  );
  const columns: Column<StatementLine>[] = [
    {
      title: "Started",
      value: (row) => row.started_at,
      show: (row) => <>{format.localInstant(row.started_at)}<span class="muted meaning">{format.utcInstant(row.started_at)}</span></>,
    },
    { title: "Widget", value: nameOf, isMinor: true },
    { title: "Evidence", value: (row) => row.evidence, show: (row) => (row.evidence ? EVIDENCE_TITLES[row.evidence] : "–"), isMinor: true },
    { title: "Length", value: (row) => row.duration_seconds, show: (row) => format.duration(row.duration_seconds), isNumber: true },
    { title: "Billed", value: (row) => row.new_seconds, show: (row) => format.seconds(row.new_seconds), isNumber: true },
  ];
  return (
    <div class="unprinted lines">
      <Panel
        title="Calls on this statement"
        loaded={loaded}
        isEmpty={(rows) => rows.length === 0}
        empty="No calls."
        action={<>{file.status}<button onClick={file.start} aria-label="Download CSV: calls on this statement">Download CSV</button></>}
      >
        {(rows) => (
          <>
            <Table
              caption="Calls on this statement"
              columns={columns}
              rows={rows.slice(0, PAGE_SIZE)}
              rowKey={(row) => `${row.widget_id} ${row.session_id} ${row.call_id}`}
            />
            <Pages
              label="Pages of calls"
              first={from}
              shown={Math.min(rows.length, PAGE_SIZE)}
              total={undefined}
              onBefore={page > 0 ? () => setPage(page - 1) : null}
              onNext={rows.length > PAGE_SIZE ? () => setPage(page + 1) : null}
            />
          </>
        )}
      </Panel>
    </div>
  );
}
