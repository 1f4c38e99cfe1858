// Where the library differs from PostgREST: what it makes of values, of errors, and of a function's parameters.

// PostgREST's own table, first match first (https://docs.postgrest.org/en/v14/references/errors.html#http-status-codes).
const STATUSES = [
  [/^(23503|23505)/, 409],
  [/^25006/, 405],
  [/^(42883|42P01)/, 404],
  [/^(0[LP]|28)/, 403],
  [/^53400/, 500],
  [/^(08|53|57P01)/, 503],
  [/^P0001/, 400],
  [/^(09|21|2[5D]|38|39|3B|40|42P17|54|55|57|58|F0|HV|P0|XX)/, 500],
  [/^/, 400],
];
const LEFT_TO_THE_LIBRARY = /^(42501|42703|PT|PGRST)/; // it tells them as PostgREST does

// Says an error in the way in which a function says its own status, which the library passes on as it is.
function asPostgrest(error) {
  const { message, detail = null, hint = null } = error;
  // \u0000 is found by Postgres's JSON there, and here by its text.
  const code = error.code === "22021" && message.endsWith("0x00") ? "22P05" : error.code;
  if (error.name !== "PostgresError" || LEFT_TO_THE_LIBRARY.test(code)) return error;
  const [, status] = STATUSES.find(([codes]) => codes.test(code));
  return Object.assign(error, {
    code: "PGRST",
    message: JSON.stringify({ code, message, details: detail, hint }),
    detail: JSON.stringify({ status, headers: {} }),
  });
}

// Numbers keep the digits that Postgres wrote: 1.50, 9007199254740993.
export const exactly = (key, value, { source }) =>
  typeof value === "number" && String(value) !== source ? JSON.rawJSON(source) : value;

// Rows as Postgres's own JSON has them, which PostgREST sends: numbers as numbers, times with their "T".
// The library's queries are in lower case; those by which it sets the request up are not.
export function postgrestRows(unsafe) {
  return async (query, ...parameters) => {
    const isRead = query.startsWith("select ");
    try {
      const rows = await unsafe(isRead ? `select to_json(q)::text as q from (${query}) q` : query, ...parameters);
      return isRead ? rows.map(({ q }) => JSON.parse(q, exactly)) : rows;
    } catch (error) {
      throw asPostgrest(error);
    }
  };
}

export function isJson(text) {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

// JSON that is text already stays as it is: the driver would make a JSON string of it.
const serialize = (value) => (typeof value === "string" && isJson(value) ? value : JSON.stringify(value));
export const jsonAsText = {
  json: { to: 114, from: [114], serialize, parse: JSON.parse },
  jsonb: { to: 3802, from: [3802], serialize, parse: JSON.parse },
};

// A header is bytes, read here as Latin-1; the database gets it as the UTF-8 that it is.
export function headersAsUtf8(connection) {
  const withContext = connection.withContext.bind(connection);
  connection.withContext = (context, run, options) => {
    const headers = Object.entries(options?.rpc?.requestHeaders ?? {});
    const requestHeaders = Object.fromEntries(headers.map(([name, value]) => [name, `${Buffer.from(value, "latin1")}`]));
    return withContext(context, run, options?.rpc ? { ...options, rpc: { ...options.rpc, requestHeaders } } : options);
  };
}
