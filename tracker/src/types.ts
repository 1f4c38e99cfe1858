/** What the server's `event_type` admits from a browser. */
export type EventType =
  | "widget_load"
  | "widget_open"
  | "call_start"
  | "call_end"
  | "call_error"
  | "call_heartbeat";

/** One event as it goes over the wire, without `age_ms`: that is computed at each sending. */
export interface UsageEvent {
  widget_id: string;
  event_type: EventType;
  session_id: string;
  event_id: string;
  seq: number;
  page_url?: string | undefined;
  call_id?: string | undefined;
  properties?: Record<string, unknown> | undefined;
}

/** A flag, as an option or as a `data-` attribute: `""` (`<script data-demo>`) and `"true"` are on, `"false"` is off. */
export type Flag = boolean | string | undefined;

export interface TrackerOptions {
  /** The Supabase project, `https://<ref>.supabase.co`. */
  url: string;
  /** Its publishable (anon) key. */
  key: string;
  /** The widget's id in `public.widgets`. */
  widgetId: string;
  /**
   * - `"form"` (default): key in the query, no preflight; hosted Supabase.
   * - `"header"`: key in a header, one preflight; gateways that do not take the key from the query.
   * - `"function"`: the `events` Edge Function, no key and no preflight.
   */
  transport?: "form" | "header" | "function" | undefined;
  /** Post here instead, exactly as written: a proxy path of your own. */
  endpoint?: string | undefined;
  /** While a call is open, say so this often (default 30, at least 0.1). */
  heartbeatSeconds?: number | string | undefined;
  /** Send nothing, store nothing. */
  demo?: Flag;
  /** Under Do Not Track or Global Privacy Control, leave out the insight events (`load`, `open`). */
  respectPrivacySignals?: Flag;
}

export interface Call {
  /** The call's id in `public.widget_calls`: give it to your backend, so that its events name the same call. */
  readonly id: string;
  /** The call is over. Only the first `end` or `error` counts. */
  end(): void;
  /** The call failed; `cause` is a short word or the error itself. */
  error(cause?: unknown): void;
}

export interface Tracker {
  /** The session's id in the ledger. */
  readonly sessionId: string;
  /** The widget is on the page. Counts once a tracker. */
  load(): void;
  /** The widget was opened. */
  open(): void;
  /** A call began. Pass its id if it already has one. */
  callStart(callId?: string): Call;
  /** Send what waits now, whatever the backoff says. */
  flush(): void;
}
