/** What a link in a mail of Supabase Auth brought here, in the address after "#". */
export type MailLink = { kind: "password" | "session" | "none" } | { kind: "problem"; message: string };

export function readMailLink(hash: string): MailLink {
  const fields = new URLSearchParams(hash.slice(1));
  const message = fields.get("error_description") ?? fields.get("error");
  if (message !== null) return { kind: "problem", message };
  if (!fields.has("access_token")) return { kind: "none" };
  // Both kinds of mail go to somebody who cannot sign in with a password yet.
  return { kind: /^(recovery|invite)$/.test(fields.get("type") ?? "") ? "password" : "session" };
}
