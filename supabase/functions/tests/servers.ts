/** A request as the upstream got it. */
export interface Received {
  method: string;
  path: string;
  headers: Headers;
  text: string;
}

export type Reply = (request: Request) => Response | Promise<Response>;

/** Stands where the REST API stands: a real HTTP server that keeps what it is sent. */
export function upstream(reply: Reply) {
  const received: Received[] = [];
  const server = serve(async (request) => {
    const { pathname, search } = new URL(request.url);
    const { method, headers } = request;
    // Awaited first: the headers of a request that was answered can no longer be read.
    const copy = new Headers(headers);
    received.push({ method, path: pathname + search, headers: copy, text: await request.text() });
    return await reply(request);
  });
  return { ...server, received };
}

/** Serves a handler on a free local port. */
export function serve(handler: Reply) {
  const server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, handler);
  const { port } = server.addr;
  return {
    port,
    url: `http://127.0.0.1:${port}`,
    [Symbol.asyncDispose]: () => server.shutdown(),
  };
}

/** An address that takes a request and never answers. */
export function silentAddress() {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const url = `http://127.0.0.1:${listener.addr.port}`;
  return { url, [Symbol.dispose]: () => listener.close() };
}

/** An address where nothing listens. */
export function deadAddress(): string {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  return `http://127.0.0.1:${listener.addr.port}`;
}

/** Writes bytes to a port as they are and returns the head of the answer, the body still open. */
export async function rawHead(port: number, request: string | Uint8Array): Promise<string> {
  using connection = await Deno.connect({ hostname: "127.0.0.1", port });
  const bytes = typeof request === "string" ? new TextEncoder().encode(request) : request;
  const writer = connection.writable.getWriter();
  // The server may answer and hang up before it has read everything.
  const written = writer.write(bytes as Uint8Array<ArrayBuffer>).catch(() => {});
  let head = "";
  for await (const text of connection.readable.pipeThrough(new TextDecoderStream())) {
    head += text;
    if (head.includes("\r\n\r\n")) break;
  }
  await written;
  return head;
}

/** What is logged meanwhile, kept out of the test's output. */
export function capturedLog() {
  const lines: string[] = [];
  const { log, error } = console;
  console.log = console.error = (...parts: unknown[]) =>
    void lines.push(
      parts.map((part) => typeof part === "string" ? part : Deno.inspect(part)).join(),
    );
  return { lines, [Symbol.dispose]: () => void Object.assign(console, { log, error }) };
}

/** The answer to one request to a function, what the function sent to its API for it, and what it logged. */
export async function exchange(
  reply: Reply,
  open: (apiUrl: string) => ReturnType<typeof serve>,
  send: (url: string) => Promise<Response>,
) {
  using log = capturedLog();
  await using api = upstream(reply);
  await using functions = open(api.url);
  const response = await send(functions.url);
  const text = await response.text();
  return {
    status: response.status,
    headers: response.headers,
    text,
    json: () => JSON.parse(text),
    received: api.received,
    lines: log.lines,
  };
}
