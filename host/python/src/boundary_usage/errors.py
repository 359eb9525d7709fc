"""The errors of this package, grouped by what the caller can do.

No message contains a password.

Messages quote the server, paths and the component. The base class makes every message safe for terminals and logs.
"""

MESSAGE_CHARACTERS_MAX = 1_000
"""The length of the longest message.

The component's error texts have no limit of their own.
"""


def printable(text: str) -> str:
    """Returns the text as one line, shortened, with control characters escaped."""
    line = " ".join(text.split())
    if len(line) > MESSAGE_CHARACTERS_MAX:
        line = line[: MESSAGE_CHARACTERS_MAX - 1] + "…"
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in line
    )


class BoundaryUsageError(Exception):
    """The base class of all errors of this package."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


class UnavailableError(BoundaryUsageError):
    """The database is unreachable or gave up waiting.

    Nothing was applied. Try again later.
    """


class ConflictError(BoundaryUsageError):
    """Lost a race: a lock timed out, or a newer flush was already applied.

    Nothing was applied. Try again.
    """


class CommitUnknownError(BoundaryUsageError):
    """A commit had no reply, so it may have been applied.

    The next flush resolves it by the flush number.
    """


class RefusedError(BoundaryUsageError):
    """The call is not allowed or has invalid data.

    Nothing was applied. Do not try again.
    """


class ComponentError(BoundaryUsageError):
    """The component cannot be loaded, or it crashed.

    The message reports whether unflushed activity was lost.
    """


class ConfigurationError(BoundaryUsageError, ValueError):
    """A setting, a URL or an id is invalid."""


class StoppedError(BoundaryUsageError):
    """The tracker does not run.

    The tracker was shut down, its thread ended, or this process is a fork.
    """


class TimedOutError(BoundaryUsageError):
    """A time limit expired. A flush that was still running may have been applied."""
