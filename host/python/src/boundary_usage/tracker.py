"""The handle that a proxy holds; the thread behind it is in `worker`."""

import math
import os
import time
from concurrent.futures import TimeoutError as FutureTimeoutError
from operator import index
from types import TracebackType
from typing import Self
from uuid import UUID

from .capabilities import Capabilities
from .database import Database
from .errors import ConfigurationError, StoppedError, TimedOutError
from .usage import REQUESTS_MAX, Flushed
from .worker import Worker

SECONDS_MAX = 366 * 86_400.0
"""The longest interval or time limit; the system's clocks hold no arbitrary numbers."""


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
        _check_id("replica", replica)
        if flush_interval is not None:
            _check_number("flush_interval", flush_interval, 0.001, SECONDS_MAX)
        _check_number("flush_jitter", flush_jitter, 0, 1)
        _check_number("shutdown_timeout", shutdown_timeout, 0, SECONDS_MAX)
        if index(intake_capacity) < 1:
            raise ConfigurationError(f"intake_capacity is {intake_capacity}, must be at least 1")
        self._process = os.getpid()
        self._shutdown_timeout = shutdown_timeout
        capabilities = Capabilities(replica, database)
        self._worker = Worker(replica, capabilities, intake_capacity, flush_interval, flush_jitter)

    def track(self, workspace: UUID, owner: UUID, allowed: int = 0, denied: int = 0) -> None:
        """Records activity: both ids as active, and both counts added; counts of 0 still record the ids.

        Does not wait for the database, unless as many different pairs as `intake_capacity` came in while a flush waited
        for it.
        """
        self._put(workspace, owner, allowed, denied, wait=True)

    def try_track(self, workspace: UUID, owner: UUID, allowed: int = 0, denied: int = 0) -> bool:
        """Like `track`, but never waits; returns whether the activity was accepted."""
        return self._put(workspace, owner, allowed, denied, wait=False)

    def flush(self) -> Flushed:
        """Writes what was tracked before this call, and returns what that did. The tracker does so by itself, too.

        When it fails, this raises; the activity is kept and goes out with the next flush.
        """
        self._check_process()
        return self._worker.ask().result()

    def shutdown(self) -> Flushed:
        """Accepts nothing more, flushes once more and stops.

        A flush that fails is tried again until `shutdown_timeout` is over. After that this raises. What was tracked
        since the last flush that succeeded is lost then, unless the error is a `CommitUnknownError` or a
        `TimedOutError`: then it may be in the database.
        """
        self._check_process()
        deadline = time.monotonic() + self._shutdown_timeout
        self._worker.intake.close("the tracker is stopped")
        flushed = self._worker.ask(deadline)
        try:
            return flushed.result(self._shutdown_timeout)
        except FutureTimeoutError:
            limit = self._shutdown_timeout
            what = f"the last flush took longer than {limit} s; whether it was applied is unknown"
            raise TimedOutError(f"{what} (`boundary-usage status` shows the replica's last flush)") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self.shutdown()

    def _put(self, workspace: UUID, owner: UUID, allowed: int, denied: int, *, wait: bool) -> bool:
        _check_id("workspace", workspace)
        _check_id("owner", owner)
        # Whatever is an integer, NumPy's too, becomes Python's; a fraction is a `TypeError`.
        allowed, denied = int(index(allowed)), int(index(denied))
        if allowed < 0 or denied < 0:
            raise ConfigurationError(f"{allowed} allowed and {denied} denied: a count is never negative")
        self._check_process()
        return self._worker.intake.put(
            workspace, owner, min(allowed, REQUESTS_MAX), min(denied, REQUESTS_MAX), wait=wait
        )

    def _check_process(self) -> None:
        """A fork copies no threads, so what a child tracked would never be flushed."""
        if os.getpid() != self._process:
            what = f"this tracker runs in process {self._process}, and this is a fork of it, process {os.getpid()}"
            raise StoppedError(f"{what}; connect to the database and start a tracker after the fork")


def _check_id(name: str, value: UUID) -> None:
    if not isinstance(value, UUID):
        raise TypeError(f"{name} is a {type(value).__name__}, must be a uuid.UUID")
    if value.int == 0:
        raise ConfigurationError(f"the {name} id is the nil UUID, which identifies nothing")


def _check_number(name: str, value: float, least: float, most: float) -> None:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise TypeError(f"{name} is a {type(value).__name__}, must be a number")
    if math.isnan(value) or not least <= value <= most:
        raise ConfigurationError(f"{name} is {value}, must be from {least} to {most}")
