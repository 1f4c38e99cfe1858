// The door for call providers' webhooks: POST /providers/vapi and so on.
//
// Environment:
//   VAPI_WEBHOOK_SECRET              what the provider signs with; several while one replaces another,
//                                    with a blank between. A provider without one is refused. Likewise
//                                    RETELL_, ELEVENLABS_, LIVEKIT_ (key:secret), TWILIO_, DAILY_, ULTRAVOX_
//   PROVIDERS_PUBLIC_URL             this function's address as Twilio knows it, where it is not
//                                    SUPABASE_URL/functions/v1/providers
//   SUPABASE_URL                     set by the platform
//   SUPABASE_SECRET_KEYS             set by the platform: {"default":"sb_secret_…"}; goes first
//   SUPABASE_SERVICE_ROLE_KEY        set by the platform: the legacy key
//   BUF_BIGINT_DISABLE               read by the LiveKit SDK's Protocol Buffers; leave it unset
// Permissions: --allow-env=<those twelve> and --allow-net=<SUPABASE_URL's host, own address>.
// Providers call it without a key of the project: verify_jwt = false.
import { receive } from "./handler.ts";

Deno.serve((request) => receive(request, Deno.env));
