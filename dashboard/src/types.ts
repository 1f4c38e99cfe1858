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
};

export type Month = {
  month: string;
  to_date_end: string;
  calls: number;
  billable_seconds: Numeric;
  amounts: Record<string, Numeric>;
  calls_to_date: number;
  billable_seconds_to_date: Numeric;
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
