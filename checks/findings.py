"""How checks report: a line for each finding, under the name of the tool."""

import sys
from collections.abc import Iterable, Mapping


def report(found: Mapping[str, Iterable[str]]) -> int:
    """Print what was found and return the exit status."""
    lines = [f"{tool}: {finding}" for tool, findings in found.items() for finding in findings]
    print("\n".join(lines) or f"nothing found: {', '.join(found)}", file=sys.stderr if lines else sys.stdout)
    return 1 if lines else 0
