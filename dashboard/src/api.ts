import { createClient, type SupabaseClient } from "@supabase/supabase-js";
import type { CallStory, DailyUsage, ListedCall, Month, Place, Refusal, Traffic, Widget, WidgetUsage } from "./types";

/** What the page asks the database, as the signed-in owner: row level security decides what comes back. */
export type Selection = { period_start: string; period_end: string; only_widget: string | null };

export class SignedOut extends Error {}

function setting(name: string): string {
  const value = document.querySelector<HTMLMetaElement>(`meta[name="${name}"]`)?.content ?? "";
  return value.startsWith("%") ? "" : value;
}

/** Null where the two settings are missing. */
export function connect(): SupabaseClient | null {
  const [url, key] = [setting("supabase-url"), setting("supabase-publishable-key")];
  if (!url || !key) return null;
  return createClient(url, key, { auth: { detectSessionInUrl: false } });
}

type Answer = { data: unknown; error: { message: string; code?: string } | null; status: number };

export class Api {
  constructor(private readonly client: SupabaseClient) {}

  widgets = () =>
    this.ask<Widget[]>(this.client.from("widgets").select("id, name, allowed_domains, is_active").order("name").order("id"));

  billingZone = async (): Promise<string> => {
    const now = new Date().toISOString().slice(0, 7);
    const answer = await this.call<{ time_zone: string } | { time_zone: string }[]>("widget_billing_period", { period: now });
    return (Array.isArray(answer) ? answer[0]?.time_zone : answer.time_zone) ?? "UTC";
  };

  daily = (selection: Selection) => this.call<DailyUsage[]>("widget_daily_usage", selection);

  months = (only_widget: string | null) => this.call<Month[]>("widget_month_to_date", { only_widget });

  usage = ({ period_start, period_end }: Selection) =>
    this.call<WidgetUsage[]>("widget_billing_usage", { period_start, period_end });

  traffic = async (selection: Selection) => (await this.call<Traffic[]>("widget_traffic", selection))[0];

  places = (selection: Selection, by: "page" | "host") => this.call<Place[]>("widget_busiest_places", { ...selection, by });

  refusals = (selection: Selection) => this.call<Refusal[]>("widget_refusal_totals", selection);

  calls = (selection: Selection, only_calls: string | null, after_cursor: string | null, page_size: number) =>
    this.call<ListedCall[]>("widget_call_list", { ...selection, only_calls, after_cursor, page_size });

  story = (widget_id: string, session_id: string, call_id: string) =>
    this.call<CallStory | null>("widget_call_story", { widget_id, session_id, call_id });

  private call<T>(name: string, parameters: Record<string, unknown>): Promise<T> {
    return this.ask<T>(this.client.rpc(name, parameters));
  }

  private async ask<T>(query: PromiseLike<Answer>): Promise<T> {
    const { data, error, status } = await query;
    if (error && status === 401) {
      // Expired, or of a project that is no more: only signing in again helps.
      await this.client.auth.signOut({ scope: "local" });
      throw new SignedOut();
    }
    if (error) throw new Error(status === 0 ? "The project cannot be reached." : error.message);
    return data as T;
  }
}
