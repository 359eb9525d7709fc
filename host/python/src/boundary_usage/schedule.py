"""When to flush next: every interval, give or take a jitter, and sooner after a flush that failed. Pure."""

RETRY_SECONDS_MIN = 1.0
"""The first wait after a failure; it doubles with every further one, up to the interval."""


LAST_RETRY_SECONDS_MIN, LAST_RETRY_SECONDS_MAX = 0.05, 0.5
"""The waits between the attempts of the last flush, which has little time."""


def retry_of_the_last_flush(attempt: int) -> float:
    """How long to wait after an attempt of the last flush, counted from 0."""
    return min(LAST_RETRY_SECONDS_MIN * (1 << min(attempt, 10)), LAST_RETRY_SECONDS_MAX)


class Schedule:
    """The waits of one flush loop. `random` is from 0 to 1 and picks the point within the jitter."""

    def __init__(self, interval: float, jitter: float) -> None:
        self._interval = interval
        self._jitter = jitter
        self._retry = RETRY_SECONDS_MIN

    def after_success(self, random: float) -> float:
        """How long to wait at the start, and after a flush that did not fail."""
        self._retry = RETRY_SECONDS_MIN
        return self._jittered(self._interval, random)

    def after_failure(self, random: float) -> float:
        """How long to wait after a flush that failed: never longer than the interval."""
        wait = min(self._retry, self._interval)
        self._retry = wait * 2
        return min(self._jittered(wait, random), self._interval)

    def _jittered(self, wait: float, random: float) -> float:
        return wait * (1 + self._jitter * (2 * random - 1))
