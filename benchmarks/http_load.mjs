// Sends the same request again and again over kept connections, each with ids of its own, and prints what came back.
// Its settings are one JSON argument: url, headers, body, connections, seconds. In the body SESSION is replaced by a new
// UUID, and each EVENT and number by one of its own.
import http from "node:http";
import { randomBytes } from "node:crypto";

const { url, headers, body, connections, seconds } = JSON.parse(process.argv[2]);
const agent = new http.Agent({ keepAlive: true, maxSockets: connections });
const milliseconds = [];
const statuses = {};

function uuid7() {
  const digits = Date.now().toString(16).padStart(12, "0") + "7" + randomBytes(10).toString("hex").slice(1);
  return digits.replace(/^(.{8})(.{4})(.{4}).(.{3})(.{12})$/, "$1-$2-$3-8$4-$5");
}

function send() {
  return new Promise((resolve, reject) => {
    const sent = body.replaceAll("SESSION", uuid7()).replaceAll(/EVENT\d+/g, uuid7);
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
    request.end(sent);
  });
}

const began = performance.now();
async function keepSending() {
  while (performance.now() - began < seconds * 1000) await send();
}
await Promise.all(Array.from({ length: connections }, keepSending));

milliseconds.sort((a, b) => a - b);
console.log(
  JSON.stringify({
    perSecond: (milliseconds.length * 1000) / (performance.now() - began),
    p95: milliseconds[Math.floor(milliseconds.length * 0.95)],
    statuses,
  }),
);
agent.destroy();
