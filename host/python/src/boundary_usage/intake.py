"""What was tracked and not yet handed to the component: bounded, from any thread.

The component cannot be called while it flushes, so activity waits here. Activities of the same workspace and owner wait
as one, with their counts added: what is bounded is the number of different pairs.
"""

import threading
from collections.abc import Callable
from uuid import UUID

from .errors import StoppedError
from .usage import REQUESTS_MAX, Pairs


class Intake:
    """The queue between the callers' threads and the tracker's."""

    def __init__(self, capacity: int, on_filling: Callable[[], None]) -> None:
        self._capacity = capacity
        self._on_filling = on_filling
        self._pairs: Pairs = {}
        self._closed: str | None = None
        self._room = threading.Condition()

    def put(self, workspace: UUID, owner: UUID, allowed: int, denied: int, *, wait: bool) -> bool:
        """Adds an activity; answers whether there was room, for which it waits if told to."""
        pair = (workspace, owner)
        with self._room:
            while self._closed is None and len(self._pairs) >= self._capacity and pair not in self._pairs:
                if not wait:
                    return False
                self._room.wait()
            if self._closed is not None:
                raise StoppedError(self._closed)
            known = self._pairs.get(pair)
            if known is None:
                self._pairs[pair] = (allowed, denied)
                filling = len(self._pairs) == (self._capacity + 1) // 2
            else:
                self._pairs[pair] = (min(known[0] + allowed, REQUESTS_MAX), min(known[1] + denied, REQUESTS_MAX))
                filling = False
        if filling:
            self._on_filling()
        return True

    def take(self) -> Pairs:
        """Takes all that waits, and makes room."""
        with self._room:
            pairs, self._pairs = self._pairs, {}
            self._room.notify_all()
        return pairs

    def close(self, why: str) -> None:
        """Accepts nothing more, for this reason; what waits can still be taken. The first reason stays."""
        with self._room:
            self._closed = self._closed or why
            self._room.notify_all()
