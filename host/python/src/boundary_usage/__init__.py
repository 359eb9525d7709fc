"""Usage tracking for egress boundaries.

This package counts unique workspaces, unique users, allowed requests and denied requests.

The flow is *track → intake → component → transaction → database*. The tracker is a WebAssembly component that all hosts
share. This package loads the component, gives it transactions on the usage of its own replica, and flushes it.

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
