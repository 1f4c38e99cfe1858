"""One widget is flooded: its stored rows stay within its quota, and nobody else notices."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from functools import partial
from statistics import quantiles
from uuid import UUID

import httpx
import psycopg

from local_stack.stack import Stack

NEIGHBOURS = 9
EVENTS_PER_SECOND = 2
TIMES = 10


@dataclass
class Answers:
    """What senders heard: how often which status, and after how many seconds."""

    statuses: Counter[int] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)

    @property
    def acceptance(self) -> float:
        return self.statuses[200] / self.statuses.total()

    @property
    def p99(self) -> float:
        return quantiles(self.seconds, n=100)[-1]


@dataclass(frozen=True)
class Flood:
    """The neighbours' answers before and during the flood, the flooded widget's, and what it has stored."""

    before: Answers
    during: Answers
    flooded: Answers
    stored: int
    quota: int

    def check(self) -> None:
        """Raise if a neighbour noticed, or the flood stored more than its quota."""
        if self.before.acceptance < 1 or self.during.acceptance < 0.999:
            raise AssertionError(f"neighbours were refused: {self.during.statuses}")
        if not 0 < self.stored <= self.quota or self.stored != self.flooded.statuses[200]:
            raise AssertionError(f"{self.stored} events are stored of a quota of {self.quota}")


def flood(stack: Stack, *, seconds: float, quota: int) -> Flood:
    """Nine widgets send two events a second each, through the gateway; then a tenth sends ten times as many."""
    with psycopg.connect(stack.database_url, autocommit=True) as db:
        *neighbours, victim = [
            row[0]
            for row in db.execute(
                "insert into public.widgets (allowed_domains) select '{shop.example}' from generate_series(0, %s)"
                " returning id",
                [NEIGHBOURS],
            )
        ]
        db.execute("insert into public.widget_quotas values (%s, %s)", [victim, quota])
        try:
            before, _ = asyncio.run(_play(stack, neighbours, None, seconds))
            during, flooded = asyncio.run(_play(stack, neighbours, victim, seconds))
        finally:
            db.execute("delete from public.widget_quotas where widget_id = %s", [victim])
        stored = db.execute("select count(*) from public.widget_analytics where widget_id = %s", [victim]).fetchone()
    assert stored is not None
    return Flood(before, during, flooded, stored[0], quota)


async def _play(stack: Stack, neighbours: list[UUID], victim: UUID | None, seconds: float) -> tuple[Answers, Answers]:
    ordinary, flooded = Answers(), Answers()
    headers = {"apikey": stack.publishable_key, "origin": "https://shop.example"}
    async with httpx.AsyncClient(base_url=stack.api_url, headers=headers, timeout=30) as client:

        async def send(widget_id: UUID, answers: Answers) -> None:
            began = time.perf_counter()
            answer = await client.post(
                "/rest/v1/rpc/track_event",
                json={"widget_id": str(widget_id), "event_type": "widget_open", "session_id": "flood"},
            )
            answers.seconds.append(time.perf_counter() - began)
            answers.statuses[answer.status_code] += 1

        async with asyncio.TaskGroup() as senders:
            for widget_id in neighbours:
                senders.create_task(_steadily(partial(send, widget_id, ordinary), EVENTS_PER_SECOND, seconds))
            if victim is not None:
                senders.create_task(_steadily(partial(send, victim, flooded), EVENTS_PER_SECOND * TIMES, seconds))
    return ordinary, flooded


async def _steadily(send: Callable[[], Coroutine[None, None, None]], per_second: float, seconds: float) -> None:
    """Sends at its times, whether the answer before has come or not: a flood does not wait."""
    began = time.perf_counter()
    async with asyncio.TaskGroup() as sent:
        for number in range(round(per_second * seconds)):
            await asyncio.sleep(began + number / per_second - time.perf_counter())
            sent.create_task(send())
