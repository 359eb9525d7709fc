"""The words that the tracker, its database and its callers share."""

from dataclasses import dataclass
from uuid import UUID

REQUESTS_MAX = 2**63 - 1
"""The largest count that a database holds; sums stop there."""


Pairs = dict[tuple[UUID, UUID], tuple[int, int]]
"""Requests allowed and denied, of each workspace and owner."""


@dataclass(frozen=True)
class UniqueSet:
    """A set of ids that counts without naming: a compact Theta sketch, and what it estimates."""

    count: int
    sketch: bytes


@dataclass(frozen=True)
class Uniques:
    """The two sets that are counted."""

    workspaces: UniqueSet
    users: UniqueSet


@dataclass(frozen=True)
class Stored:
    """What the database holds of a replica: its last flush (0: none), and the open period's ids if it flushed in it."""

    last_flush: int
    uniques: Uniques | None


@dataclass(frozen=True)
class Delta:
    """The replica has no row in the open period: the ids of this flush alone go into a new one."""

    uniques: Uniques


@dataclass(frozen=True)
class Cumulative:
    """The ids of the open period, this flush included, replace those of the row."""

    uniques: Uniques


@dataclass(frozen=True)
class Unchanged:
    """The row holds the ids of this flush already, and keeps its sets."""


@dataclass(frozen=True)
class Update:
    """What one flush writes."""

    flush: int
    uniques: Delta | Cumulative | Unchanged
    allowed: int
    denied: int


@dataclass(frozen=True)
class Idle:
    """Nothing was tracked since the last flush: no transaction was opened."""


@dataclass(frozen=True)
class Confirmed:
    """A flush whose commit had brought no reply was found applied; nothing else was waiting."""

    flush: int


@dataclass(frozen=True)
class Written:
    """The activity since the last flush is in the database."""

    flush: int
    new_period: bool


Flushed = Idle | Confirmed | Written
"""What a flush did."""
