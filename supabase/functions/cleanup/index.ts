// The cleanup job's HTTP door, for schedulers outside the database.
//
// Environment:
//   CRON_SECRET                      what callers must send as `Authorization: Bearer …`
//   CLEANUP_ALLOW_UNAUTHENTICATED    `true` opens the door when CRON_SECRET is not set
//   SUPABASE_URL                     set by the platform
//   SUPABASE_SECRET_KEYS             set by the platform: {"default":"sb_secret_…"}; goes first
//   SUPABASE_SERVICE_ROLE_KEY        set by the platform: the legacy key
// Permissions: --allow-env=<those five> and --allow-net=<SUPABASE_URL's host, own address>.
// Its own check replaces the platform's: verify_jwt = false.
import { cleanup } from "./handler.ts";

Deno.serve((request) => cleanup(request, Deno.env));
