import type { ComponentChildren } from "preact";
import { useRef, useState } from "preact/hooks";

type Download = { start: () => void; status: ComponentChildren };

/** A download that takes its time: one at once, and its progress or failure is said. */
export function useDownload(collect: (say: (progress: string) => void) => Promise<void>): Download {
  const [progress, setProgress] = useState("");
  const isBusy = useRef(false);

  async function run() {
    if (isBusy.current) return;
    isBusy.current = true;
    try {
      setProgress("Collecting …");
      await collect(setProgress);
      setProgress("");
    } catch (error) {
      setProgress(`The download failed: ${error instanceof Error ? error.message : error}`);
    } finally {
      isBusy.current = false;
    }
  }

  return { start: () => void run(), status: <span role="status" class="muted">{progress}</span> };
}
