import type { Session, SupabaseClient } from "@supabase/supabase-js";
import { useEffect, useMemo, useState } from "preact/hooks";
import { Api } from "./api";
import { Dashboard } from "./Dashboard";
import type { MailLink } from "./link";
import { SetPassword, SignIn } from "./SignIn";

export function App({ client, link }: { client: SupabaseClient | null; link: MailLink }) {
  const [session, setSession] = useState<Session | null | undefined>(undefined);
  const [hasEnded, setHasEnded] = useState(false);
  const [lacksPassword, setLacksPassword] = useState(link.kind === "password");
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
  if (session === null) {
    return <SignIn client={client} hasEnded={hasEnded} linkProblem={link.kind === "problem" ? link.message : null} />;
  }
  if (lacksPassword) {
    return <SetPassword client={client} email={session.user.email ?? ""} onDone={() => setLacksPassword(false)} />;
  }
  return (
    <Dashboard
      key={session.user.id}
      api={api}
      email={session.user.email ?? ""}
      onSignOut={() => void client.auth.signOut({ scope: "local" })}
    />
  );
}
