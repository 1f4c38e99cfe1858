import type { ComponentChildren } from "preact";
import { useId } from "preact/hooks";
import { Boundary } from "./Boundary";
import type { Loaded } from "./useLoaded";

type Props<T> = {
  title: string;
  note?: ComponentChildren;
  loaded: Loaded<T>;
  isEmpty?: (value: T) => boolean;
  empty?: ComponentChildren;
  action?: ComponentChildren;
  class?: string;
  children: (value: T) => ComponentChildren;
};

/** A card with its four states: loading, failed, empty, full. */
export function Panel<T>({ title, note, loaded, isEmpty, empty, action, children, ...rest }: Props<T>) {
  const id = useId();
  const { value, error, isLoading, retry } = loaded;
  return (
    <section class={`card ${rest.class ?? ""}`} aria-labelledby={id} aria-busy={isLoading}>
      <header>
        <div>
          <h2 id={id}>{title}</h2>
          {note && <p class="muted">{note}</p>}
        </div>
        {action && value !== undefined && !isEmpty?.(value) && <div class="actions">{action}</div>}
      </header>
      {error !== undefined ? (
        <div class="state" role="alert">
          <p>This could not be loaded: {error}</p>
          <button onClick={retry}>Try again</button>
        </div>
      ) : value === undefined ? (
        <p class="state muted" role="status">Loading…</p>
      ) : isEmpty?.(value) ? (
        <div class="state muted">{empty ?? "Nothing in this period."}</div>
      ) : (
        <Boundary>
          <Content of={value} draw={children} />
        </Boundary>
      )}
    </section>
  );
}

/** A component of its own, so that the boundary around it catches what drawing it throws. */
function Content<T>({ of, draw }: { of: T; draw: (value: T) => ComponentChildren }) {
  return <>{draw(of)}</>;
}
