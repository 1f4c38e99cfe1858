// One local URL in front of REST, Auth and the Edge Functions, as on the hosted platform.
// Settings arrive in the environment; the listening socket is inherited from the parent, so that
// the URL is known before this process runs and stays the same over a restart.
import { isUtf8 } from "node:buffer";
import http from "node:http";
import { getRequestListener } from "@hono/node-server";
import { App } from "@supabase/lite";
import { createPostgresConnection } from "@supabase/lite/postgres";
import { answerPreflight } from "./cors.mjs";
import { functionProxy } from "./functions.mjs";
import { withParameters } from "./parameters.mjs";
import { boundedReserve, connectionFailure } from "./pool.mjs";
import { headersAsUtf8, jsonAsText } from "./postgrest.mjs";

const settings = JSON.parse(process.env.GATEWAY_SETTINGS ?? "");

// Read once, by the project's owner: the login below may use nothing before it takes a role, and
// so would not see the tables.
const reader = createPostgresConnection({ url: settings.schema_url, postgresOptions: { max: 1 } });
await reader.exec("select 1"); // a bad address must show here; reading the schema hides errors
const schema = await reader.introspect();
await reader.close();

const roleOfKey = new Map([
  [settings.publishable_key, "anon"],
  [settings.anon_key, "anon"],
  [settings.secret_key, "service_role"],
  [settings.service_role_key, "service_role"],
]);

// The driver keeps a connection whose server was killed, and writes to it from where nobody can catch what it throws
// (https://github.com/porsager/postgres/issues/1154). So the pool can be replaced while the gateway lives on.
function open() {
  const connection = createPostgresConnection({
    url: settings.database_url,
    postgresOptions: { onnotice: () => {}, types: jsonAsText },
  });
  connection.driver.reserve = boundedReserve(connection.driver.options, {
    size: settings.pool_size,
    seconds: settings.acquisition_seconds,
  });
  headersAsUtf8(connection);
  // Otherwise the first request would grant everything to anon: this says that it is done already.
  connection.rlsState = "active";
  connection.introspect = async () => schema;
  const app = new App({
    connection,
    api: { schemas: ["public"], max_rows: settings.max_rows },
    auth: {
      enabled: true,
      jwt_secret: settings.jwt_secret,
      publishable_key: settings.publishable_key,
      secret_key: settings.secret_key,
      site_url: settings.api_url,
    },
    options: {
      server: {
        admin: false,
        disableStudio: true,
        apiKeys: {
          resolver: async (key) => {
            const role = roleOfKey.get(key);
            if (role === undefined) return null;
            return { type: role === "anon" ? "publishable" : "secret", claims: { role } };
          },
        },
      },
    },
  });
  void connection.writeCachedIntrospection(schema, { useDriver: true }); // kept in memory, for requests to find
  return { app, connection };
}

let { app, connection } = open();

process.on("uncaughtException", (error) => {
  console.error(error);
  if (!error.stack?.includes("/postgres/src/connection.js")) process.exit(1);
  // What waits for the broken pool would wait for ever: who asked hears that the connection is cut, and asks again.
  server.closeAllConnections();
  ({ app, connection } = open());
});

// What the library calls an error of its own, as PostgREST tells it. JSON nested deeper than the parser's stack is the
// sender's fault.
async function told(response) {
  if (response.status !== 500) return response;
  const { message } = await response.clone().json().catch(() => ({}));
  if (!/^RangeError: Maximum call stack/.test(message)) return connectionFailure(message) ?? response;
  const refusal = { code: "PGRST102", details: null, hint: null, message: "Invalid json: nested too deeply" };
  return Response.json(refusal, { status: 400 });
}

let requests = 0;

// PostgREST's answer to a request that took a pooled connection whose server had died.
function isOnDeadConnection(request) {
  const every = settings.dead_connection_every;
  return every > 0 && /\/rest\/v1\//.test(request.url) && ++requests % every === 0;
}

async function answer(received, env) {
  const isReadable = env.incoming.rawHeaders.every((each) => isUtf8(Buffer.from(each, "latin1")));
  const request = isReadable ? await withParameters(received, schema.functions) : null;
  // PostgREST's answer to bytes that are no UTF-8, in a header or a form. No page can read it: it says nothing of CORS.
  if (request === null) return new Response("Something went wrong", { status: 500 });

  const response = isOnDeadConnection(request)
    ? Response.json({ code: "", details: null, hint: null, message: "" }, { status: 400 })
    : request instanceof Response
    ? request
    : await told(await app.fetch(request, { peerAddress: env.incoming.socket.remoteAddress ?? null }));
  // A page may read any other answer, an error as well: without this it sees only "failed to fetch".
  if (response.headers.has("Access-Control-Allow-Origin")) return response;
  const headers = new Headers(response.headers);
  headers.set("Access-Control-Allow-Origin", "*");
  return new Response(response.body, { status: response.status, headers });
}

const restAndAuth = getRequestListener(answer);
const functions = functionProxy(settings.functions);

const server = http.createServer((incoming, outgoing) => {
  const path = incoming.url ?? "/";
  if (path.startsWith("/functions/v1/")) return functions(incoming, outgoing);
  if (!/^\/(rest|auth)\/v1(\/|\?|$)/.test(path)) {
    outgoing.writeHead(404, { "Content-Type": "application/json", "Access-Control-Allow-Origin": "*" });
    return outgoing.end('{"message":"no Route matched with those values"}');
  }
  if (incoming.method === "OPTIONS") return answerPreflight(incoming, outgoing);
  return restAndAuth(incoming, outgoing);
});

// Reads the schema now: a request must not wait for it, and a bad connection must show here.
await connection.exec("select 1");
await app.init();
server.listen({ fd: settings.socket }, () => console.log("gateway is ready"));
