"""The tracker's thread, which alone calls the component.

This thread forwards activity from the intake to the component, and flushes. If the component crashes, the thread starts
a new instance and gives it all unflushed activity of the ledger.
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
from .schedule import FailedAttempts, Schedule, shutdown_retry
from .usage import Flushed, Pairs

_log = logging.getLogger("boundary_usage")

_STOPPED = "the tracker is stopped"
_COMPONENT_FAILED = "the component of replica %s failed (attempt %d) and is restarted: %s"
_FLUSH_FAILED = "a flush of replica %s failed (attempt %d) and is repeated: %s"


class Worker:
    """The thread, and the requests of other threads to it."""

    def __init__(
        self, replica: UUID, capabilities: Capabilities, intake_capacity: int, interval: float | None, jitter: float
    ) -> None:
        self.intake = Intake(intake_capacity, self._request_drain)
        self._replica = replica
        self._capabilities = capabilities
        self._ledger = capabilities.ledger
        self._interval = interval
        self._schedule = Schedule(interval or 0.0, jitter)
        self._failures = FailedAttempts()
        self._instance: Instance | None = Instance(replica, capabilities)
        self._requested = threading.Condition()
        self._drain_requested = False
        self._flush_requests: list[Future[Flushed]] = []
        self._stopped: str | None = None
        """The reason why no further request is accepted."""
        self._deadline: float | None = None
        """The end of the shutdown's time limit."""
        threading.Thread(target=self._run, name="boundary-usage", daemon=True).start()

    def request_flush(self, deadline: float | None = None) -> Future[Flushed]:
        """Requests a flush. A flush with a deadline is the last one."""
        flushed: Future[Flushed] = Future()
        with self._requested:
            if self._stopped is not None:
                raise StoppedError(self._stopped)
            if deadline is not None:
                self._deadline = deadline
                self._stopped = _STOPPED
            self._flush_requests.append(flushed)
            self._requested.notify()
        return flushed

    def _request_drain(self) -> None:
        with self._requested:
            self._drain_requested = True
            self._requested.notify()

    def _run(self) -> None:
        """Runs until the last flush. However this method ends, the tracker accepts nothing afterwards."""
        requests: list[Future[Flushed]] = []
        reason = _STOPPED
        try:
            self._flush_until_shutdown(requests)
        except BaseException as error:
            reason = f"the tracker's thread ended unexpectedly, and its unflushed activity is lost: {error!r}"
            _log.critical("replica %s: %s", self._replica, reason, exc_info=error)
        with self._requested:
            self._stopped = reason
            requests += self._flush_requests
        self.intake.close(reason)
        for request in requests:
            if not request.done():
                request.set_exception(StoppedError(reason))

    def _flush_until_shutdown(self, requests: list[Future[Flushed]]) -> None:
        due = self._next_flush(self._schedule.after_success(random.random()))
        while True:
            with self._requested:
                self._requested.wait_for(lambda: self._drain_requested or self._flush_requests, _seconds_until(due))
                self._drain_requested = False
                requests += self._flush_requests
                self._flush_requests = []
                deadline = self._deadline
            if requests or time.monotonic() >= due:
                due = self._next_flush(self._flush_for(requests, deadline))
            else:
                self._drain_intake()
            if deadline is not None:
                return

    def _next_flush(self, wait: float) -> float:
        return float("inf") if self._interval is None else time.monotonic() + wait

    def _drain_intake(self) -> None:
        try:
            self._forward()
        except BoundaryUsageError as error:
            # The ledger and the intake keep the activity, and the next flush restarts the component.
            self._log_failure(logging.ERROR, _COMPONENT_FAILED, error)

    def _flush_for(self, requests: list[Future[Flushed]], deadline: float | None) -> float:
        """Flushes, and completes the requests; returns the wait for the next flush.

        With a deadline, it repeats a failed flush until the deadline.
        """
        if deadline is not None:
            # The log shows the first failure of the last flush, too.
            self._failures = FailedAttempts()
        for attempt in count():
            flushed = self._flush()
            wait = shutdown_retry(attempt)
            is_failed = isinstance(flushed, BoundaryUsageError)
            if not is_failed or deadline is None or time.monotonic() + wait >= deadline:
                break
            time.sleep(wait)
        if not isinstance(flushed, BoundaryUsageError):
            for request in requests:
                request.set_result(flushed)
            requests.clear()
            return self._schedule.after_success(random.random())
        failed: BoundaryUsageError = flushed
        number = self._ledger.in_doubt
        if deadline is not None and number is not None and not isinstance(failed, CommitUnknownError):
            failed = CommitUnknownError(
                f"the last flush failed, so the outcome of flush {number} of replica {self._replica} is unknown: "
                f"{failed}; `boundary-usage status` shows the replica's last flush"
            )
        for request in requests:
            request.set_exception(failed)
        requests.clear()
        return self._schedule.after_failure(random.random())

    def _flush(self) -> Flushed | BoundaryUsageError:
        """Flushes once; logs and returns the error of a failed flush."""
        try:
            self._forward()
            assert self._instance is not None, "`_forward` starts one"
            flushed = self._instance.flush()
        except BoundaryUsageError as error:
            if isinstance(error, ComponentError):
                self._instance = None
                self._log_failure(logging.ERROR, _COMPONENT_FAILED, error)
            else:
                self._log_failure(logging.WARNING, _FLUSH_FAILED, error)
            return error
        if failed := self._failures.succeeded():
            _log.info("the flushes of replica %s succeed again after %d failed attempts", self._replica, failed)
        return flushed

    def _log_failure(self, level: int, text: str, error: BoundaryUsageError) -> None:
        """Logs a failure with the replica and the attempt, at most once a minute."""
        attempt = self._failures.failed(time.monotonic())
        if attempt is not None:
            _log.log(level, text, self._replica, attempt, error)

    def _forward(self) -> None:
        """Forwards the intake's activity to the component."""
        if self._instance is None:
            self._restart()
        pairs = self.intake.drain()
        # The ledger comes first: if the component crashes now, the next instance needs the activity.
        self._ledger.record(pairs)
        self._track(pairs)

    def _restart(self) -> None:
        """Starts an instance in place of one that crashed."""
        if self._ledger.in_doubt is not None:
            self._capabilities.resolve_doubt()
        self._instance = Instance(self._replica, self._capabilities)
        self._track(self._ledger.pairs)
        if self._ledger.dropped:
            lost, self._ledger.dropped = self._ledger.dropped, 0
            raise ComponentError(
                f"the component was restarted, and the ids of {lost} activities are lost; their requests are kept"
            )

    def _track(self, pairs: Pairs) -> None:
        assert self._instance is not None, "the caller starts one"
        try:
            self._instance.track(pairs)
        except ComponentError:
            self._instance = None
            raise


def _seconds_until(time_due: float) -> float | None:
    return None if time_due == float("inf") else max(0.0, time_due - time.monotonic())
