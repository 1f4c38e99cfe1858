// Plays a part of a company's day against a gateway, faster than it was, and prints what came back: visits arrive at random,
// more of them by day than by night, load the widget, may open it, may call. Each event is sent when it happens; what happens
// later than it should have is late here, not on the bill, as an event's age says when it was. Its settings are one JSON
// argument: url, headers, requests (by name), widgets, calls_a_day, speed, from_hour, minutes, seed, truth (a file).
import http from "node:http";
import { createWriteStream } from "node:fs";
import { uuid7 } from "./uuid7.mjs";

const settings = JSON.parse(process.argv[2]);
const HOURS = [1, 1, 1, 1, 1, 2, 3, 5, 8, 10, 11, 11, 10, 10, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1];
const OPENS = 0.6; // of the visits that do not call
const VISITS_A_CALL = 3;
const CRASHES = 0.05;
const HEARTBEAT = 30; // seconds of the day
const MEAN_CALL = 120;

const truth = createWriteStream(settings.truth);
const agent = new http.Agent({ keepAlive: true, maxSockets: 128 });
const milliseconds = [];
const lateness = [];
const statuses = {};
const answers = [];
let calls = 0;

// mulberry32: the same day from the same seed.
let state = settings.seed;
function random() {
  state = (state + 0x6d2b79f5) | 0;
  let t = Math.imul(state ^ (state >>> 15), 1 | state);
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
  return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
}
const exponential = (mean) => -Math.log(1 - random()) * mean;

function post(name, visit, happened) {
  const events = settings.requests[name].map((event) => ({
    event_id: uuid7(),
    widget_id: visit.widget,
    session_id: visit.session,
    ...event,
    ...("call_id" in event ? { call_id: visit.call } : {}),
    seq: ++visit.seq,
    age_ms: Math.max(0, Math.round(performance.now() - happened)),
  }));
  const asked = performance.now();
  lateness.push(asked - happened);
  return new Promise((resolve) => {
    const options = { method: "POST", agent, headers: { ...settings.headers, "x-forwarded-for": visit.address } };
    const request = http.request(settings.url, options, (response) => {
      let body = "";
      response.on("data", (chunk) => (body += chunk));
      response.on("end", () => {
        milliseconds.push(performance.now() - asked);
        statuses[response.statusCode] = (statuses[response.statusCode] ?? 0) + 1;
        if (response.statusCode === 200 && JSON.parse(body).rejected.length > 0 && answers.length < 3) answers.push(body.slice(0, 300));
        resolve();
      });
    });
    request.on("error", (error) => {
      statuses[error.code] = (statuses[error.code] ?? 0) + 1;
      resolve();
    });
    request.end(new URLSearchParams({ events: JSON.stringify(events) }).toString());
  });
}

const until = (moment) => new Promise((resolve) => setTimeout(resolve, Math.max(0, moment - performance.now())));
const ofDay = (seconds) => (1000 * seconds) / settings.speed;

async function visit(began, calling) {
  const self = { widget: settings.widgets[Math.floor(random() ** 2 * settings.widgets.length)], session: uuid7(), seq: 0 };
  self.address = `203.0.${Math.floor(random() * 256)}.${Math.floor(random() * 256)}`;
  const opens = calling || random() < OPENS;
  const steps = [["load", began]];
  if (opens) steps.push(["open", began + ofDay(5 + exponential(10))]);
  if (calling) {
    self.call = uuid7();
    const started = steps.at(-1)[1] + ofDay(3);
    const ended = started + ofDay(Math.min(2 + exponential(MEAN_CALL), 3600));
    steps.push(["start with heartbeat", started]);
    let alive = started;
    while (alive + ofDay(HEARTBEAT) < ended) steps.push(["heartbeat", (alive += ofDay(HEARTBEAT))]);
    const crashes = random() < CRASHES;
    if (!crashes) steps.push(["end", ended]);
    calls += 1;
    truth.write(`${self.call},${((crashes ? alive : ended) - started) / 1000}\n`);
  }
  for (const [name, moment] of steps) {
    await until(moment);
    await post(name, self, moment);
  }
}

const began = performance.now();
const over = began + settings.minutes * 60_000;
const visits = [];
const perHour = settings.calls_a_day / HOURS.reduce((sum, weight) => sum + weight, 0);
for (let next = began; ; ) {
  const hour = settings.from_hour + ((next - began) * settings.speed) / 3_600_000;
  const callsAnHour = perHour * HOURS[Math.floor(hour) % 24];
  next += ofDay(exponential(3600 / callsAnHour / VISITS_A_CALL));
  if (next > over) break;
  await until(next);
  visits.push(visit(next, random() < 1 / VISITS_A_CALL));
}
const arrived = milliseconds.length / ((performance.now() - began) / 1000);
await Promise.all(visits);
truth.end();

const percentiles = (values) => {
  values.sort((a, b) => a - b);
  return [0.5, 0.95, 0.99, 1].map((share) => values[Math.min(values.length - 1, Math.floor(values.length * share))]);
};
console.log(
  JSON.stringify({
    visits: visits.length,
    calls,
    requests: milliseconds.length,
    perSecond: arrived,
    percentiles: percentiles(milliseconds),
    lateness: percentiles(lateness),
    statuses,
    answers,
  }),
);
agent.destroy();
