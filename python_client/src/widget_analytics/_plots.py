"""The report's plots, as SVG to stand in a page. Needs matplotlib, the extra ``report``."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from widget_analytics.models import Evidence

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Told apart by people who see few colours, too, and on paper without any by their order (Okabe and Ito).
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8c7a2e")
OTHERS = "#a3abb5"
# None of the widgets' colours; the paler, the less is known.
EVIDENCE_COLOURS = {
    Evidence.OBSERVED: "#1f4e5f",
    Evidence.PROVIDER: "#4f9aa8",
    Evidence.OPERATOR: "#7a5c99",
    Evidence.HEARTBEAT: "#e2b36b",
    Evidence.ASSUMED: "#c9ced6",
}
_INK, _LINE = "#5b6675", "#d9dee5"
_SHORT = 26
# Those that the page gives another value by night.
_PAGES_OWN = {_INK: "var(--soft)", _LINE: "var(--line)", EVIDENCE_COLOURS[Evidence.OBSERVED]: "var(--observed)"}


def in_page(text: str) -> str:
    """Put the page's own colours in their place."""
    for colour, own in _PAGES_OWN.items():
        text = text.replace(colour, own)
    return text


def stacked_days(days: list[int], series: list[tuple[str, list[float]]]) -> str:
    """Draw a bar for each day, its parts one above the other: (colour, a value for each day)."""

    def draw(axes: Axes) -> None:
        bottom = [0.0] * len(days)
        for colour, values in series:
            axes.bar(days, values, bottom=bottom, color=colour, width=0.78)
            bottom = [low + value for low, value in zip(bottom, values, strict=True)]
        axes.set_xticks([day for day in days if day == 1 or day % 5 == 0])
        axes.set_xlim(days[0] - 0.6, days[-1] + 0.6)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:,g}")
        axes.grid(axis="y", color=_LINE, linewidth=0.8)

    return _svg("days", 3.2, draw)


def stacked_shares(rows: list[tuple[str, list[tuple[str, float]]]]) -> str:
    """Draw a bar from 0 to 100 % for each row, its parts side by side: (colour, share)."""

    def draw(axes: Axes) -> None:
        for place, (_, parts) in enumerate(rows):
            left = 0.0
            for colour, share in parts:
                axes.barh(place, share, left=left, color=colour, height=0.66)
                left += share
        axes.set_yticks(range(len(rows)), [_short(label) for label, _ in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlim(0, 1)
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0 %", "25 %", "50 %", "75 %", "100 %"])

    return _svg("shares", 0.45 + 0.32 * len(rows), draw)


def _short(label: str) -> str:
    return label if len(label) <= _SHORT else f"{label[: _SHORT - 1]}…"


def _svg(name: str, height: float, draw: Callable[[Axes], None]) -> str:
    from matplotlib import rc_context  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415 (not pyplot, which keeps figures and looks for a screen)

    settings: Any = {
        # Text stays text, in the page's own letters; a name with two dollar signs is no formula.
        "svg.fonttype": "none",
        "text.parse_math": False,
        # Ids differ between the page's plots, and are the same each time.
        "svg.hashsalt": name,
    }
    out = io.StringIO()
    with rc_context(settings), warnings.catch_warnings():
        # The letters that matplotlib measures with may lack some that the reader's have.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure = Figure(figsize=(9, height), layout="constrained")
        axes = figure.add_subplot()
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.spines["bottom"].set_color(_LINE)
        axes.tick_params(colors=_INK, length=0, labelsize=9)
        axes.set_axisbelow(True)
        draw(axes)
        figure.savefig(
            out, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type"))
        )
    drawn = out.getvalue()
    return in_page(drawn[drawn.index("<svg") :])
