"""Plan, claim, send, confirm: in an order in which a push may be interrupted anywhere, and run again."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import islice

from tenacity import RetryCallState

from widget_analytics._push.outbox import Claimed, Outbox
from widget_analytics._push.target import Planned, Push, Settled, Target, Unclear
from widget_analytics._retries import retrying
from widget_analytics.errors import UsageError

_POLL = timedelta(seconds=1)
_SAMPLES = 3
# Well beyond what the systems take to show an event that they have taken.
SHOWS_WITHIN = timedelta(minutes=15)
# Beyond a day the systems know the name no more, so that what was taken and never counted can be sent anew.
_COUNTS_WITHIN = timedelta(hours=25)
_NOT_COUNTED = "it was taken, and after a day is not seen there: does the system know the customer?"


class Pusher:
    """Sends what the outbox holds for a month.

    Args:
        outbox: the month's.
        target: the billing system.
        attempts: how often something is sent in one run, until the system says yes or no.
        say: told what is being done.
        wait: seconds between the attempts.
        shows_within: how long after an event was taken a look may not see it yet.
    """

    def __init__(
        self,
        outbox: Outbox,
        target: Target,
        *,
        attempts: int = 5,
        say: Callable[[str], object] = lambda _: None,
        wait: Callable[[RetryCallState], float] | None = None,
        shows_within: timedelta = SHOWS_WITHIN,
    ) -> None:
        self._shows_within = shows_within
        self._outbox, self._target, self._say = outbox, target, say
        self._retrying = retrying(attempts, wait)

    def push(self, planned: Sequence[Planned]) -> None:
        """Send everything that was not sent, and confirm what can be.

        Raises:
            Passing: the system does not answer. What waits can be sent by another run.
            UsageError: the account is not the one that the outbox has sent to.
        """
        self._recognize(planned)
        self._outbox.plan(planned)
        sent = 0
        while True:
            while claimed := self._outbox.claim(self._target.batch):
                self._settle(claimed)
                sent += len(claimed)
                self._say(f"{sent:,} of {len(planned):,} sent")
            if not self._wait_for_others():
                break
        self.confirm()

    def _recognize(self, planned: Sequence[Planned]) -> None:
        """See, before anything is written down, that the key is good, and that its account has what was confirmed."""
        for first in islice((each for each in planned if each.refusal is None), 1):
            self._find(first.as_push())
        samples = list(islice(self._outbox.rows("confirmed"), _SAMPLES))
        if samples and not any(isinstance(self._find(push), str | Unclear) for push in samples):
            raise UsageError(
                f"nothing was sent: {samples[0].event_id} was confirmed in the account {self._target.account}, and the "
                "account of this key does not have it. If that is another account, name it: --account NAME"
            )

    def _settle(self, claimed: Sequence[Claimed]) -> None:
        attempts = 0

        def send(pushes: Sequence[Push]) -> list[Settled]:
            nonlocal attempts
            attempts += 1
            return self._target.send(pushes)

        try:
            known, unknown = self._look(claimed)
            self._outbox.settle(known)
            settled = self._retrying(send, unknown) if unknown else []
        except Exception:
            # Nobody knows; whoever runs next need not wait until it is no longer held. (After a kill they do.)
            self._outbox.settle([Settled(each, "sending", "") for each in claimed])
            raise
        # An earlier attempt may have arrived, and what the system has is not refused.
        doubtful = {each.event_id for each in claimed if attempts > 1 or each.sent_before_seconds is not None}
        self._outbox.settle(
            [
                replace(each, state="unclear") if each.state == "refused" and each.push.event_id in doubtful else each
                for each in settled
            ]
        )

    def _look(self, claimed: Sequence[Claimed]) -> tuple[list[Settled], list[Push]]:
        """Of what the system may have and not know by its name, or has refused: what it has, and what is to be sent."""
        known, unknown = list[Settled](), list[Push]()
        for each in claimed:
            window = self._target.window
            is_forgotten = window is not None and (each.sent_before_seconds or 0) > window.total_seconds()
            is_new = not (is_forgotten or each.may_be_known or each.refusals)
            match None if is_new else self._find(each):
                case None:
                    unknown.append(each)
                case Unclear() as error:
                    known.append(Settled(each, "unclear", str(error)))
                case found:
                    known.append(Settled(each, "confirmed", found))
        return known, unknown

    def confirm(self) -> None:
        """Look for what the system has taken without checking it, and for what it refused and may have all the same."""
        for state, patience in (("unclear", self._shows_within), ("accepted", _COUNTS_WITHIN)):
            rows = self._outbox.rows(state)
            while part := list(islice(rows, self._target.batch)):
                self._outbox.settle([settled for push in part if (settled := self._confirmed(push, patience))])

    def _confirmed(self, push: Push, patience: timedelta) -> Settled | None:
        match self._find(push):
            case Unclear() as error:
                return Settled(push, "unclear", str(error))
            case str(found):
                return Settled(push, "confirmed", found)
        if push.sent_at is None or datetime.now(UTC) - push.sent_at < patience:
            return None
        # What was unclear keeps the reason that it was refused for.
        return Settled(push, "refused", _NOT_COUNTED if push.state == "accepted" else "")

    def _find(self, push: Push) -> str | Unclear | None:
        try:
            found: str | None = self._retrying(self._target.find, push)
        except Unclear as error:
            return error
        return found

    def _wait_for_others(self) -> bool:
        """Wait for rows that another push holds, or held when it was killed; say whether there were any."""
        until = self._outbox.held_until()
        if until is None:
            return False
        seconds = (until - datetime.now(UTC)).total_seconds()
        self._say(f"waiting for a push that is at work or was killed, {max(seconds, 0):.0f} s at most")
        time.sleep(min(max(seconds, 0.05), _POLL.total_seconds()))
        return True
