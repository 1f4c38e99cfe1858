"""Pages that notice what the tracker does to them."""

from local_stack.demo_site import Page

WATCH = """<script>
  // Whatever error monitoring would see, and every word in the console.
  window.troubles = [];
  addEventListener("error", (event) => troubles.push(`error: ${event.message}`));
  addEventListener("unhandledrejection", (event) => troubles.push(`rejection: ${event.reason}`));
  for (const kind of ["debug", "error", "info", "log", "trace", "warn"])
    console[kind] = (...words) => troubles.push(`${kind}: ${words.join(" ")}`);
</script>"""
TRACKER = '<script src="/usage.min.js" {{attributes}}></script>'


def shop(script: str = "", tracker: str = TRACKER) -> Page:
    """A page with the tracker, whose own script runs before it."""
    return Page(f"<!doctype html><title>A shop</title>{WATCH}<script>{script}</script>{tracker}")
