"""Time limits for calls that have none, enforced by one thread for each database.

The thread starts when the database is connected. A thread for each transaction might fail to start: the system may
limit threads, and the interpreter starts none while it shuts down.
"""

import heapq
import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_log = logging.getLogger("boundary_usage")


class Watchdog:
    """Runs actions after a delay unless they are cancelled."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._numbers = itertools.count()
        self._due: list[tuple[float, int]] = []
        self._actions: dict[int, Callable[[], None]] = {}
        self.is_closed = False
        threading.Thread(target=self._run, name="boundary-usage-watchdog", daemon=True).start()

    def after(self, seconds: float, action: Callable[[], None]) -> int:
        """Schedules an action; returns the number for `cancel`."""
        with self._changed:
            number = next(self._numbers)
            self._actions[number] = action
            heapq.heappush(self._due, (time.monotonic() + seconds, number))
            self._changed.notify()
        return number

    def cancel(self, number: int) -> None:
        """Cancels an action, which is not running when this method returns."""
        with self._changed:
            self._actions.pop(number, None)

    @contextmanager
    def limit(self, seconds: float, action: Callable[[], None]) -> Iterator[None]:
        """Runs the action if the block takes longer."""
        number = self.after(seconds, action)
        try:
            yield
        finally:
            self.cancel(number)

    def close(self) -> None:
        """Ends the thread."""
        with self._changed:
            self.is_closed = True
            self._changed.notify()

    def _run(self) -> None:
        with self._changed:
            while not self.is_closed:
                now = time.monotonic()
                while self._due and self._due[0][0] <= now:
                    action = self._actions.pop(heapq.heappop(self._due)[1], None)
                    if action is not None:
                        try:
                            action()
                        except Exception:
                            _log.exception("the action of a time limit failed unexpectedly")
                # A cancelled entry stays in the queue until its time comes, which is soon.
                self._changed.wait(self._due[0][0] - now if self._due else None)
