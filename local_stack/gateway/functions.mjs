import http from "node:http";

const PREFIX = "/functions/v1/";

function refuse(outgoing, status, code, message) {
  outgoing.writeHead(status, { "Content-Type": "application/json", "Access-Control-Allow-Origin": "*" });
  outgoing.end(JSON.stringify({ code, message }));
}

// Passes a request to the process that serves the function, preflights too: on the hosted
// platform a function answers those itself. `ports` maps a function's name to its port.
export function functionProxy(ports) {
  return (incoming, outgoing) => {
    const name = (incoming.url ?? "").slice(PREFIX.length).split(/[/?]/, 1)[0];
    if (!Object.hasOwn(ports, name)) {
      return refuse(outgoing, 404, "NOT_FOUND", "Requested function was not found");
    }
    const upstream = http.request({
      host: "127.0.0.1",
      port: ports[name],
      method: incoming.method,
      path: incoming.url.slice(PREFIX.length - 1), // the function sees /<name>/…, as when hosted
      headers: incoming.headers,
    });
    upstream.on("response", (response) => {
      outgoing.writeHead(response.statusCode, response.headers);
      response.pipe(outgoing);
    });
    upstream.on("error", () => {
      if (outgoing.headersSent) return outgoing.destroy();
      refuse(outgoing, 503, "BOOT_ERROR", "Function failed to start (please check logs)");
    });
    outgoing.on("close", () => upstream.destroy());
    incoming.pipe(upstream);
  };
}
