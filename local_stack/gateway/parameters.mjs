// A function's parameters as PostgREST reads them from a body, which the library takes as JSON alone.
import { isUtf8 } from "node:buffer";
import { exactly, isJson } from "./postgrest.mjs";

const RPC = "/rest/v1/rpc/";
const JSON_TYPES = ["json", "jsonb"];

const refused = (code, message, details = null) =>
  Response.json({ code, details, hint: null, message }, { status: 400 });

// The same request with its parameters in one JSON object; or the answer to a body that holds none. Null: a form that is
// no UTF-8.
export async function withParameters(request, functions) {
  const url = new URL(request.url);
  if (request.method !== "POST" || !url.pathname.startsWith(RPC)) return request;

  const name = url.pathname.slice(RPC.length);
  const types = Object.fromEntries(
    functions.filter((each) => each.name === name).flatMap(({ arg_names, arg_types }) =>
      arg_names.map((arg, i) => [arg, arg_types[i]])
    ),
  );
  const bytes = Buffer.from(await request.arrayBuffer());
  const kind = (request.headers.get("Content-Type") || "application/json").split(";", 1)[0].trim().toLowerCase();
  let body = bytes.toString();
  const headers = new Headers(request.headers);
  if (kind === "application/x-www-form-urlencoded") {
    const fields = formFields(body);
    if (fields === null || !isUtf8(bytes)) return null;
    const broken = [...fields].find(([field, value]) => JSON_TYPES.includes(types[field]) && !isJson(value));
    if (broken) return refused("22P02", "invalid input syntax for type json", `Token "${broken[1]}" is invalid.`);
    body = JSON.stringify(Object.fromEntries(fields));
  } else if (kind === "text/plain") {
    body = "{}"; // it goes to a single unnamed parameter, and is dropped where there is none
  } else if (kind === "application/json") {
    if (!isUtf8(bytes)) return refused("PGRST102", "Empty or invalid json");
    body = jsonFields(body, types, url.searchParams.get("columns")?.split(",")) ?? body;
    if (body instanceof Response) return body;
  } else return new Request(url, { method: "POST", headers, body: bytes });

  headers.set("Content-Type", "application/json");
  headers.delete("Content-Length");
  url.search = url.search.slice(1).split("&").filter((each) => each.includes("=")).join("&");
  return new Request(url, { method: "POST", headers, body });
}

// The last of equal names counts, and a value ends at its first NUL; null where it is no UTF-8.
function formFields(text) {
  try {
    decodeURIComponent(text.replace(/%(?![0-9a-f]{2})/gi, "%25"));
  } catch {
    return null;
  }
  return new Map([...new URLSearchParams(text)].map(([name, value]) => [name, value.split("\0", 1)[0]]));
}

// Of an array the first object, or an empty one; of the object the columns asked for, and what is not cast by the library
// as Postgres's JSON casts it, as the text that it is. Undefined where there is no object, or one that is nested too
// deep; the answer to half a surrogate pair.
function jsonFields(body, types, columns) {
  try {
    const parsed = JSON.parse(body, exactly);
    const object = Array.isArray(parsed) ? parsed[0] ?? {} : parsed;
    if (typeof object !== "object" || object === null) return undefined;
    const fields = Object.entries(object).filter(([name]) => columns?.includes(name) ?? true);
    if (fields.some(([, value]) => typeof value === "string" && !value.isWellFormed())) {
      return refused("22P02", "invalid input syntax for type json", "Unicode low surrogate must follow a high surrogate.");
    }
    const texts = fields.map(([name, value]) => [name, isText(types[name], value) ? JSON.stringify(value) : value]);
    return JSON.stringify(Object.fromEntries(texts));
  } catch {
    return undefined;
  }
}

function isText(type, value) {
  const isScalar = ["boolean", "number"].includes(typeof value) || JSON.isRawJSON(value);
  return value !== null && (JSON_TYPES.includes(type) || (type === "text" && typeof value === "object") || isScalar);
}
