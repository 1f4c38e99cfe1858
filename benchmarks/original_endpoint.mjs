// The endpoint that this project started from, as a company would write it with supabase-js: look the widget up, check its
// domain, insert the row. Its settings are one JSON argument: url, key.
import http from "node:http";
import { createClient } from "@supabase/supabase-js";

const { url, key } = JSON.parse(process.argv[2]);
const supabase = createClient(url, key, { auth: { persistSession: false, autoRefreshToken: false } });

async function track(event, headers) {
  const { data: widget } = await supabase
    .from("widgets")
    .select("is_active, allowed_domains")
    .eq("id", event.widget_id)
    .maybeSingle();
  if (!widget?.is_active || !widget.allowed_domains.includes(new URL(headers.origin).hostname)) return 403;
  const { error } = await supabase.from("widget_bench_analytics").insert({
    id: crypto.randomUUID(),
    widget_id: event.widget_id,
    event_type: event.event_type,
    session_id: event.session_id,
    page_url: event.page_url,
    user_agent: headers["user-agent"],
    timestamp: new Date().toISOString(),
  });
  return error ? 500 : 200;
}

const server = http.createServer(async (request, response) => {
  try {
    const chunks = await Array.fromAsync(request);
    response.statusCode = await track(JSON.parse(Buffer.concat(chunks).toString()), request.headers);
  } catch {
    response.statusCode = 500;
  }
  response.end();
});
server.listen(0, "127.0.0.1", () => console.log(`listening on ${server.address().port}`));
