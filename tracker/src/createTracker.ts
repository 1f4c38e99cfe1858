import { createQueue } from "./createQueue";
import { createSender, type RoundTrip } from "./createSender";
import { pageUrl } from "./pageUrl";
import { safely } from "./safely";
import type { Call, EventType, Flag, Tracker, TrackerOptions } from "./types";
import { uuid7 } from "./uuid7";

/** Says something of an open call: a sign of life, or, unless it `staysOpen`, its end. */
type Sign = (type: EventType, staysOpen?: boolean, cause?: unknown) => void;

/** "false", undefined, null, "no", "0" and "off" are not. */
export const isOn = (flag: Flag): boolean => !/^([0fnu]|of)/.test(flag as string);

const create = (given: Partial<TrackerOptions> = {}): Tracker => {
  const isActive =
    !isOn(given.demo) && ((given.url && given.widgetId) || void console.warn("widgetUsage: widgetId/url"));
  const interval = Math.max(given.heartbeatSeconds as number * 1e3 || 3e4, 100);
  const sessionId = uuid7()!;
  const calls: Sign[] = [];
  const roundTrip: RoundTrip = [];
  const { enqueue, adopt, nextBatch, settle } = createQueue("wu:" + given.url + ":");
  const { send, flush } = createSender(given, adopt, nextBatch, settle, roundTrip);
  let seq = 0;
  let loads = 0;
  let hasLeft: string | 0 | 1 | undefined; // why, once the ends are queued; 1 once they are sent, too

  const record = (type: EventType, callId?: string, onSettled?: (() => void) | 0, cause?: unknown, age?: number): void => {
    if (isActive)
      enqueue(
        {
          properties: { rtt_ms: roundTrip.pop(), cause: cause && String(cause).slice(0, 99) },
          event_id: uuid7()!,
          call_id: callId,
          event_type: type,
          page_url: seq && type != "widget_load" ? undefined : pageUrl(),
          widget_id: given.widgetId!,
          session_id: sessionId,
          seq: ++seq,
        },
        onSettled,
        age,
      );
  };

  /** Does it and sends what came of it; on a prerendered page not before it is shown, as it may never be. */
  const act = safely((work: () => void): void => {
    if ((document as Document & { prerendering?: boolean }).prerendering)
      document.addEventListener("prerenderingchange", () => act(work));
    else {
      hasLeft = 0;
      work();
      send();
    }
  });

  const insight = (type: EventType): void => {
    const { doNotTrack, globalPrivacyControl } = navigator as Navigator & { globalPrivacyControl?: boolean };
    if (!isOn(given.respectPrivacySignals) || !/1|t/.test([doNotTrack, globalPrivacyControl] as unknown as string))
      record(type);
  };

  const flushNow = (): void => act(flush);

  /**
   * The calls' end if there is a cause, else a sign of life; nothing once the page has been left, as a heartbeat after
   * the end would revoke it. Where Firefox kills it half-way, the next time sends what this one queued.
   */
  const hide = safely((cause?: string): void => {
    if (hasLeft != 1) {
      if (!hasLeft) calls.forEach((sign) => sign(cause ? "call_end" : "call_heartbeat", true, cause));
      hasLeft = cause;
      send(true);
      hasLeft = cause && 1;
    }
  });

  if (isActive) {
    // On iOS the list of tabs may fire neither pagehide nor visibilitychange, but it does fire blur.
    addEventListener("blur", () => send(true));
    // The most reliable last sign, and the only one where a phone's or a quitting browser's page is killed; but a mere
    // switch of tabs gives it too: the call goes on, with a heartbeat that ends it here if nothing follows.
    document.addEventListener("visibilitychange", () => hide());
    // Not `unload`, which would cost the page its back/forward cache. If the page comes back from there, the calls are
    // still open here: their heartbeats go on, and their real end, being later, outranks this one.
    // Four times, as Firefox kills the first function that runs once the last tab of a process is being closed
    // (dom.abort_script_on_child_shutdown): the next one says what that one could not.
    for (const _ of "0000") addEventListener("pagehide", () => hide("pagehide"));
    addEventListener("pageshow", (event) => event.persisted && flushNow());
    addEventListener("online", flushNow);
    flushNow();
  }

  return {
    sessionId,
    load: () => act(() => loads++ || insight("widget_load")),
    open: () => act(() => insight("widget_open")),
    callStart(givenId): Call {
      // Not any argument: as an onclick handler this is called with an event.
      const callId = givenId && (givenId as Partial<string>).trim ? givenId : uuid7()!;
      let timer: ReturnType<typeof setInterval> | void | 1 = 1; // until the call is over
      let unknown = 1 / 0; // until the server knows that it began
      let wall: number;
      let monotonic: number;

      const touch = (): void => {
        wall = Date.now();
        monotonic = performance.now();
      };

      const sign = safely<Parameters<Sign>, void>((type, staysOpen, cause) => {
        if (timer) {
          // A sleeping computer stops the monotonic clock, and a wall clock that is put right looks like sleep. While
          // the server does not know the start, that jump does not matter: the start moves with it.
          let age: number | undefined = Math.max(performance.now() - monotonic, Date.now() - wall - unknown);
          if (age > 10 * interval) {
            type = "call_end";
            staysOpen = false;
            cause = "silence";
          } else age = 0;
          if (!staysOpen) timer = clearInterval(timer);
          record(type, callId, 0, cause, age);
          touch();
        }
      });
      const beat = (): void => sign("call_heartbeat", true);

      act(() => {
        touch();
        calls.push(sign);
        record("call_start", callId, () => {
          unknown = 0;
          touch();
        });
        // At once, in the same request: a call that breaks off before its first interval is over would have no sign of
        // life, and the cleanup would take it for half an hour.
        beat();
        timer = setInterval(act, interval, beat) || 1;
      });
      return {
        id: callId,
        end: () => act(() => sign("call_end")),
        error: (cause) => act(() => sign("call_error", false, cause)),
      };
    },
    flush: flushNow,
  };
};

/**
 * One tracker is one session: one widget, loaded once. Nothing in here throws, blocks or sets a cookie.
 * Options that make no sense, or a page whose built-ins do not, make a tracker that does nothing.
 */
export const createTracker = (options: TrackerOptions): Tracker => safely(create)(options) || create({ demo: true });
