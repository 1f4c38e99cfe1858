// Prints the SQL of the auth tables that the gateway works on, so that migrations can refer to
// auth.users before the gateway starts.
import { getAuthSchemaSql } from "@supabase/lite";

process.stdout.write(getAuthSchemaSql());
