"""The bounded queue between the callers' threads and the tracker's thread.

The component cannot be called while it flushes, so activity waits here. Activities of the same workspace and owner wait
as one, with their counts added. The limit applies to the number of different pairs.
"""

import threading
from collections.abc import Callable
from uuid import UUID

from .errors import StoppedError
from .usage import REQUESTS_MAX, Pairs


class Intake:
    """A queue with a limited number of different pairs. All methods are thread-safe."""

    def __init__(self, capacity: int, on_half_full: Callable[[], None]) -> None:
        self._capacity = capacity
        self._on_half_full = on_half_full
        self._pairs: Pairs = {}
        self._closed: str | None = None
        self._changed = threading.Condition()

    def put(self, workspace: UUID, owner: UUID, allowed: int, denied: int, *, wait: bool) -> bool:
        """Adds an activity; returns whether it fitted. With `wait`, blocks until it fits."""
        pair = (workspace, owner)
        with self._changed:
            while self._closed is None and len(self._pairs) >= self._capacity and pair not in self._pairs:
                if not wait:
                    return False
                self._changed.wait()
            if self._closed is not None:
                raise StoppedError(self._closed)
            known = self._pairs.get(pair)
            if known is None:
                self._pairs[pair] = (allowed, denied)
                is_half_full = len(self._pairs) == (self._capacity + 1) // 2
            else:
                self._pairs[pair] = (min(known[0] + allowed, REQUESTS_MAX), min(known[1] + denied, REQUESTS_MAX))
                is_half_full = False
        if is_half_full:
            self._on_half_full()
        return True

    def drain(self) -> Pairs:
        """Removes and returns all activities."""
        with self._changed:
            pairs, self._pairs = self._pairs, {}
            self._changed.notify_all()
        return pairs

    def close(self, reason: str) -> None:
        """Refuses further activities with this reason, unless the queue was closed before.

        `drain` still works.
        """
        with self._changed:
            self._closed = self._closed or reason
            self._changed.notify_all()
