"""Plan, claim, send, confirm: in an order in which a push may be interrupted anywhere, and run again."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from widget_analytics._push.outbox import Claimed, Outbox
from widget_analytics._push.target import Passing, Planned, Push, Settled, Target

_LONGEST_WAIT = 60.0
_backoff = wait_random_exponential(multiplier=0.5, max=20)
_POLL = timedelta(seconds=1)


class Pusher:
    """Sends what the outbox holds for a month.

    Args:
        outbox: the month's.
        target: the billing system.
        attempts: how often something is sent in one run, until the system says yes or no.
        say: told what is being done.
        wait: seconds between the attempts.
    """

    def __init__(
        self,
        outbox: Outbox,
        target: Target,
        *,
        attempts: int = 5,
        say: Callable[[str], object] = lambda _: None,
        wait: Callable[[RetryCallState], float] | None = None,
    ) -> None:
        self._outbox, self._target, self._say = outbox, target, say
        self._retrying = Retrying(
            retry=retry_if_exception_type(Passing), wait=wait or _wait, stop=stop_after_attempt(attempts), reraise=True
        )

    def push(self, planned: Sequence[Planned]) -> None:
        """Send everything that was not sent, and confirm what can be.

        Raises:
            Passing: the system does not answer. What waits can be sent by another run.
        """
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

    def _settle(self, claimed: Sequence[Claimed]) -> None:
        try:
            known, unknown = self._look(claimed)
            self._outbox.settle(known)
            if unknown:
                self._outbox.settle(self._retrying(self._target.send, unknown))
        except Exception:
            # Nobody knows; whoever runs next need not wait until it is no longer held. (After a kill they do.)
            self._outbox.settle([Settled(each.push, "sending", "") for each in claimed])
            raise

    def _look(self, claimed: Sequence[Claimed]) -> tuple[list[Settled], list[Push]]:
        """Of what the system may have and no longer know by its name: what it has, and what is to be sent."""
        known, unknown = [], []
        for each in claimed:
            window = self._target.window
            is_forgotten = window is not None and each.sent_before is not None and each.sent_before > window
            found = self._retrying(self._target.find, each.push) if is_forgotten else None
            if found is None:
                unknown.append(each.push)
            else:
                known.append(Settled(each.push, "confirmed", found))
        return known, unknown

    def confirm(self) -> None:
        """Look for what the system has taken without checking it."""
        for row in self._outbox.rows("accepted"):
            found = self._retrying(self._target.find, row.as_push())
            if found is not None:
                self._outbox.settle([Settled(row.as_push(), "confirmed", found)])

    def _wait_for_others(self) -> bool:
        """Wait for rows that another push holds, or held when it was killed; say whether there were any."""
        until = self._outbox.held_until()
        if until is None:
            return False
        seconds = (until - datetime.now(UTC)).total_seconds()
        self._say(f"waiting for a push that is at work or was killed, {max(seconds, 0):.0f} s at most")
        time.sleep(min(max(seconds, 0.05), _POLL.total_seconds()))
        return True


def _wait(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    if isinstance(error, Passing) and error.retry_after is not None:
        return min(error.retry_after, _LONGEST_WAIT)
    return _backoff(state)
