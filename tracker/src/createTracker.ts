import { createQueue } from "./createQueue";
import { createSender, type LastAnswer } from "./createSender";
import { pageUrl } from "./pageUrl";
import { safely } from "./safely";
import type { Call, EventType, Flag, Tracker, TrackerOptions } from "./types";
import { uuid7 } from "./uuid7";

/** "false", undefined, null, "no", "0" and "off" are not. */
const isOn = (flag: Flag): boolean => !/^([0fnu]|of)/.test(flag + "");

const create = (given: Partial<TrackerOptions>): Tracker => {
  const { url, widgetId, heartbeatSeconds } = given;
  const active = url && widgetId && !isOn(given.demo);
  const sessionId = uuid7()!;
  const openCalls = new Set<string>();
  const lastAnswer: LastAnswer = {};
  const queue = createQueue(`wu:${url}:`);
  const { send, flush } = createSender(given, queue, lastAnswer);
  let seq = 0;
  let loaded = false;

  const record = (type: EventType, callId?: string, cause?: unknown): void => {
    if (active)
      queue.enqueue({
        widget_id: widgetId,
        event_type: type,
        session_id: sessionId,
        event_id: uuid7()!,
        page_url: seq && type !== "widget_load" ? undefined : pageUrl(),
        call_id: callId,
        seq: ++seq,
        properties: { ...lastAnswer, cause: cause && `${cause}`.slice(0, 99) },
      });
    lastAnswer.rtt_ms = undefined;
  };

  const tell = safely((type: EventType, callId?: string, cause?: unknown): void => {
    record(type, callId, cause);
    send();
  });

  const insight = (type: EventType): void => {
    const { doNotTrack, globalPrivacyControl } = navigator as Navigator & { globalPrivacyControl?: boolean };
    if (!isOn(given.respectPrivacySignals) || !(doNotTrack === "1" || globalPrivacyControl)) tell(type);
  };

  if (active) {
    // On iOS the list of tabs may fire neither pagehide nor visibilitychange, but it does fire blur.
    addEventListener("blur", () => send(true));
    // The most reliable last sign, but a mere switch of tabs gives it too: the call goes on.
    document.addEventListener("visibilitychange", () => document.hidden && send(true));
    // Not `unload`, which would cost the page its back/forward cache. If the page comes back from there, the calls are
    // still open here: their heartbeats go on, and their real end, being later, outranks this one.
    addEventListener("pagehide", safely(() => {
      openCalls.forEach(safely((callId) => record("call_end", callId, "pagehide")));
      send(true);
    }));
    addEventListener("pageshow", (event) => event.persisted && flush());
    addEventListener("online", flush);
    flush();
  }

  return {
    sessionId,
    load: safely(() => {
      if (!loaded) insight("widget_load");
      loaded = true;
    }),
    open: safely(() => insight("widget_open")),
    callStart(givenId): Call {
      // Not any argument: as an onclick handler this is called with an event.
      const callId = (typeof givenId === "string" && givenId) || uuid7()!;
      openCalls.add(callId);
      tell("call_start", callId);
      // At once, in the same request: a call that breaks off before its first interval is over would have no sign of
      // life, and the cleanup would take it for half an hour.
      tell("call_heartbeat", callId);
      const heartbeat = setInterval(tell, Math.max(+heartbeatSeconds! || 30, 0.1) * 1e3, "call_heartbeat", callId);
      const finish = safely((type: EventType, cause?: unknown): void => {
        clearInterval(heartbeat);
        if (openCalls.delete(callId)) tell(type, callId, cause);
      });
      return { id: callId, end: () => finish("call_end"), error: (cause) => finish("call_error", cause) };
    },
    flush: safely(flush),
  };
};

/**
 * One tracker is one session: one widget, loaded once. Nothing in here throws, blocks or sets a cookie.
 * Options that make no sense, or a page whose built-ins do not, make a tracker that does nothing.
 */
export const createTracker = (options: TrackerOptions): Tracker => safely(create)(options) || create({});
