/** A refusal or failure that has an HTTP answer. Its message is for the caller to read. */
export class HttpError extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
    readonly headers: Record<string, string> = {},
    readonly extra: Record<string, unknown> = {},
  ) {
    super(message);
  }

  /** The shape of a PostgREST error, so that a caller parses one shape whatever the path. */
  toResponse(): Response {
    const body = { code: this.code, message: this.message, ...this.extra };
    return json(this.status, body, this.headers);
  }
}

export function json(status: number, body: unknown, headers: Record<string, string> = {}) {
  return Response.json(body, { status, headers: { "Cache-Control": "no-store", ...headers } });
}

export function methodNotAllowed(...allowed: string[]): HttpError {
  const allow = allowed.join(", ");
  return new HttpError(405, "method_not_allowed", `Use ${allow}.`, { Allow: allow });
}

/** Runs a handler; whatever it throws becomes a JSON answer, and our own faults are logged. */
export async function answering(
  functionName: string,
  handler: () => Promise<Response>,
): Promise<Response> {
  try {
    return await handler();
  } catch (error) {
    const known = error instanceof HttpError
      ? error
      : new HttpError(500, "internal_error", "The function failed. Its log has the reason.");
    if (known.status >= 500) {
      const detail = known === error ? known.cause : error;
      console.error(`${functionName}: ${known.message}`, ...(detail ? [detail] : []));
    }
    return known.toResponse();
  }
}

/**
 * CORS for any page.
 *
 * The origin is echoed and credentials are allowed because `sendBeacon` always asks with
 * credentials, and then a browser takes no `*`: a beacon with a JSON `Blob` would fail its
 * preflight and be lost. This opens nothing that `*` would keep shut: the function reads no cookie
 * and no Authorization header, so a page gets the same answer with a visitor's credentials
 * as without.
 */
export function withCors(request: Request, response: Response): Response {
  const headers = response.headers;
  const origin = request.headers.get("Origin");
  headers.set("Access-Control-Allow-Origin", origin ?? "*");
  if (origin !== null) headers.set("Access-Control-Allow-Credentials", "true");
  headers.append("Vary", "Origin");
  headers.set("Access-Control-Expose-Headers", "Retry-After");
  return response;
}

export function preflight(request: Request, ...methods: string[]): Response {
  const allow = methods.join(", ");
  return new Response(null, {
    status: 204,
    headers: {
      Allow: allow,
      "Access-Control-Allow-Methods": allow,
      // Echoed: with credentials a `*` here would mean a header of that name.
      "Access-Control-Allow-Headers": request.headers.get("Access-Control-Request-Headers") ??
        "Content-Type",
      "Access-Control-Max-Age": "86400",
    },
  });
}
