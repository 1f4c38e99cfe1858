import type { Session, SupabaseClient } from "@supabase/supabase-js";
import { useEffect, useMemo, useState } from "preact/hooks";
import { Api } from "./api";
import { Dashboard } from "./Dashboard";
import { SignIn } from "./SignIn";

export function App({ client }: { client: SupabaseClient | null }) {
  const [session, setSession] = useState<Session | null | undefined>(undefined);
  const [hasEnded, setHasEnded] = useState(false);
  const api = useMemo(() => client && new Api(client), [client]);

  useEffect(() => {
    if (!client) return;
    const { data } = client.auth.onAuthStateChange((event, next) => {
      setHasEnded(event === "SIGNED_OUT");
      // The same person's fresh token is no reason to draw everything anew.
      setSession((old) => (old && next && old.user.id === next.user.id ? old : next));
    });
    return () => data.subscription.unsubscribe();
  }, [client]);

  if (!client || !api) {
    return (
      <main class="alone">
        <h1>Not set up yet</h1>
        <p>
          This page lacks its two settings. Build it with <code>SUPABASE_URL</code> and{" "}
          <code>SUPABASE_PUBLISHABLE_KEY</code> in the environment.
        </p>
      </main>
    );
  }
  if (session === undefined) return <p class="starting" role="status">Loading…</p>;
  if (session === null) return <SignIn client={client} hasEnded={hasEnded} />;
  return (
    <Dashboard
      key={session.user.id}
      api={api}
      email={session.user.email ?? ""}
      onSignOut={() => void client.auth.signOut({ scope: "local" })}
    />
  );
}
