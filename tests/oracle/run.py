"""Many histories of one family, one after the other; the first on which the two part is made small and told."""

import json
from collections import Counter
from collections.abc import Callable

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as with_seed

from tests.oracle import providers
from tests.oracle.histories import (
    Cleanup,
    History,
    Insert,
    Track,
    archived_histories,
    door_histories,
    ledger_histories,
    rated_histories,
    to_json,
)
from tests.oracle.play import Database, Played, check

FAMILIES = {
    "ledger": (ledger_histories(), "events of every source by SQL, cleanups in between"),
    "ties": (ledger_histories(ties=True), "the same, with events at the same instant"),
    "rated": (rated_histories(), "calls about the turns of months, under plans"),
    "archived": (archived_histories(), "events that come after the archive took those of their sessions"),
    "door": (door_histories(), "events by the RPCs as the anonymous role, cleanups in between"),
}


def run(
    database: Database, family: str, *, count: int, seed: int, on_progress: Callable[[], object] = lambda: None
) -> Counter[str]:
    """Raises a Disagreement on the smallest history found; else says what the histories held."""
    if family == "providers":
        return providers.run(database, count=count, seed=seed, on_progress=on_progress)
    seen: Counter[str] = Counter()
    strategy, _ = FAMILIES[family]

    @with_seed(seed)
    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def every_history(history: History) -> None:
        try:
            played = check(database, history)
        except Exception as error:
            error.add_note(f"Play it again with: scripts/oracle --replay '{json.dumps(to_json(history))}'")
            raise
        seen.update(_contents(history, played))
        on_progress()

    every_history()
    return seen


def _contents(history: History, played: Played) -> Counter[str]:
    """Nothing is proved by histories in which nothing happens: what these were made of."""
    seen = Counter(histories=1)
    for step, said in zip(history.steps, played["steps"], strict=True):
        match step:
            case Cleanup():
                seen["cleanup runs"] += 1
                seen["inferred ends"] += said["answer"][1]
                seen["calls left alive by a cleanup"] += said["answer"][2]
            case Insert() | Track():
                seen["events told"] += len(step.events)
    seen["events stored"] = len(played["ledger"])
    calls = played["steps"][-1]["calls"]
    seen["calls"] = len(calls)
    for *_, evidence, _duration in calls:
        seen[f"calls, {evidence or 'open'}"] += 1
    seen["bills with an amount"] = sum((bill["usage"] or {}).get("amount") is not None for bill in played["bills"])
    seen["calls that lost an inferred end"] = sum(
        any(row[2:4] == ["call_end", row[3]] and row[7] == "inferred" and row[5] == call[1] for row in played["ledger"])
        for call in calls
        if call[5] in ("observed", "provider", "operator")
    )
    seen["bills"] = len(played["bills"])
    seen["bills unlike the one of all that is known"] = sum(
        bill["calls"] != played["bills"][0]["calls"] for bill in played["bills"][1:]
    )
    seen["told again in another order"] = len(played["retold"])
    return seen
