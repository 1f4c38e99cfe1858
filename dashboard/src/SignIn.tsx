import type { SupabaseClient } from "@supabase/supabase-js";
import { useState } from "preact/hooks";

export function SignIn({ client, hasEnded }: { client: SupabaseClient; hasEnded: boolean }) {
  const [problem, setProblem] = useState("");
  const [isBusy, setIsBusy] = useState(false);

  async function signIn(event: SubmitEvent) {
    event.preventDefault();
    const fields = new FormData(event.currentTarget as HTMLFormElement);
    setIsBusy(true);
    setProblem("");
    const { error } = await client.auth.signInWithPassword({
      email: String(fields.get("email")),
      password: String(fields.get("password")),
    });
    setIsBusy(false);
    if (error) setProblem(error.status ? error.message : "The project cannot be reached.");
  }

  return (
    <main class="alone">
      <form class="card sign-in" onSubmit={signIn}>
        <h1>Usage of your widgets</h1>
        <p class="muted">{hasEnded ? "You are signed out." : "Sign in to see calls, minutes and the bill so far."}</p>
        <label>
          Email
          <input name="email" type="email" autocomplete="username" required autofocus />
        </label>
        <label>
          Password
          <input name="password" type="password" autocomplete="current-password" required />
        </label>
        <p role="alert" class="problem">{problem}</p>
        <button class="primary" disabled={isBusy}>{isBusy ? "Signing in…" : "Sign in"}</button>
      </form>
    </main>
  );
}
