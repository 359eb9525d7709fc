"""The tracker, as a proxy uses it. The module `worker` contains the tracker's thread."""

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
"""The longest interval and time limit.

The system's clocks do not support arbitrarily long times.
"""


class Tracker:
    """A running tracker of one replica. Thread-safe.

    End a tracker with `shutdown` or a `with` statement. Otherwise unflushed activity is lost. Two running trackers must
    not have the same replica id. If the process forks, start trackers after the fork.

    The tracker flushes every `flush_interval` seconds, or only on request if that is `None`. `flush_jitter` is the
    largest deviation of each wait, as a fraction of the wait. `shutdown` waits `shutdown_timeout` seconds for its
    flush. At most `intake_capacity` different pairs of workspace and owner can wait for the component. If this number
    is reached, `track` blocks.
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
        """Records activity: marks both ids as active and adds both counts, which may be 0.

        Blocks only while the intake is full.
        """
        self._put(workspace, owner, allowed, denied, wait=True)

    def try_track(self, workspace: UUID, owner: UUID, allowed: int = 0, denied: int = 0) -> bool:
        """Records activity like `track` without blocking; returns whether it fitted."""
        return self._put(workspace, owner, allowed, denied, wait=False)

    def flush(self) -> Flushed:
        """Writes the activity that was tracked before this call.

        Raises a `BoundaryUsageError` if that fails. The next flush then writes the activity.
        """
        self._check_process()
        return self._worker.request_flush().result()

    def shutdown(self) -> Flushed:
        """Refuses further activity, flushes, and stops.

        Repeats a failed flush until `shutdown_timeout` expires, and then raises its error. Unflushed activity is then
        lost. After a `CommitUnknownError` or a `TimedOutError`, that activity may be in the database.
        """
        self._check_process()
        deadline = time.monotonic() + self._shutdown_timeout
        self._worker.intake.close("the tracker is stopped")
        flushed = self._worker.request_flush(deadline)
        try:
            return flushed.result(self._shutdown_timeout)
        except FutureTimeoutError:
            limit = self._shutdown_timeout
            what = f"the last flush took longer than {limit} s, so its outcome is unknown"
            raise TimedOutError(f"{what}; `boundary-usage status` shows the replica's last flush") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self.shutdown()

    def _put(self, workspace: UUID, owner: UUID, allowed: int, denied: int, *, wait: bool) -> bool:
        _check_id("workspace", workspace)
        _check_id("owner", owner)
        # `index` accepts all types of integers, such as NumPy's, and raises `TypeError` for other types.
        allowed, denied = int(index(allowed)), int(index(denied))
        if allowed < 0 or denied < 0:
            raise ConfigurationError(f"the counts are {allowed} allowed and {denied} denied, must not be negative")
        self._check_process()
        return self._worker.intake.put(
            workspace, owner, min(allowed, REQUESTS_MAX), min(denied, REQUESTS_MAX), wait=wait
        )

    def _check_process(self) -> None:
        """Refuses calls in a fork.

        A fork copies no threads, so nothing would flush its activity.
        """
        if os.getpid() != self._process:
            what = f"this tracker runs in process {self._process}, and process {os.getpid()} is a fork of it"
            raise StoppedError(f"{what}; connect to the database and start a tracker after the fork")


def _check_id(name: str, value: UUID) -> None:
    if not isinstance(value, UUID):
        raise TypeError(f"{name} is a {type(value).__name__}, must be a uuid.UUID")
    if value.int == 0:
        raise ConfigurationError(f"the {name} id is the nil UUID, which is not an id")


def _check_number(name: str, value: float, least: float, most: float) -> None:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise TypeError(f"{name} is a {type(value).__name__}, must be a number")
    if math.isnan(value) or not least <= value <= most:
        raise ConfigurationError(f"{name} is {value}, must be from {least} to {most}")
