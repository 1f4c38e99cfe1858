import type { SupabaseClient } from "@supabase/supabase-js";
import type { ComponentChildren } from "preact";
import { useState } from "preact/hooks";

type Props = { client: SupabaseClient; hasEnded: boolean; linkProblem: string | null };

/** Signing in, and the way for whoever has no password, or has forgotten it. */
export function SignIn({ client, hasEnded, linkProblem }: Props) {
  const [email, setEmail] = useState("");
  const [isForgotten, setIsForgotten] = useState(false);
  const [sentTo, setSentTo] = useState<string | null>(null);
  const [hasLinkProblem, setHasLinkProblem] = useState(linkProblem !== null);

  if (sentTo !== null) {
    return (
      <main class="alone">
        <div class="card sign-in" role="status">
          <h1>Check your email</h1>
          <p>If {sentTo} has an account here, a link to set a password is on its way. It works once, and for a short time only.</p>
          <button onClick={() => { setSentTo(null); setIsForgotten(false); }}>Back to signing in</button>
        </div>
      </main>
    );
  }

  if (isForgotten || hasLinkProblem) {
    return (
      <Form
        title={hasLinkProblem ? "This link does not work any more" : "Set a new password"}
        note={
          hasLinkProblem
            ? <>{linkProblem}. Ask for a new one.</>
            : "We send you a link to set one. Use it also if you were invited and have not set a password yet."
        }
        action="Send the link"
        busy="Sending…"
        submit={async () => {
          const { error } = await client.auth.resetPasswordForEmail(email, { redirectTo: location.origin + location.pathname });
          if (!error) {
            setSentTo(email);
            setHasLinkProblem(false);
          }
          return error;
        }}
        other={<button type="button" class="link" onClick={() => { setIsForgotten(false); setHasLinkProblem(false); }}>Back to signing in</button>}
      >
        <Email value={email} onChange={setEmail} />
      </Form>
    );
  }

  return (
    <Form
      title="Usage of your widgets"
      note={hasEnded ? "You are signed out." : "Sign in to see calls, minutes and the bill so far."}
      action="Sign in"
      busy="Signing in…"
      submit={async (fields) =>
        (await client.auth.signInWithPassword({ email: String(fields.get("email")), password: String(fields.get("password")) })).error}
      other={<button type="button" class="link" onClick={() => setIsForgotten(true)}>No password, or forgotten it?</button>}
    >
      <Email value={email} onChange={setEmail} />
      <label>
        Password
        <input name="password" type="password" autocomplete="current-password" required />
      </label>
    </Form>
  );
}

/** For whoever came by the link of an invitation, or asked for one. */
export function SetPassword({ client, email, onDone }: { client: SupabaseClient; email: string; onDone: () => void }) {
  return (
    <Form
      title="Choose a password"
      note={<>For {email}. From then on you sign in with it.</>}
      action="Save the password"
      busy="Saving…"
      submit={async (fields) => {
        const { error } = await client.auth.updateUser({ password: String(fields.get("password")) });
        if (!error) onDone();
        return error;
      }}
    >
      <input type="email" name="email" autocomplete="username" value={email} readOnly hidden />
      <label>
        New password
        <input name="password" type="password" autocomplete="new-password" minLength={6} required autofocus />
      </label>
    </Form>
  );
}

function Email({ value, onChange }: { value: string; onChange: (value: string) => void }) {
  return (
    <label>
      Email
      <input
        name="email" type="email" autocomplete="username" required autofocus
        value={value} onInput={(event) => onChange(event.currentTarget.value)}
      />
    </label>
  );
}

type FormProps = {
  title: string; note: ComponentChildren; action: string; busy: string; other?: ComponentChildren; children: ComponentChildren;
  submit: (fields: FormData) => Promise<{ status?: number | undefined; message: string } | null>;
};

function Form({ title, note, action, busy, other, children, submit }: FormProps) {
  const [problem, setProblem] = useState("");
  const [isBusy, setIsBusy] = useState(false);

  async function send(event: SubmitEvent) {
    event.preventDefault();
    setIsBusy(true);
    setProblem("");
    const error = await submit(new FormData(event.currentTarget as HTMLFormElement));
    setIsBusy(false);
    if (error) setProblem(error.status ? error.message : "The project cannot be reached.");
  }

  return (
    <main class="alone">
      <form class="card sign-in" onSubmit={send}>
        <h1>{title}</h1>
        <p class="muted">{note}</p>
        {children}
        <p role="alert" class="problem">{problem}</p>
        <button class="primary" disabled={isBusy}>{isBusy ? busy : action}</button>
        {other}
      </form>
    </main>
  );
}
