import { createQueue } from "./createQueue";
import { createSender, type LastAnswer } from "./createSender";
import { pageUrl } from "./pageUrl";
import { safely } from "./safely";
import type { Call, EventType, Flag, Tracker, TrackerOptions } from "./types";
import { uuid7 } from "./uuid7";

/** Says something of an open call: a sign of life, or, unless it `staysOpen`, its end. */
type Sign = (type: EventType, staysOpen?: boolean, cause?: unknown) => void;

/** "false", undefined, null, "no", "0" and "off" are not. */
const isOn = (flag: Flag): boolean => !/^([0fnu]|of)/.test(flag + "");

const create = (given: Partial<TrackerOptions>): Tracker => {
  const { url, widgetId, demo } = given;
  const isSilent = isOn(demo);
  const active = url && widgetId && !isSilent;
  const interval = Math.max(+given.heartbeatSeconds! || 30, 0.1) * 1e3;
  const sessionId = uuid7()!;
  const openCalls = new Set<Sign>();
  const lastAnswer: LastAnswer = {};
  const queue = createQueue(`wu:${url}:`);
  const { send, flush } = createSender(given, queue, lastAnswer);
  let seq = 0;
  let loaded = false;
  let hasLeft = false;

  const record = (type: EventType, callId?: string, cause?: unknown, age = 0, onSettled?: () => void): void => {
    if (active)
      queue.enqueue(
        {
          widget_id: widgetId,
          event_type: type,
          session_id: sessionId,
          event_id: uuid7()!,
          page_url: seq && type !== "widget_load" ? undefined : pageUrl(),
          call_id: callId,
          seq: ++seq,
          properties: { ...lastAnswer, cause: cause && `${cause}`.slice(0, 99) },
        },
        age,
        onSettled,
      );
    lastAnswer.rtt_ms = undefined;
  };

  /** Does it and sends what came of it; on a prerendered page not before it is shown, as it may never be. */
  const act = safely((work: () => void): void => {
    if ((document as Document & { prerendering?: boolean }).prerendering)
      document.addEventListener("prerenderingchange", () => act(work));
    else {
      work();
      send();
    }
  });

  const insight = (type: EventType): void => {
    const { doNotTrack, globalPrivacyControl } = navigator as Navigator & { globalPrivacyControl?: boolean };
    if (!isOn(given.respectPrivacySignals) || !(doNotTrack === "1" || globalPrivacyControl)) record(type);
  };

  const leave = safely((): void => {
    if (!hasLeft) {
      openCalls.forEach((sign) => sign("call_end", true, "pagehide"));
      send(true);
      hasLeft = true;
    }
  });

  if (active) {
    // On iOS the list of tabs may fire neither pagehide nor visibilitychange, but it does fire blur.
    addEventListener("blur", () => send(true));
    // The most reliable last sign, but a mere switch of tabs gives it too: the call goes on.
    document.addEventListener("visibilitychange", () => document.hidden && send(true));
    // Not `unload`, which would cost the page its back/forward cache. If the page comes back from there, the calls are
    // still open here: their heartbeats go on, and their real end, being later, outranks this one.
    // Three times, as Firefox kills the first function that runs once the last tab of a process is being closed
    // (dom.abort_script_on_child_shutdown): the next one says what that one could not.
    for (const _ of "1234") addEventListener("pagehide", () => leave());
    addEventListener("pageshow", () => {
      hasLeft = false;
      act(flush);
    });
    addEventListener("online", () => act(flush));
    act(flush);
  } else if (!isSilent) console.warn("widgetUsage: no url or widgetId");

  return {
    sessionId,
    load: () =>
      act(() => {
        if (!loaded) insight("widget_load");
        loaded = true;
      }),
    open: () => act(() => insight("widget_open")),
    callStart(givenId): Call {
      // Not any argument: as an onclick handler this is called with an event.
      const callId = (typeof givenId === "string" && givenId) || uuid7()!;
      let timer: ReturnType<typeof setInterval>;
      let isKnown = false;
      let wall: number;
      let monotonic: number;

      const touch = (): void => {
        wall = Date.now();
        monotonic = performance.now();
      };

      const sign = safely<Parameters<Sign>, void>((type, staysOpen, cause) => {
        if (openCalls.has(sign)) {
          // A sleeping computer stops the monotonic clock, and a wall clock that is put right looks like sleep. While
          // the server does not know the start, that jump does not matter: the start moves with it.
          let age = Math.max(performance.now() - monotonic, isKnown ? Date.now() - wall : 0);
          if (age > 10 * interval) {
            type = "call_end";
            cause = "silence";
            staysOpen = false;
          } else age = 0;
          record(type, callId, cause, age);
          touch();
          if (!staysOpen) {
            openCalls.delete(sign);
            clearInterval(timer);
          }
        }
      });

      act(() => {
        touch();
        openCalls.add(sign);
        record("call_start", callId, undefined, 0, () => {
          isKnown = true;
          touch();
        });
        // At once, in the same request: a call that breaks off before its first interval is over would have no sign of
        // life, and the cleanup would take it for half an hour.
        sign("call_heartbeat", true);
        timer = setInterval(() => act(() => sign("call_heartbeat", true)), interval);
      });
      return {
        id: callId,
        end: () => act(() => sign("call_end")),
        error: (cause) => act(() => sign("call_error", false, cause)),
      };
    },
    flush: () => act(flush),
  };
};

/**
 * One tracker is one session: one widget, loaded once. Nothing in here throws, blocks or sets a cookie.
 * Options that make no sense, or a page whose built-ins do not, make a tracker that does nothing.
 */
export const createTracker = (options: TrackerOptions): Tracker => safely(create)(options || {}) || create({ demo: true });
