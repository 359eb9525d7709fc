"""Unflushed activity: what the component was given and the database has not confirmed.

A component that breaks takes its memory with it, and it is not trusted. So the host keeps this account beside it, by
the same rules. The successor of a component that broke is given all of it again, and what a component writes is
compared with it.
"""

import logging
from uuid import UUID

from . import sketch
from .errors import RefusedError
from .usage import REQUESTS_MAX, Delta, Pairs, Stored, Unchanged, Update

_log = logging.getLogger("boundary_usage")

PAIRS_MAX = 65_536
"""How many different pairs an account keeps. Of the pairs beyond, it keeps the requests and not the ids."""

_ESTIMATE_TOLERANCE = 0.08
"""Ten times the relative standard error of a sketch beyond 16,384 ids."""


class Account:
    """The account of one replica. Used by the thread that calls the component."""

    def __init__(self, replica: UUID) -> None:
        self.pairs: Pairs = {}
        self.dropped = 0
        """How many activities are kept without their ids."""
        self._replica = replica
        self._in_doubt: tuple[int, Pairs] | None = None
        self._confirmed = 0

    @property
    def in_doubt(self) -> int | None:
        """The number of the flush whose commit brought no reply."""
        return self._in_doubt and self._in_doubt[0]

    @property
    def is_empty(self) -> bool:
        """Whether everything is known to be in the database."""
        return not self.pairs and self._in_doubt is None

    def record(self, pairs: Pairs) -> None:
        """Adds activity that the component is about to be given."""
        for pair, counts in pairs.items():
            if pair not in self.pairs and len(self.pairs) >= PAIRS_MAX:
                self.dropped += 1
                pair = next(iter(self.pairs))
            allowed, denied = self.pairs.get(pair, (0, 0))
            # Saturated, as in the intake: the component's numbers end a little further.
            self.pairs[pair] = (min(allowed + counts[0], REQUESTS_MAX), min(denied + counts[1], REQUESTS_MAX))

    def last_flush_read(self, last_flush: int) -> None:
        """Resolves a doubt. The number must have been read while the transaction held the replica's lock."""
        if last_flush < self._confirmed:
            _log.warning(
                "the database has flush %d of replica %s as its last, and flush %d was confirmed before: the database "
                "was restored from a backup, or a standby that lagged took over; usage of the flushes between is lost",
                last_flush,
                self._replica,
                self._confirmed,
            )
        self._confirmed = last_flush
        if self._in_doubt is not None:
            number, pairs = self._in_doubt
            self._in_doubt = None
            if last_flush < number:
                self.record(pairs)

    def commit_sent(self, number: int) -> None:
        """Everything is in doubt from here until the reply."""
        self._in_doubt = (number, self.pairs)
        self.pairs = {}

    def committed(self) -> None:
        """The commit that was sent is applied."""
        if self._in_doubt is not None:
            self._confirmed = self._in_doubt[0]
        self._in_doubt = None
        self.dropped = 0

    def not_committed(self) -> None:
        """The commit that was sent is not applied, for certain."""
        if self._in_doubt is not None:
            _, self.pairs = self._in_doubt
        self._in_doubt = None

    def check(self, update: Update, stored: Stored) -> None:
        """Compares what the component writes with the account; raises `RefusedError` on a difference."""
        requests = [min(sum(counts), REQUESTS_MAX) for counts in zip(*self.pairs.values(), strict=True)] or [0, 0]
        numbers = (
            ("flush number", update.flush, stored.last_flush + 1),
            ("count of allowed requests", update.allowed, requests[0]),
            ("count of denied requests", update.denied, requests[1]),
        )
        for name, found, expected in numbers:
            if found != expected:
                raise RefusedError(f"the component's {name} is {found}, and the host's is {expected}")
        if isinstance(update.uniques, Unchanged):
            return
        for index, kind in enumerate(("workspaces", "users")):
            ids = len({pair[index] for pair in self.pairs})
            written = getattr(update.uniques.uniques, kind)
            new = sketch.read(written.sketch, f"the component's sketch of {kind}")
            if written.count != new.count:
                raise RefusedError(f"the component counts {written.count} {kind}, and its sketch {new.count}")
            before = None
            if not isinstance(update.uniques, Delta) and stored.uniques is not None:
                data = getattr(stored.uniques, kind).sketch
                before = sketch.read(data, f"the stored sketch of the {kind} of replica {self._replica}")
            self._compare(new, before, ids, kind)

    def _compare(self, new: sketch.Sketch, before: sketch.Sketch | None, ids: int, kind: str) -> None:
        """A sketch has what was stored, and no more new ids than the component was given."""
        known = before.below(new.theta) if before else set()
        added = set(new.hashes) - known
        count_before, theta_before = (before.count, before.theta) if before else (0, sketch.THETA_MAX)
        most = (count_before + ids + self.dropped) * (1 + _ESTIMATE_TOLERANCE)
        least = max(count_before, ids) * (1 - _ESTIMATE_TOLERANCE)
        if before is None and not self.dropped and ids <= sketch.RETAINED_MAX:
            most = least = ids
        is_plausible = (
            known <= set(new.hashes)
            and len(added) <= ids + self.dropped
            and new.theta <= theta_before
            and least <= new.count <= most
        )
        if not is_plausible:
            what = f"{len(added)} new hashes and counts {new.count}"
            given = f"the component was given {ids} ids, and {count_before} were stored"
            raise RefusedError(f"the component's sketch of {kind} has {what}, or lacks stored hashes; {given}")
