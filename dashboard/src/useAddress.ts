import { useCallback, useEffect, useState } from "preact/hooks";

/** What a link can share: the period and the widget. Nothing of a call or a page ever stands in the address. */
export type Address = { period: string; widget: string | null };

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

function read(): Address {
  const fields = new URLSearchParams(location.hash.slice(1));
  const widget = fields.get("widget");
  return { period: fields.get("period") ?? "30d", widget: widget && UUID.test(widget) ? widget.toLowerCase() : null };
}

export function useAddress(): [Address, (change: Partial<Address>) => void] {
  const [address, setAddress] = useState(read);

  useEffect(() => {
    const follow = () => setAddress(read());
    addEventListener("hashchange", follow);
    return () => removeEventListener("hashchange", follow);
  }, []);

  const change = useCallback((changes: Partial<Address>) => {
    const next = { ...read(), ...changes };
    const fields = new URLSearchParams({ period: next.period, ...(next.widget && { widget: next.widget }) });
    location.hash = fields.toString();
  }, []);

  return [address, change];
}
