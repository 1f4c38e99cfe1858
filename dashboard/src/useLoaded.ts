import { useCallback, useEffect, useRef, useState } from "preact/hooks";

export type Loaded<T> = { value?: T; error?: string; isLoading: boolean; retry: () => void };

/** Loads again whenever `key` changes; what came before stays in sight until then. An overtaken answer is dropped. */
export function useLoaded<T>(key: string, load: () => Promise<T>): Loaded<T> {
  const [state, setState] = useState<Omit<Loaded<T>, "retry">>({ isLoading: true });
  const [attempt, setAttempt] = useState(0);
  const current = useRef(load);
  current.current = load;

  useEffect(() => {
    let isOvertaken = false;
    setState(({ value }) => ({ isLoading: true, ...(value !== undefined && { value }) }));
    current.current().then(
      (value) => isOvertaken || setState({ value, isLoading: false }),
      (error: unknown) => isOvertaken || setState({ error: error instanceof Error ? error.message : String(error), isLoading: false }),
    );
    return () => {
      isOvertaken = true;
    };
  }, [key, attempt]);

  return { ...state, retry: useCallback(() => setAttempt((n) => n + 1), []) };
}
