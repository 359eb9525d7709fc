"""The waits between flushes, and the failures that the log shows.

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


LOG_SECONDS = 60.0
"""The time between two log lines about the same row of failed attempts."""


class FailedAttempts:
    """The failed attempts since the last success.

    The log shows the first failure, and then at most one a minute. Each line has the number of its attempt, which
    counts the failures without a line, too. `now` is a monotonic time in seconds.
    """

    def __init__(self) -> None:
        self._count = 0
        self._logged = float("-inf")

    def failed(self, now: float) -> int | None:
        """Counts a failed attempt; returns its number, from 1, if the log shows this failure."""
        self._count += 1
        if now - self._logged < LOG_SECONDS:
            return None
        self._logged = now
        return self._count

    def succeeded(self) -> int:
        """Counts a successful attempt; returns the number of failed ones before it."""
        count, self._count = self._count, 0
        self._logged = float("-inf")
        return count


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
