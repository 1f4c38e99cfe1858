/** What one call provider's webhooks look like. Everything else is the same for all of them. */
export interface Provider {
  /** Whether the provider signed this delivery with the secret, and lately. */
  verify(delivery: Delivery, secret: string): boolean | Promise<boolean>;

  /** What a verified delivery says of a call. */
  toRecord(payload: unknown): ProviderRecord | NoRecord;

  /** The payload of a delivery; a body of JSON where this is left out. */
  parse?(delivery: Delivery): unknown;

  /** Whether a body only asks if somebody listens. It is answered unsigned, as it says nothing. */
  isProbe?(body: Uint8Array): boolean;
}

/** A request as it arrived, for the one who checks its signature. */
export interface Delivery {
  headers: Headers;
  body: Uint8Array<ArrayBuffer>;
  /** The address that the provider was told to call, with its query as sent. */
  url: string;
  /** Milliseconds. */
  receivedAt: number;
}

/** The parameters of `record_widget_provider_call` that come from the payload. */
export interface ProviderRecord {
  record_id: string | undefined;
  call_id: string | undefined;
  started_at?: string;
  ended_at?: string;
  outcome: "completed" | "failed";
  reason?: string;
  agent?: string;
  widget_id?: string;
  session_id?: string;
  widget_call_id?: string;
  cost?: number;
  cost_currency?: string;
}

/** Why a delivery makes no record. */
export class NoRecord {
  private constructor(
    readonly reason: string,
    /** Whether the operator should read of it: something of a call is missing. */
    readonly isLogged: boolean,
  ) {}

  /** An event that says nothing of a finished call of a visitor in a browser. */
  static otherEvent = (reason: string) => new NoRecord(reason, false);

  /** A finished call that this delivery does not tell enough of. */
  static incomplete = (reason: string) => new NoRecord(reason, true);
}
