import type { ComponentChildren } from "preact";
import { useErrorBoundary } from "preact/hooks";

/** What goes wrong while its content is drawn stays inside: it is said, and can be tried again. */
export function Boundary({ children }: { children: ComponentChildren }) {
  const [error, retry] = useErrorBoundary((problem: unknown) => console.error(problem));
  if (error === undefined) return <>{children}</>;
  return (
    <div class="card state full" role="alert">
      <p>This could not be shown: {error instanceof Error ? error.message : String(error)}</p>
      <button onClick={retry}>Try again</button>
    </div>
  );
}
