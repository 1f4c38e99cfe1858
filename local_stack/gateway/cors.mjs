const METHODS = "GET, POST, PATCH, PUT, DELETE, OPTIONS, HEAD";
const HEADERS =
  "authorization, apikey, content-type, accept, accept-profile, content-profile, prefer, range, x-client-info";

// Answers as the hosted platform does: any origin, and whatever headers the page asks for.
export function answerPreflight(incoming, outgoing) {
  outgoing.writeHead(200, {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": METHODS,
    "Access-Control-Allow-Headers": incoming.headers["access-control-request-headers"] ?? HEADERS,
    "Access-Control-Max-Age": "86400",
    "Content-Length": "0",
  });
  outgoing.end();
}
