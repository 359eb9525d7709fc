"""The handle that a proxy holds, and the thread behind it, which owns the component.

The component is called by that thread alone: it hands over what the intake holds, and flushes, one after the other.
"""

import logging
import random
import threading
import time
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from types import TracebackType
from typing import Self
from uuid import UUID

from .capabilities import Capabilities
from .component import Instance
from .database import Database
from .errors import BoundaryUsageError, ComponentError, ConfigurationError, StoppedError, TimedOutError
from .intake import Intake
from .schedule import Schedule
from .usage import REQUESTS_MAX, Flushed

_log = logging.getLogger("boundary_usage")


class Tracker:
    """A running tracker of one replica. Safe for any number of threads.

    End it with `shutdown`, or use it in a `with` statement; what was tracked since the last flush is lost otherwise.
    No two trackers that run at the same time may have the same replica id. Start it after a process has forked.

    - `flush_interval`: seconds from one flush to the next; `None` flushes only when asked to.
    - `flush_jitter`: how far each wait may deviate, as a fraction of it.
    - `shutdown_timeout`: seconds that `shutdown` waits for the last flush.
    - `intake_capacity`: how many different (workspace, owner) pairs wait for the component before `track` has to.
    """

    def __init__(
        self,
        replica: UUID,
        database: Database,
        *,
        flush_interval: float | None = 60.0,
        flush_jitter: float = 0.1,
        shutdown_timeout: float = 10.0,
        intake_capacity: int = 65_536,
    ) -> None:
        if replica.int == 0:
            raise ConfigurationError("the replica id is the nil UUID; every replica has an id of its own")
        if flush_interval is not None and flush_interval < 0.001:
            raise ConfigurationError(f"flush_interval is {flush_interval} s, must be at least 0.001")
        if not 0 <= flush_jitter <= 1:
            raise ConfigurationError(f"flush_jitter is {flush_jitter}, must be from 0 to 1")
        if intake_capacity < 1:
            raise ConfigurationError(f"intake_capacity is {intake_capacity}, must be at least 1")
        self._replica = replica
        self._capabilities = Capabilities(replica, database)
        self._shutdown_timeout = shutdown_timeout
        self._interval = flush_interval
        self._schedule = Schedule(flush_interval or 0.0, flush_jitter)
        self._intake = Intake(intake_capacity, self._wake)
        self._instance = Instance(replica, self._capabilities)
        self._wanted = threading.Condition()
        self._drain = False
        self._flushes: list[Future[Flushed]] = []
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="boundary-usage", daemon=True)
        self._thread.start()

    def track(self, workspace: UUID, owner: UUID, allowed: int = 0, denied: int = 0) -> None:
        """Records activity: both ids as active, and both counts added; counts of 0 still record the ids.

        Does not wait for the database, unless as many different pairs as `intake_capacity` came in while a flush waited
        for it.
        """
        self._put(workspace, owner, allowed, denied, wait=True)

    def try_track(self, workspace: UUID, owner: UUID, allowed: int = 0, denied: int = 0) -> bool:
        """Like `track`, but never waits; answers whether the activity was accepted."""
        return self._put(workspace, owner, allowed, denied, wait=False)

    def flush(self) -> Flushed:
        """Writes what was tracked before this call, and says what that did. The tracker does so by itself, too.

        When the database does not take it, this raises; the activity is kept and goes out with the next flush.
        """
        return self._ask().result()

    def shutdown(self) -> Flushed:
        """Accepts nothing more, flushes once more and stops.

        Raises when that flush failed, or took longer than `shutdown_timeout`: what was tracked since the last flush
        that succeeded is lost then.
        """
        self._intake.close()
        flushed = self._ask(last=True)
        try:
            return flushed.result(self._shutdown_timeout)
        except FutureTimeoutError:
            limit = self._shutdown_timeout
            raise TimedOutError(f"the last flush took longer than {limit} s") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self.shutdown()

    def _put(self, workspace: UUID, owner: UUID, allowed: int, denied: int, *, wait: bool) -> bool:
        if workspace.int == 0 or owner.int == 0:
            raise ConfigurationError("the nil UUID names nobody; every workspace and every owner has an id of its own")
        if allowed < 0 or denied < 0:
            raise ConfigurationError(f"{allowed} allowed and {denied} denied: a count is never negative")
        return self._intake.put(workspace, owner, min(allowed, REQUESTS_MAX), min(denied, REQUESTS_MAX), wait=wait)

    def _ask(self, *, last: bool = False) -> Future[Flushed]:
        flushed: Future[Flushed] = Future()
        with self._wanted:
            if self._stopping:
                raise StoppedError("the tracker is stopped")
            self._stopping = last
            self._flushes.append(flushed)
            self._wanted.notify()
        return flushed

    def _wake(self) -> None:
        """The intake fills up."""
        with self._wanted:
            self._drain = True
            self._wanted.notify()

    def _run(self) -> None:
        """The thread's whole work."""
        due = self._next_flush(self._schedule.after_success(random.random()))
        while True:
            with self._wanted:
                self._wanted.wait_for(lambda: self._drain or self._flushes, _seconds_until(due))
                self._drain = False
                flushes, self._flushes = self._flushes, []
                is_last = self._stopping
            self._hand_over()
            if not flushes and time.monotonic() < due:
                continue
            wait = self._flush_for(flushes)
            if is_last:
                return
            due = self._next_flush(wait)

    def _next_flush(self, wait: float) -> float:
        return float("inf") if self._interval is None else time.monotonic() + wait

    def _hand_over(self) -> None:
        pairs = self._intake.take()
        try:
            self._instance.track(pairs)
        except ComponentError as error:
            self._replace(error)

    def _flush_for(self, asked: list[Future[Flushed]]) -> float:
        """Flushes once, for all who asked before; answers how long to wait for the next one."""
        try:
            flushed = self._instance.flush()
        except BoundaryUsageError as error:
            if isinstance(error, ComponentError):
                self._replace(error)
            else:
                _log.warning("a flush of replica %s failed, and is tried again: %s", self._replica, error)
            for future in asked:
                future.set_exception(error)
            return self._schedule.after_failure(random.random())
        for future in asked:
            future.set_result(flushed)
        return self._schedule.after_success(random.random())

    def _replace(self, error: ComponentError) -> None:
        """A component that broke cannot be called again, and what it held is gone with it."""
        _log.error("the component of replica %s is replaced; what it had not written is lost: %s", self._replica, error)
        try:
            self._instance = Instance(self._replica, self._capabilities)
        except ComponentError as again:
            # The broken one stays in its place, and its next call brings us here again.
            _log.error("the component of replica %s cannot be replaced yet: %s", self._replica, again)


def _seconds_until(moment: float) -> float | None:
    return None if moment == float("inf") else max(0.0, moment - time.monotonic())
