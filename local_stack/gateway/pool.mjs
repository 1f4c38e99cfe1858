import postgres from "postgres";
import { postgrestRows } from "./postgrest.mjs";

// The words and codes are PostgREST's.
export const NO_CONNECTION_FREE = "Timed out acquiring connection from connection pool.";
export const CONNECTION_LOST = "Could not connect with the database due to an internal error.";

// Says in a request's stead that it got no connection, or lost it; null if that is not what the message tells.
export function connectionFailure(message) {
  const told = (status, code, words) =>
    Response.json({ code, details: null, hint: null, message: words }, { status });
  if (message?.endsWith(NO_CONNECTION_FREE)) return told(504, "PGRST003", NO_CONNECTION_FREE);
  if (/^Error: .*\b(ECONN[A-Z]+|EPIPE|CONNECTION_[A-Z]+|CONNECT_TIMEOUT)\b/.test(message ?? "")) {
    return told(503, "PGRST001", CONNECTION_LOST);
  }
  return null;
}

// Takes the place of the driver's own reserve(). That one has no end to its patience: who asks while the database is
// gone waits, some for ever, and what they came for is run when it is back, with ages long out of date. Here nobody
// waits longer than `seconds`, and nothing is run for who was told so.
export function boundedReserve(options, { size, seconds }) {
  const idle = Array.from({ length: size }, () => new Connection({ ...options, connect_timeout: seconds }));
  const waiting = new Set();

  function free(connection) {
    const [next] = waiting;
    if (next === undefined) return idle.push(connection);
    waiting.delete(next);
    next(connection);
  }

  return () =>
    new Promise((resolve, reject) => {
      let isLate = false;
      const timer = setTimeout(() => {
        isLate = true;
        waiting.delete(take);
        reject(new Error(NO_CONNECTION_FREE));
      }, seconds * 1000);

      async function take(connection) {
        try {
          await connection.open();
        } catch (error) {
          clearTimeout(timer);
          free(connection);
          return reject(error);
        }
        clearTimeout(timer);
        if (isLate) return free(connection);
        resolve(connection.session(() => free(connection)));
      }

      const connection = idle.pop();
      if (connection === undefined) waiting.add(take);
      else void take(connection);
    });
}

// One connection, opened when it is needed. After a break the driver's object is thrown away with all that it still
// remembers of the old server.
class Connection {
  #options;
  #sql = null;

  constructor(options) {
    this.#options = options;
  }

  async open() {
    if (this.#sql !== null) return;
    const sql = postgres({
      ...this.#options,
      shared: { ...this.#options.shared, retries: 0 },
      max: 1,
      max_lifetime: null, // it would end in the midst of a transaction
      onclose: () => {
        if (this.#sql === sql) this.#sql = null;
      },
    });
    try {
      await sql.unsafe("select 1");
    } catch (error) {
      void sql.end({ timeout: 0 });
      throw error;
    }
    this.#sql = sql;
  }

  // What Kysely uses of a reserved connection.
  session(release) {
    const sql = this.#sql;
    return {
      // On a new connection the rest of a transaction would run without its beginning, and in another role.
      unsafe: postgrestRows(async (...query) => {
        if (sql === null || this.#sql !== sql) throw new Error("CONNECTION_CLOSED");
        return await sql.unsafe(...query);
      }),
      release,
    };
  }
}
