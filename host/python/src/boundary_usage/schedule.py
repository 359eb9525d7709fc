"""The waits between flushes.

A flush follows the last one after the interval, with jitter. After a failed flush the waits are shorter. The module has
no side effects.
"""

RETRY_SECONDS_MIN = 1.0
"""The first wait after a failure.

Each further failure doubles the wait, up to the interval.
"""


SHUTDOWN_RETRY_SECONDS_MIN, SHUTDOWN_RETRY_SECONDS_MAX = 0.05, 0.5
"""The waits between the attempts of a shutdown's flush, which has little time."""


def shutdown_retry(attempt: int) -> float:
    """Returns the wait after an attempt of a shutdown's flush. The first attempt has the number 0."""
    return min(SHUTDOWN_RETRY_SECONDS_MIN * (1 << min(attempt, 10)), SHUTDOWN_RETRY_SECONDS_MAX)


class Schedule:
    """The waits of one flush loop.

    `random` is from 0 to 1 and selects the point within the jitter.
    """

    def __init__(self, interval: float, jitter: float) -> None:
        self._interval = interval
        self._jitter = jitter
        self._retry = RETRY_SECONDS_MIN

    def after_success(self, random: float) -> float:
        """Returns the wait at the start and after a successful flush."""
        self._retry = RETRY_SECONDS_MIN
        return self._jittered(self._interval, random)

    def after_failure(self, random: float) -> float:
        """Returns the wait after a failed flush, at most the interval."""
        wait = min(self._retry, self._interval)
        self._retry = wait * 2
        return min(self._jittered(wait, random), self._interval)

    def _jittered(self, wait: float, random: float) -> float:
        return wait * (1 + self._jitter * (2 * random - 1))
