"""What can fail, sorted by what the caller can do about it. No message contains a password.

Messages quote what others wrote: a server, a path, the component. So every message is made safe for a terminal and a
log here, in one place.
"""

MESSAGE_CHARACTERS_MAX = 1_000
"""The longest message; a component's error text may have any length."""


def printable(text: str) -> str:
    """Returns the text in one line, shortened, with control characters escaped."""
    line = " ".join(text.split())
    if len(line) > MESSAGE_CHARACTERS_MAX:
        line = line[: MESSAGE_CHARACTERS_MAX - 1] + "…"
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in line
    )


class BoundaryUsageError(Exception):
    """Any failure of this package."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


class UnavailableError(BoundaryUsageError):
    """The database cannot be reached or gave up waiting; nothing was applied. Trying again later helps."""


class ConflictError(BoundaryUsageError):
    """Lost a race: a lock timed out, or a newer flush was applied. Nothing was applied; trying again helps."""


class CommitUnknownError(BoundaryUsageError):
    """A commit brought no reply, so it may or may not be applied. The next flush finds out by the flush number."""


class RefusedError(BoundaryUsageError):
    """Not allowed, or not understood; nothing was applied. Trying again does not help."""


class ComponentError(BoundaryUsageError):
    """The component cannot be loaded, or broke. The message says whether unflushed activity was lost."""


class ConfigurationError(BoundaryUsageError, ValueError):
    """A setting, a URL or an id that makes no sense."""


class StoppedError(BoundaryUsageError):
    """The tracker does not run: it was shut down, its thread ended, or it belongs to the process before a fork."""


class TimedOutError(BoundaryUsageError):
    """A time limit ran out. A flush that still ran may or may not be applied."""
