// The relay to `track_events`, for gateways that take no `?apikey=` and for blocked API addresses.
//
// Environment, all set by the platform:
//   SUPABASE_URL
//   SUPABASE_SECRET_KEYS             {"default":"sb_secret_…"}; goes first
//   SUPABASE_SERVICE_ROLE_KEY        the legacy key
// Permissions: --allow-env=<those three> and --allow-net=<SUPABASE_URL's host, own address>.
// Browsers call it without a key: verify_jwt = false.
import { relay } from "./handler.ts";

Deno.serve((request) => relay(request, Deno.env));
