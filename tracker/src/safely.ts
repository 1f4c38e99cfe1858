/** The host page comes first: whatever goes wrong in here (denied storage, patched built-ins, our own mistake) stays in here. */
export const safely =
  <A extends unknown[], R>(work: (...args: A) => R) =>
  (...args: A): R | undefined => {
    try {
      return work(...args);
    } catch {}
  };
