/** What the build, or whoever serves the page, wrote into index.html; empty where it was left out. */
export function setting(name: "supabase-url" | "supabase-publishable-key" | "billing-contact" | "tracker-url"): string {
  const value = document.querySelector<HTMLMetaElement>(`meta[name="${name}"]`)?.content ?? "";
  return value.startsWith("%") ? "" : value;
}

/** Where an owner asks about a bill: a mail with this subject, or the company's own page. */
export function contactAddress(subject: string): string | null {
  const contact = setting("billing-contact");
  if (contact === "") return null;
  return contact.includes("://") ? contact : `mailto:${contact}?subject=${encodeURIComponent(subject)}`;
}
