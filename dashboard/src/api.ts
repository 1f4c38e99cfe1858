import { createClient, type SupabaseClient } from "@supabase/supabase-js";
import { readMailLink } from "./link";
import { setting } from "./settings";
import type {
  CallStory, DailyUsage, FirstEvent, ListedCall, Month, PendingAdjustment, Place, PlanUsage, Refusal, StatementCharge,
  StatementLine, StatementTotal, Traffic, Widget, WidgetUsage,
} from "./types";

/** What the page asks the database, as the signed-in owner: row level security decides what comes back. */
export type Selection = { period_start: string; period_end: string; only_widget: string | null };

export class SignedOut extends Error {}

/** Null where the two settings are missing. */
export function connect(): SupabaseClient | null {
  const [url, key] = [setting("supabase-url"), setting("supabase-publishable-key")];
  if (!url || !key) return null;
  const isLink = readMailLink(location.hash).kind;
  return createClient(url, key, { auth: { detectSessionInUrl: () => isLink === "password" || isLink === "session" } });
}

type Answer = { data: unknown; error: { message: string; code?: string } | null; status: number; count: number | null };

/** The part of the library's query builder that is used here. */
interface Query extends PromiseLike<Answer> {
  eq(column: string, value: unknown): Query;
  neq(column: string, value: unknown): Query;
  gt(column: string, value: unknown): Query;
  order(column: string): Query;
  limit(rows: number): Query;
  range(from: number, to: number): Query;
}

const PAGE = 1000;
const PAUSES = [300, 1500]; // milliseconds before each further try
const EXACT = { count: "exact" } as const;

export class Api {
  constructor(private readonly client: SupabaseClient) {}

  widgets = () => this.byKey<Widget>("id", Infinity, () => this.rows("widgets", "id, name, allowed_domains, is_active"));

  billingZone = async (): Promise<string> => {
    const now = new Date().toISOString().slice(0, 7);
    const answer = await this.call<{ time_zone: string } | { time_zone: string }[]>("widget_billing_period", { period: now });
    return (Array.isArray(answer) ? answer[0]?.time_zone : answer.time_zone) ?? "UTC";
  };

  daily = (selection: Selection, days: number) =>
    this.byKey<DailyUsage>("day", days, () => this.rpc("widget_daily_usage", selection));

  months = (only_widget: string | null) => this.byKey<Month>("month", 2, () => this.rpc("widget_month_to_date", { only_widget }));

  usage = (selection: Selection, widgets: number) =>
    this.byKey<WidgetUsage>("widget_id", widgets, () => this.rpc("widget_billing_usage", selection));

  plans = (only_widget: string | null, widgets: number) =>
    this.byKey<PlanUsage>("widget_id", widgets, () => this.rpc("widget_plan_usage", { only_widget }));

  statements = (only_widget: string | null, only_period: string | null = null) =>
    this.byPosition<StatementTotal>(() => this.rpc("widget_statement_totals", { only_widget, only_period }));

  charges = (period: string, only_widget: string | null) =>
    this.byPosition<StatementCharge>(() =>
      this.ofStatement("widget_statement_charges", CHARGE_COLUMNS, period, only_widget).order("widget_id").order("usage_period")
    );

  /** All of them, or a page of the calls of the month itself; adjustments of earlier months apart. */
  lines = (period: string, only_widget: string | null, page?: { from: number; rows: number }) => {
    const query = () => inOrder(this.ofStatement("widget_statement_lines", LINE_COLUMNS, period, only_widget).eq("usage_period", period));
    return this.byPosition<StatementLine>(query, page?.from, page?.rows);
  };

  adjustments = (period: string, only_widget: string | null) =>
    this.byPosition<StatementLine>(() =>
      inOrder(this.ofStatement("widget_statement_lines", LINE_COLUMNS, period, only_widget).neq("usage_period", period))
    );

  pending = (only_widget: string | null) =>
    this.byPosition<PendingAdjustment>(() =>
      inOrder(this.rpc("widget_pending_adjustments", { only_widget }, PENDING_COLUMNS).order("usage_period"))
    );

  traffic = async (selection: Selection) => (await this.call<Traffic[]>("widget_traffic", selection))[0];

  places = (selection: Selection, by: "page" | "host") => this.call<Place[]>("widget_busiest_places", { ...selection, by });

  refusals = (selection: Selection, row_limit: number) =>
    this.byPosition<Refusal>(() => this.rpc("widget_refusal_totals", { ...selection, row_limit }));

  /** The next `page_size` of them, or all that are left. */
  calls = async (selection: Selection, only_calls: string | null, after_cursor: string | null, page_size: number) => {
    const found: ListedCall[] = [];
    for (;;) {
      const after = found.at(-1)?.cursor ?? after_cursor;
      const page = await this.call<ListedCall[]>("widget_call_list", {
        ...selection, only_calls, after_cursor: after, page_size: page_size - found.length,
      });
      found.push(...page);
      if (page.length === 0 || found.length >= page_size) return found;
    }
  };

  story = (widget_id: string, session_id: string, call_id: string) =>
    this.call<CallStory | null>("widget_call_story", { widget_id, session_id, call_id });

  /** Null as long as the widget has sent nothing; an archived month leaves its calls. */
  firstEvent = async (widget_id: string): Promise<FirstEvent | null> => {
    const first = async (table: string, columns: string, time: string) => {
      // Not counted: a widget may have millions.
      const query = () => this.client.from(table).select(columns).eq("widget_id", widget_id).order(time).limit(1);
      return (await this.ask(query)).data as FirstEvent[];
    };
    return (
      (await first("widget_analytics", "event_type, timestamp, page_url", "timestamp"))[0] ??
      (await first("widget_calls", "timestamp:started_at", "started_at"))[0] ??
      null
    );
  };

  private ofStatement(table: string, columns: string, period: string, only_widget: string | null): Query {
    const query = this.rows(table, columns).eq("period", period);
    return only_widget === null ? query : query.eq("widget_id", only_widget);
  }

  private rows = (table: string, columns: string) => this.client.from(table).select(columns, EXACT) as unknown as Query;

  private rpc = (name: string, parameters: Record<string, unknown>, columns = "*") =>
    this.client.rpc(name, parameters, EXACT).select(columns) as unknown as Query;

  private async call<T>(name: string, parameters: Record<string, unknown>): Promise<T> {
    return (await this.ask(() => this.client.rpc(name, parameters))).data as T;
  }

  /** All rows, however few the project gives at once, of which there can be `most`: each page begins after the last key. */
  private async byKey<T extends object>(key: keyof T & string, most: number, query: () => Query): Promise<T[]> {
    const rows: T[] = [];
    for (;;) {
      const last = rows.at(-1);
      const { data, count } = await this.ask(() => (last ? query().gt(key, last[key]) : query()).order(key).limit(PAGE));
      const page = data as T[];
      rows.push(...page);
      if (page.length === 0 || page.length === count || rows.length >= most) return rows;
    }
  }

  /** The same for lists that do not change, or have no single key; `most` of them, from a place on. */
  private async byPosition<T>(query: () => Query, from = 0, most = Infinity): Promise<T[]> {
    const rows: T[] = [];
    for (;;) {
      const start = from + rows.length;
      const size = Math.min(PAGE, most - rows.length);
      const { data, count } = await this.ask(() => query().range(start, start + size - 1));
      const page = data as T[];
      rows.push(...page);
      if (page.length === 0 || start + page.length === count || rows.length >= most) return rows;
    }
  }

  private async ask(query: () => PromiseLike<Answer>): Promise<Answer> {
    for (const pause of [...PAUSES, null]) {
      const answer = await query();
      const { error, status } = answer;
      if (!error) return answer;
      if (pause !== null && isPassing(status, error.code)) {
        await new Promise((resolve) => setTimeout(resolve, pause));
        continue;
      }
      if (status === 401) {
        // Expired, or of a project that is no more: only signing in again helps.
        await this.client.auth.signOut({ scope: "local" });
        throw new SignedOut();
      }
      throw new Error(status === 0 ? "The project cannot be reached." : error.message || `The project answered ${status}.`);
    }
    throw new Error("unreachable");
  }
}

/** 400 without a code: the pooled connection had died. PGRST303: this computer's clock and the server's differ a little. */
function isPassing(status: number, code = ""): boolean {
  return (status === 400 && code === "") || (status === 401 && code === "PGRST303") || [502, 503, 504].includes(status);
}

function inOrder(query: Query): Query {
  return query.order("started_at").order("widget_id").order("session_id").order("call_id");
}

const CHARGE_COLUMNS = "widget_id, usage_period, plan_valid_from, monthly_fee, included_seconds, price_per_minute, currency, " +
  "old_seconds, new_seconds, difference_seconds, old_amount, new_amount, difference_amount";
const PENDING_COLUMNS = "usage_period, widget_id, session_id, call_id, started_at, ended_at, outcome, evidence, " +
  "duration_seconds, old_seconds, new_seconds, difference_seconds, rule";
const LINE_COLUMNS = `period, ${PENDING_COLUMNS}`;
