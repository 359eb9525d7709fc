"""What can fail, sorted by what the caller can do about it. No message holds a password."""


class BoundaryUsageError(Exception):
    """Any failure of this package."""


class UnavailableError(BoundaryUsageError):
    """The database cannot be reached or gave up waiting; nothing was applied. Trying again later helps."""


class ConflictError(BoundaryUsageError):
    """Someone else had the upper hand; nothing was applied. Trying again helps."""


class CommitUnknownError(BoundaryUsageError):
    """A commit brought no reply. The tracker keeps the data, and its next flush finds out whether it counted."""


class RefusedError(BoundaryUsageError):
    """Not allowed, or not understood; nothing was applied. Trying again does not help."""


class ComponentError(BoundaryUsageError):
    """The component cannot be loaded, or broke."""


class ConfigurationError(BoundaryUsageError, ValueError):
    """A setting, a URL or an id that makes no sense."""


class StoppedError(BoundaryUsageError):
    """The tracker has been shut down."""


class TimedOutError(BoundaryUsageError):
    """A time limit ran out."""
