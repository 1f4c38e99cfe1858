/** Rows as the database answers them. Numerics may arrive as numbers or, exact, as text. */
export type Numeric = number | string;

export const EVIDENCE = ["observed", "provider", "operator", "heartbeat", "assumed"] as const;
export type Evidence = (typeof EVIDENCE)[number];

export type Widget = { id: string; name: string; allowed_domains: string[]; is_active: boolean };

export type EvidenceSums = { [K in `${Evidence}_calls`]: number } & { [K in `${Evidence}_seconds`]: Numeric };

export type DailyUsage = EvidenceSums & {
  day: string;
  calls: number;
  billable_seconds: Numeric;
  open_calls: number;
  failed_calls: number;
};

export type WidgetUsage = Omit<DailyUsage, "day"> & {
  widget_id: string;
  charged_seconds: Numeric;
  amount: Numeric | null;
  currency: string | null;
  fees: Numeric | null;
  closed_months: number;
  months: number;
  pending_calls: number;
  pending_seconds: Numeric;
  pending_amount: Numeric | null;
};

/** What a widget's plan makes of this month so far. Without a plan all of it is null but the seconds. */
export type PlanUsage = {
  widget_id: string;
  plan: string | null;
  monthly_fee: Numeric | null;
  price_per_minute: Numeric | null;
  currency: string | null;
  included_seconds: number | null;
  billable_seconds: Numeric;
  assumed_seconds: Numeric;
  amount: Numeric | null;
  forecast_seconds: Numeric | null;
  forecast_amount: Numeric | null;
};

export type StatementTotal = {
  period: string;
  currency: string | null;
  closed_at: string;
  widgets: number;
  seconds: Numeric;
  amount: Numeric | null;
  adjusted_seconds: Numeric;
  adjusted_amount: Numeric | null;
  assumed_seconds: Numeric | null;
};

export type StatementCharge = {
  widget_id: string;
  usage_period: string;
  plan_valid_from: string | null;
  monthly_fee: Numeric | null;
  included_seconds: number;
  price_per_minute: Numeric | null;
  currency: string | null;
  old_seconds: Numeric;
  new_seconds: Numeric;
  difference_seconds: Numeric;
  old_amount: Numeric | null;
  new_amount: Numeric | null;
  difference_amount: Numeric | null;
};

export type PendingAdjustment = Omit<Call, "billable_seconds" | "amount" | "currency" | "outcome"> & {
  usage_period: string;
  outcome: Call["outcome"] | null;
  old_seconds: Numeric;
  new_seconds: Numeric;
  difference_seconds: Numeric;
};

export type StatementLine = PendingAdjustment & { period: string };

export type FirstEvent = { event_type?: string; timestamp: string; page_url?: string | null };

export type Month = {
  month: string;
  to_date_end: string;
  calls: number;
  billable_seconds: Numeric;
  amounts: Record<string, Numeric>;
  calls_to_date: number;
  billable_seconds_to_date: Numeric;
  is_closed: boolean;
};

export type Traffic = {
  loads: number;
  opens: number;
  calls_started: number;
  calls_completed: number;
  calls_confirmed: number;
  events_received: number;
  completion_rate: Numeric | null;
  delivery_rate: Numeric | null;
};

export type Place = { place: string; loads: number; opens: number; calls: number };

export type Refusal = { widget_id: string; reason: string; detail: string; refusals: number; last_hour: string };

export type Call = {
  widget_id: string;
  session_id: string;
  call_id: string;
  started_at: string;
  ended_at: string | null;
  outcome: "open" | "completed" | "failed";
  evidence: Evidence | null;
  duration_seconds: Numeric | null;
  billable_seconds: Numeric;
  rule: string;
  amount: Numeric | null;
  currency: string | null;
};

export type ListedCall = Call & { cursor: string };

export type CallEvent = {
  id: string;
  event_type: string;
  source: string;
  timestamp: string;
  received_at: string;
  seq: number | null;
  page_url: string | null;
  properties: Record<string, unknown> | null;
};

export type CallStory = Call & {
  ended_by: string | null;
  last_heartbeat_at: string | null;
  is_capped: boolean;
  events: CallEvent[];
};
