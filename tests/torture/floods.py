"""One widget is flooded: its stored rows stay within its quota, and nobody else notices."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from statistics import median, quantiles
from uuid import UUID

import httpx
import psycopg

from local_stack.stack import Stack

NEIGHBOURS = 9
EVENTS_PER_SECOND = 2
TIMES = 10
WARM_UP_SECONDS = 3.0


@dataclass
class Answers:
    """What senders heard: how often which status, and how many seconds after the moment at which it was to be sent."""

    statuses: Counter[int] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)

    @property
    def acceptance(self) -> float:
        return self.statuses[200] / self.statuses.total()

    @property
    def p99(self) -> float:
        return quantiles(self.seconds, n=100)[-1]


@dataclass(frozen=True)
class Round:
    """The neighbours' answers in a quiet while and in a flood, next to each other; a widget of its own is flooded."""

    quiet: Answers
    during: Answers
    flooded: Answers
    stored: int


@dataclass(frozen=True)
class Flood:
    """All rounds of it."""

    rounds: list[Round]
    quota: int
    """Of the flooded widget, in each round."""

    @property
    def quiet(self) -> Answers:
        return _together(each.quiet for each in self.rounds)

    @property
    def during(self) -> Answers:
        return _together(each.during for each in self.rounds)

    @property
    def flooded(self) -> Answers:
        return _together(each.flooded for each in self.rounds)

    @property
    def stored(self) -> int:
        return sum(each.stored for each in self.rounds)

    @property
    def ratios(self) -> list[float]:
        """The neighbours' p99 in the flood by that of the quiet beside it, in order of size."""
        return sorted(each.during.p99 / each.quiet.p99 for each in self.rounds)

    def check(self) -> None:
        """Raise if a neighbour was refused, or the flood stored more than its quota."""
        if self.quiet.acceptance < 0.999 or self.during.acceptance < 0.999:
            raise AssertionError(f"neighbours were refused: {self.quiet.statuses}, {self.during.statuses}")
        for each in self.rounds:
            if not 0 < each.stored <= self.quota or each.stored != each.flooded.statuses[200]:
                raise AssertionError(f"{each.stored} events are stored of a quota of {self.quota}")

    def check_times(self) -> None:
        """Raise if the neighbours' p99 more than doubled, in the middle of all rounds."""
        if median(self.ratios) > 2:
            raise AssertionError(f"the neighbours' p99 grew by {self.ratios}")


def flood(stack: Stack, *, rounds: int, seconds: float, quota: int, seed: int) -> Iterator[Round]:
    """Nine widgets send two events a second each, through the gateway; now and then a tenth sends ten times as many.

    Each round has as long a quiet while as a flood, in turns one first and the other: what else the machine does, and
    how the tables grow, meets both alike.
    """
    dice = random.Random(seed)  # noqa: S311 a simulation, not a secret
    with psycopg.connect(stack.database_url, autocommit=True) as db:
        neighbours = _new_widgets(db, NEIGHBOURS)
        asyncio.run(_play(stack, neighbours, None, min(seconds, WARM_UP_SECONDS), dice))
        for number in range(rounds):
            (victim,) = _new_widgets(db, 1)
            db.execute("insert into public.widget_quotas values (%s, %s)", [victim, quota])
            try:
                played = {
                    flooded: asyncio.run(_play(stack, neighbours, victim if flooded else None, seconds, dice))
                    for flooded in ((False, True) if number % 2 == 0 else (True, False))
                }
            finally:
                db.execute("delete from public.widget_quotas where widget_id = %s", [victim])
            stored = db.execute(
                "select count(*) from public.widget_analytics where widget_id = %s", [victim]
            ).fetchone()
            assert stored is not None
            yield Round(played[False][0], *played[True], stored[0])


def _new_widgets(db: psycopg.Connection, count: int) -> list[UUID]:
    rows = db.execute(
        "insert into public.widgets (allowed_domains) select '{shop.example}' from generate_series(1, %s) returning id",
        [count],
    )
    return [row[0] for row in rows]


def _together(answers: Iterable[Answers]) -> Answers:
    every = list(answers)
    return Answers(
        sum((each.statuses for each in every), Counter()), list(chain.from_iterable(each.seconds for each in every))
    )


async def _play(
    stack: Stack, neighbours: list[UUID], victim: UUID | None, seconds: float, dice: random.Random
) -> tuple[Answers, Answers]:
    ordinary, flooded = Answers(), Answers()
    options = {
        "base_url": stack.api_url,
        "headers": {"apikey": stack.publishable_key, "origin": "https://shop.example"},
        "timeout": 30,
        "limits": httpx.Limits(max_connections=None, max_keepalive_connections=None),
    }

    async def send(client: httpx.AsyncClient, widget_id: UUID, answers: Answers, due: float) -> None:
        answer = await client.post(
            "/rest/v1/rpc/track_event",
            json={"widget_id": str(widget_id), "event_type": "widget_open", "session_id": "flood"},
        )
        answers.seconds.append(time.perf_counter() - due)
        answers.statuses[answer.status_code] += 1

    # The flood has connections of its own: it must not stand before the neighbours in the sender already.
    async with (
        httpx.AsyncClient(**options) as client,  # type: ignore[arg-type]  # of several types
        httpx.AsyncClient(**options) as flooding,  # type: ignore[arg-type]
        asyncio.TaskGroup() as senders,
    ):
        for widget_id in neighbours:
            each = partial(send, client, widget_id, ordinary)
            senders.create_task(_steadily(each, _moments(EVENTS_PER_SECOND, seconds, dice)))
        if victim is not None:
            each = partial(send, flooding, victim, flooded)
            senders.create_task(_steadily(each, _moments(EVENTS_PER_SECOND * TIMES, seconds, dice)))
    return ordinary, flooded


def _moments(per_second: float, seconds: float, dice: random.Random) -> list[float]:
    """One in each slot, somewhere: senders that beat together would measure how they queue behind each other."""
    return [(number + dice.random()) / per_second for number in range(round(per_second * seconds))]


async def _steadily(send: Callable[[float], Coroutine[None, None, None]], moments: list[float]) -> None:
    """Sends at its times, whether the answer before has come or not: a flood does not wait."""
    began = time.perf_counter()
    async with asyncio.TaskGroup() as sent:
        for moment in moments:
            await asyncio.sleep(began + moment - time.perf_counter())
            sent.create_task(send(began + moment))
