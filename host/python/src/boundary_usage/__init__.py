"""Usage tracking for egress boundaries: unique workspaces and users, requests allowed and denied.

The flow is *track → intake → component → transaction → database*. The tracker itself is a WebAssembly component, the
same for every host; this package loads it, hands it a database transaction of its own rows, and flushes it.

    import uuid
    from boundary_usage import Tracker, connect

    with Tracker(uuid.uuid4(), connect("sqlite:usage.db")) as tracker:
        tracker.track(workspace, owner, allowed=1)
"""

from .database import Database, connect
from .errors import (
    BoundaryUsageError,
    CommitUnknownError,
    ComponentError,
    ConfigurationError,
    ConflictError,
    RefusedError,
    StoppedError,
    TimedOutError,
    UnavailableError,
)
from .tracker import Tracker
from .usage import Confirmed, Flushed, Idle, Written

__all__ = [
    "BoundaryUsageError",
    "CommitUnknownError",
    "ComponentError",
    "ConfigurationError",
    "Confirmed",
    "ConflictError",
    "Database",
    "Flushed",
    "Idle",
    "RefusedError",
    "StoppedError",
    "TimedOutError",
    "Tracker",
    "UnavailableError",
    "Written",
    "connect",
]
