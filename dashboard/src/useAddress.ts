import { useCallback, useEffect, useState } from "preact/hooks";

/** What a link can share: period, widget, and an open statement. Nothing of a call or a page ever stands in the address. */
export type Address = { period: string; widget: string | null; statement: string | null };

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;
const MONTH = /^[1-9][0-9]{3}-(0[1-9]|1[0-2])$/;

function read(): Address {
  const fields = new URLSearchParams(location.hash.slice(1));
  const [widget, statement] = [fields.get("widget"), fields.get("statement")];
  return {
    period: fields.get("period") ?? "30d",
    widget: widget && UUID.test(widget) ? widget.toLowerCase() : null,
    statement: statement && MONTH.test(statement) ? statement : null,
  };
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
    const fields = new URLSearchParams({
      period: next.period, ...(next.widget && { widget: next.widget }), ...(next.statement && { statement: next.statement }),
    });
    location.hash = fields.toString();
  }, []);

  return [address, change];
}
