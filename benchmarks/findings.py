"""What was found, as rows of one Markdown table."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True)
class Finding:
    what: str
    against: str
    measured: str
    target: str
    # None: there is no target.
    is_met: bool | None = None


def spread(values: Sequence[float], unit: str = " ×") -> str:
    """The median, and the least and the most."""
    return f"{figure(median(values))}{unit} ({figure(min(values))}–{figure(max(values))})"


def figure(value: float) -> str:
    """Two digits behind the point below ten, one below a hundred, none above."""
    return f"{value:,.{2 if abs(value) < 10 else 1 if abs(value) < 100 else 0}f}"


def at_least(values: Sequence[float], target: float) -> tuple[str, bool]:
    """A target and whether the median meets it."""
    return f"≥ {target:g} ×", median(values) >= target


def at_most(values: Sequence[float], target: float) -> tuple[str, bool]:
    return f"≤ {target:g} ×", median(values) <= target


HEAD = "| what | against | measured | target | met |\n|---|---|---|---|---|"


def row(finding: Finding) -> str:
    met = {True: "yes", False: "**no**", None: "–"}[finding.is_met]
    return f"| {finding.what} | {finding.against} | {finding.measured} | {finding.target} | {met} |"


def table(findings: Iterable[Finding]) -> str:
    return "\n".join([HEAD, *map(row, findings)])
