"""The thread behind a tracker: it alone calls the component.

It hands over what the intake holds, and flushes, one after the other. A component that breaks is replaced, and its
successor is given everything that the account has as unflushed.
"""

import logging
import random
import threading
import time
from concurrent.futures import Future
from itertools import count
from uuid import UUID

from .capabilities import Capabilities
from .component import Instance
from .errors import BoundaryUsageError, CommitUnknownError, ComponentError, StoppedError
from .intake import Intake
from .schedule import Schedule, retry_of_the_last_flush
from .usage import Flushed, Pairs

_log = logging.getLogger("boundary_usage")


class Worker:
    """The thread's work, and how others ask for it."""

    def __init__(
        self, replica: UUID, capabilities: Capabilities, intake_capacity: int, interval: float | None, jitter: float
    ) -> None:
        self.intake = Intake(intake_capacity, self._wake)
        self._replica = replica
        self._capabilities = capabilities
        self._account = capabilities.account
        self._interval = interval
        self._schedule = Schedule(interval or 0.0, jitter)
        self._instance: Instance | None = Instance(replica, capabilities)
        self._wanted = threading.Condition()
        self._drain = False
        self._asked: list[Future[Flushed]] = []
        self._ended: str | None = None
        self._deadline: float | None = None
        """When the last flush is given up; set by a shutdown."""
        threading.Thread(target=self._run, name="boundary-usage", daemon=True).start()

    def ask(self, deadline: float | None = None) -> Future[Flushed]:
        """Asks for a flush; with a deadline, for the last one."""
        flushed: Future[Flushed] = Future()
        with self._wanted:
            if self._ended is not None:
                raise StoppedError(self._ended)
            if deadline is not None:
                self._deadline = deadline
                self._ended = "the tracker is stopped"
            self._asked.append(flushed)
            self._wanted.notify()
        return flushed

    def _wake(self) -> None:
        """The intake fills up."""
        with self._wanted:
            self._drain = True
            self._wanted.notify()

    def _run(self) -> None:
        """The thread's whole work. However it ends, nothing is accepted afterwards."""
        asked: list[Future[Flushed]] = []
        why = "the tracker is stopped"
        try:
            self._flush_until_the_last(asked)
        except BaseException as error:
            why = f"the tracker's thread ended unexpectedly, and what was not flushed is lost: {error!r}"
            _log.critical("replica %s: %s", self._replica, why, exc_info=error)
        with self._wanted:
            self._ended = why
            asked += self._asked
        self.intake.close(why)
        for future in asked:
            if not future.done():
                future.set_exception(StoppedError(why))

    def _flush_until_the_last(self, asked: list[Future[Flushed]]) -> None:
        due = self._next_flush(self._schedule.after_success(random.random()))
        while True:
            with self._wanted:
                self._wanted.wait_for(lambda: self._drain or self._asked, _seconds_until(due))
                self._drain = False
                asked += self._asked
                self._asked = []
                last_until = self._deadline
            if asked or time.monotonic() >= due:
                due = self._next_flush(self._flush_for(asked, last_until))
            else:
                self._drain_intake()
            if last_until is not None:
                return

    def _next_flush(self, wait: float) -> float:
        return float("inf") if self._interval is None else time.monotonic() + wait

    def _drain_intake(self) -> None:
        try:
            self._hand_over()
        except BoundaryUsageError as error:
            # Activity waits in the account and in the intake; the next flush replaces the component.
            _log.error("the component of replica %s cannot be given activity: %s", self._replica, error)

    def _flush_for(self, asked: list[Future[Flushed]], last_until: float | None) -> float:
        """Flushes for all who asked, the last time until it succeeds; returns the wait for the next flush."""
        for attempt in count():
            flushed = self._flush()
            wait = retry_of_the_last_flush(attempt)
            is_failed = isinstance(flushed, BoundaryUsageError)
            if not is_failed or last_until is None or time.monotonic() + wait >= last_until:
                break
            time.sleep(wait)
        if not isinstance(flushed, BoundaryUsageError):
            for future in asked:
                future.set_result(flushed)
            asked.clear()
            return self._schedule.after_success(random.random())
        failed: BoundaryUsageError = flushed
        if last_until is not None and self._account.in_doubt is not None and not isinstance(failed, CommitUnknownError):
            number = self._account.in_doubt
            failed = CommitUnknownError(
                f"the last flush failed, and whether flush {number} of replica {self._replica} was applied is unknown "
                f"(`boundary-usage status` shows the replica's last flush): {failed}"
            )
        for future in asked:
            future.set_exception(failed)
        asked.clear()
        return self._schedule.after_failure(random.random())

    def _flush(self) -> Flushed | BoundaryUsageError:
        """Flushes once; returns the failure that it has logged."""
        try:
            self._hand_over()
            assert self._instance is not None, "handing over has made one"
            return self._instance.flush()
        except BoundaryUsageError as error:
            if isinstance(error, ComponentError):
                self._instance = None
                _log.error("the component of replica %s broke, and is replaced: %s", self._replica, error)
            elif isinstance(error, CommitUnknownError):
                _log.warning("%s", error)
            else:
                _log.warning("a flush of replica %s failed, and is tried again: %s", self._replica, error)
            return error

    def _hand_over(self) -> None:
        """Gives the component what waits. What it was given and has not written is in the account."""
        if self._instance is None:
            self._replace()
        pairs = self.intake.take()
        # First: if the component breaks over them, its successor is given them.
        self._account.record(pairs)
        self._track(pairs)

    def _replace(self) -> None:
        """Starts a successor of a component that broke."""
        if self._account.in_doubt is not None:
            self._capabilities.resolve_doubt()
        self._instance = Instance(self._replica, self._capabilities)
        self._track(self._account.pairs)
        if self._account.dropped:
            lost, self._account.dropped = self._account.dropped, 0
            raise ComponentError(
                f"the component was replaced, and the ids of {lost} activities are lost; requests are kept"
            )

    def _track(self, pairs: Pairs) -> None:
        assert self._instance is not None, "the caller has made sure"
        try:
            self._instance.track(pairs)
        except ComponentError:
            self._instance = None
            raise


def _seconds_until(moment: float) -> float | None:
    return None if moment == float("inf") else max(0.0, moment - time.monotonic())
