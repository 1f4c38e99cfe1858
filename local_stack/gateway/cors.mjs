const METHODS = "GET, POST, PATCH, PUT, DELETE, OPTIONS, HEAD";
const ALWAYS = "Accept, Accept-Language, Content-Language";

// Answers as PostgREST does: any origin, and whatever headers the page asks for, with those that it always allows.
export function answerPreflight(incoming, outgoing) {
  const asked = incoming.headers["access-control-request-headers"];
  outgoing.writeHead(200, {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": METHODS,
    "Access-Control-Allow-Headers": ["Authorization", asked, ALWAYS].filter(Boolean).join(", "),
    "Access-Control-Max-Age": "86400",
    "Content-Length": "0",
  });
  outgoing.end();
}
