"""The types that the tracker, its database and its callers share."""

from dataclasses import dataclass
from uuid import UUID

REQUESTS_MAX = 2**63 - 1
"""The largest count that a database stores, at which sums saturate."""


Pairs = dict[tuple[UUID, UUID], tuple[int, int]]
"""The allowed and denied requests of each workspace and owner."""


@dataclass(frozen=True)
class Sketch:
    """A set of ids as a compact Theta sketch of their hashes, with its estimated size."""

    count: int
    data: bytes


@dataclass(frozen=True)
class Uniques:
    """The unique workspaces and users of some activity."""

    workspaces: Sketch
    users: Sketch


@dataclass(frozen=True)
class StoredUsage:
    """The stored usage of a replica.

    `last_flush` is 0 before the first flush. `uniques` is `None` if the replica has not flushed in the open period.
    """

    last_flush: int
    uniques: Uniques | None


@dataclass(frozen=True)
class Delta:
    """The replica has no row in the open period.

    The new row gets the ids of this flush alone.
    """

    uniques: Uniques


@dataclass(frozen=True)
class Cumulative:
    """The union of the row's ids and those of this flush replaces the row's sets."""

    uniques: Uniques


@dataclass(frozen=True)
class Unchanged:
    """The row already contains all ids of this flush and keeps its sets."""


@dataclass(frozen=True)
class Update:
    """The update that one flush writes."""

    flush: int
    uniques: Delta | Cumulative | Unchanged
    allowed: int
    denied: int


@dataclass(frozen=True)
class Idle:
    """There was no activity since the last flush, so the flush began no transaction."""


@dataclass(frozen=True)
class Confirmed:
    """The flush with this number had no commit reply and was applied.

    There was no other activity.
    """

    flush: int


@dataclass(frozen=True)
class Written:
    """The activity since the last flush is in the database."""

    flush: int
    new_period: bool


Flushed = Idle | Confirmed | Written
"""The result of a flush."""
