"""Plays a history twice, in the model and in the database, and says where the two part."""

import json
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any, Self
from uuid import UUID, uuid4

import psycopg
from psycopg.types.json import Jsonb, set_json_loads

from local_stack.stack import Stack
from tests.oracle.histories import (
    NOW,
    Archive,
    Bill,
    Cleanup,
    History,
    Insert,
    Limit,
    Step,
    Track,
    Tracked,
    to_json,
    to_offset,
)
from tests.oracle.model import Call, Event, Ledger, happened_at
from tests.oracle.rating import EVIDENCE, RatedCall, rate, sum_up

Played = dict[str, Any]
USAGE = (
    *("calls", "billable_seconds", "open_calls", "failed_calls", "charged_seconds", "amount", "currency"),
    *(f"{evidence}_{what}" for evidence in EVIDENCE for what in ("calls", "seconds")),
)
_VACUUM_AFTER = 500


class Disagreement(AssertionError):
    pass


class Database:
    """One connection, as the owner of the tables, to a database in which nothing else happens."""

    def __init__(self, conninfo: str) -> None:
        self._connection = self.connection = psycopg.connect(conninfo, autocommit=True)
        set_json_loads(partial(json.loads, parse_float=Decimal), self._connection)
        self._connection.execute((Path(__file__).parent / "play.sql").read_text())
        self._played = 0

    @classmethod
    @contextmanager
    def fresh(cls) -> Iterator[Self]:
        """On a server of its own, where no scheduled cleanup comes in between."""
        with Stack(durable=False, jobs=False, gateway=False) as stack, closing(cls(stack.database_url)) as database:
            database._connection.execute("select cron.unschedule(jobid) from cron.job")
            yield database

    def close(self) -> None:
        self._connection.close()

    def play(self, history: History) -> Played:
        self._played += 1
        if self._played % _VACUUM_AFTER == 0:
            # What was rolled back stays in the files and slows the next down.
            self._connection.execute("vacuum")
        with self._connection.transaction(force_rollback=True):
            row = self._connection.execute("select pg_temp.play(%s)", [Jsonb(to_json(history))]).fetchone()
        assert row is not None
        played: Played = row[0]
        for step, said in zip(history.steps, played["steps"], strict=True):
            if isinstance(step, Track):
                said["answer"] = [_in_words(answer, step.at_once) for answer in said["answer"]]
        for bill in played["bills"]:
            # Further columns are no business of these rules.
            bill["usage"] = bill["usage"] and {key: bill["usage"][key] for key in USAGE}
        played["ledger"] = _ledger_rows(history, ((UUID(id), *rest) for id, *rest in played["ledger"] or ()))
        return played


def _in_words(answer: Played, of_many: bool) -> Played | str:
    """An answer of the RPCs without what the rules leave open."""
    if of_many:
        return answer | {"rejected": [rejected["index"] for rejected in answer["rejected"]]}
    match answer:
        case {"accepted": 1, "duplicates": 0, "rejected": []}:
            return "accepted"
        case {"accepted": 0, "duplicates": 1, "rejected": []}:
            return "duplicate"
        case {"code": "22023"}:
            return "rejected"
    return answer


@dataclass
class Model:
    """Answers what the database answers, in the same shape."""

    history: History
    ledger: Ledger = field(default_factory=Ledger)

    def play(self) -> Played:
        history = self.history
        return {
            "steps": [{"answer": self._take_step(step), "calls": self._calls()} for step in history.steps],
            "bills": [self._bill(bill) for bill in history.bills],
            "retold": [True, True] * len(history.shuffles),
            "ledger": _ledger_rows(history, map(_event_row, self.ledger.events.values())),
            "differences": 0,
        }

    def _take_step(self, step: Step) -> list[Any]:
        match step:
            case Insert():
                stored = [int(self.ledger.add(event)) for event in step.events]
                return [sum(stored)] if step.at_once else stored
            case Track():
                answers = [self._track(event) for event in step.events]
                if not step.at_once:
                    return answers
                return [
                    {
                        "accepted": answers.count("accepted"),
                        "duplicates": answers.count("duplicate"),
                        "rejected": [index for index, answer in enumerate(answers) if answer == "rejected"],
                    }
                ]
            case Cleanup():
                run = self.ledger.cleanup(self.history.cleanup_time, step.stale_after)
                for end in run.ends:
                    self.ledger.add(
                        Event(
                            id=uuid4(),
                            session_id=end.session_id,
                            event_type="call_end",
                            timestamp=end.timestamp,
                            received_at=self.history.cleanup_time,
                            call_id=end.call_id,
                            source="inferred",
                        )
                    )
                return [run.calls_checked, run.calls_completed, run.calls_still_active]
            case Archive():
                self.ledger.archive()
                return []
            case Limit():
                self.ledger.max_call_duration = step.max_call_duration
                return []

    def _track(self, event: Tracked) -> str:
        timestamp = happened_at(NOW, event.age_ms)
        if timestamp is None:
            return "rejected"
        stored = self.ledger.add(
            Event(
                id=event.id or uuid4(),
                session_id=event.session_id,
                event_type=event.event_type,
                timestamp=timestamp,
                received_at=NOW,
                call_id=event.call_id,
                seq=event.seq,
            )
        )
        return "accepted" if stored else "duplicate"

    def _calls(self) -> list[list[Any]]:
        return sorted(_call_row(call) for call in self.ledger.calls())

    def _bill(self, bill: Bill) -> Played:
        ledger = self.ledger if bill.as_of is None else self.ledger.as_of(bill.as_of)
        # Months are months of the calendar, so that here the calls stand where they really do.
        moved = timedelta(0) if self.history.origin is None else self.history.origin - NOW
        rated, before = (
            rate(
                [_moved(call, moved) for call in ledger.calls()],
                start + moved,
                end + moved,
                plans=self.history.plans,
                time_zone=self.history.time_zone,
            )
            # Longer than any month: those of other months do not count.
            for start, end in (
                (bill.period_start, bill.period_end),
                (bill.period_start - timedelta(days=32), bill.period_start),
            )
        )
        return {
            "calls": sorted(
                [*_call_row(_moved(one.call, -moved)), one.billable_seconds, one.amount, one.plan and one.plan.currency]
                for one in rated
            ),
            "usage": _usage(rated, before) if rated else None,
        }


def _moved(call: Call, by: timedelta) -> Call:
    return replace(call, started_at=call.started_at + by, ended_at=call.ended_at and call.ended_at + by)


def _usage(rated: list[RatedCall], before: list[RatedCall]) -> Played:
    usage = sum_up(rated, before)
    return {
        "calls": usage.calls,
        "billable_seconds": usage.billable_seconds,
        "charged_seconds": usage.charged_seconds,
        "amount": usage.amount,
        "currency": usage.currency,
        **{f"{outcome}_calls": number for outcome, number in usage.calls_by_outcome.items()},
        **{f"{evidence}_calls": number for evidence, number in usage.calls_by_evidence.items()},
        **{f"{evidence}_seconds": seconds for evidence, seconds in usage.seconds_by_evidence.items()},
    }


def _call_row(call: Call) -> list[Any]:
    return [
        call.session_id,
        call.call_id,
        to_offset(call.started_at),
        None if call.ended_at is None else to_offset(call.ended_at),
        call.outcome,
        call.evidence,
        call.duration_seconds,
    ]


def _event_row(event: Event) -> tuple[Any, ...]:
    return (
        event.id,
        event.session_id,
        event.event_type,
        to_offset(event.timestamp),
        to_offset(event.received_at),
        event.call_id,
        event.seq,
        event.source,
    )


def _ledger_rows(history: History, rows: Iterable[tuple[Any, ...]]) -> list[list[Any]]:
    """In one order. Where the history gives no id, each side makes its own, and with an origin its own receipt."""
    given = {event.id for step in history.steps if isinstance(step, Insert | Track) for event in step.events}
    is_dated = history.origin is None
    return sorted(
        (
            [str(id), session_id, event_type, at, received_at, *rest]
            if id in given
            else [None, session_id, event_type, at, received_at if is_dated else None, *rest]
            for id, session_id, event_type, at, received_at, *rest in rows
        ),
        key=repr,
    )


def check(database: Database, history: History) -> Played:
    """What both say of a history; raises where they part."""
    modelled = Model(history).play()
    played = database.play(history)
    if modelled != played:
        raise Disagreement("\n".join(_differences("", modelled, played)))
    return played


def _differences(path: str, modelled: Any, played: Any) -> Iterator[str]:
    """The places that differ, as deep down as the two have the same shape."""
    if isinstance(modelled, dict) and isinstance(played, dict) and modelled.keys() == played.keys():
        for key in modelled:
            yield from _differences(f"{path}.{key}", modelled[key], played[key])
    elif isinstance(modelled, list) and isinstance(played, list) and len(modelled) == len(played):
        for index, pair in enumerate(zip(modelled, played, strict=True)):
            yield from _differences(f"{path}[{index}]", *pair)
    elif modelled != played:
        yield f"{path}: the model says {_plain(modelled)}, the database {_plain(played)}"


def _plain(value: Any) -> str:
    return json.dumps(value, default=str)
