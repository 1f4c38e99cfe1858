// Sends the same visit again and again over kept connections: its requests in order, with ids of its own. Prints what
// came back. Its settings are one JSON argument: url, headers, bodies, connections, seconds. In a body SESSION is replaced
// by the visit's UUID, and each EVENT and number by one of its own.
import http from "node:http";
import { uuid7 } from "./uuid7.mjs";

const { url, headers, bodies, connections, seconds } = JSON.parse(process.argv[2]);
const agent = new http.Agent({ keepAlive: true, maxSockets: connections });
const milliseconds = [];
const statuses = {};

function send(body) {
  return new Promise((resolve, reject) => {
    const asked = performance.now();
    const request = http.request(url, { method: "POST", agent, headers }, (response) => {
      response.resume();
      response.on("end", () => {
        milliseconds.push(performance.now() - asked);
        statuses[response.statusCode] = (statuses[response.statusCode] ?? 0) + 1;
        resolve();
      });
    });
    request.on("error", reject);
    request.end(body);
  });
}

const began = performance.now();
const isOver = () => performance.now() - began >= seconds * 1000;
async function keepVisiting() {
  while (!isOver()) {
    const session = uuid7();
    for (const body of bodies) {
      if (isOver()) return;
      await send(body.replaceAll("SESSION", session).replaceAll(/EVENT\d+/g, uuid7));
    }
  }
}
await Promise.all(Array.from({ length: connections }, keepVisiting));

milliseconds.sort((a, b) => a - b);
const percentile = (share) => milliseconds[Math.floor(milliseconds.length * share)];
console.log(
  JSON.stringify({
    perSecond: (milliseconds.length * 1000) / (performance.now() - began),
    percentiles: [0.5, 0.95, 0.99].map(percentile),
    statuses,
  }),
);
agent.destroy();
