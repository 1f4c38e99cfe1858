import { contactAddress, setting } from "./settings";

/** Says whom to ask, where the company has configured it. */
export function Contact({ subject }: { subject: string }) {
  const address = contactAddress(subject);
  if (address === null) return <>whoever sends you the invoice</>;
  return <a href={address} target="_blank" rel="noreferrer">{setting("billing-contact").replace(/^https:\/\//, "")}</a>;
}
