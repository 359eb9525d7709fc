"""The host's record of unflushed activity, beside the component.

The host does not trust the component, and a component that crashes loses its memory. So the ledger applies the same
rules to the same activity. A restarted component gets all unflushed activity from the ledger, and every update is
compared with the ledger.
"""

import logging
from uuid import UUID

from . import sketch
from .errors import RefusedError
from .usage import REQUESTS_MAX, Delta, Pairs, StoredUsage, Unchanged, Update

_log = logging.getLogger("boundary_usage")

PAIRS_MAX = 65_536
"""The largest number of different pairs.

Beyond this number, the ledger keeps the requests of new pairs, but not their ids.
"""

_ESTIMATE_TOLERANCE = 0.08
"""The tolerated error of estimates.

The tolerance is ten times the relative standard error of a sketch.
"""


class Ledger:
    """The unflushed activity of one replica.

    Only the thread that calls the component uses it.
    """

    def __init__(self, replica: UUID) -> None:
        self.pairs: Pairs = {}
        self.dropped = 0
        """The number of activities whose ids are not kept."""
        self._replica = replica
        self._in_doubt: tuple[int, Pairs] | None = None
        self._last_confirmed = 0

    @property
    def in_doubt(self) -> int | None:
        """The number of the flush whose commit had no reply."""
        return self._in_doubt and self._in_doubt[0]

    @property
    def is_empty(self) -> bool:
        """Whether all activity is known to be in the database."""
        return not self.pairs and self._in_doubt is None

    def record(self, pairs: Pairs) -> None:
        """Adds activity. This call must precede the component's `track`."""
        for pair, counts in pairs.items():
            if pair not in self.pairs and len(self.pairs) >= PAIRS_MAX:
                self.dropped += 1
                pair = next(iter(self.pairs))
            allowed, denied = self.pairs.get(pair, (0, 0))
            # Sums saturate at the database's limit, which the component's 64-bit counts can also hold.
            self.pairs[pair] = (min(allowed + counts[0], REQUESTS_MAX), min(denied + counts[1], REQUESTS_MAX))

    def resolve(self, last_flush: int) -> None:
        """Resolves a flush in doubt by the replica's last flush number.

        The transaction that read the number must have held the replica's lock.
        """
        if last_flush < self._last_confirmed:
            _log.warning(
                "the last flush of replica %s in the database is %d, but flush %d was confirmed before; the database "
                "was restored from a backup, or a lagging standby took over; the usage of the flushes between is lost",
                self._replica,
                last_flush,
                self._last_confirmed,
            )
        self._last_confirmed = last_flush
        if self._in_doubt is not None:
            number, pairs = self._in_doubt
            self._in_doubt = None
            if last_flush < number:
                self.record(pairs)

    def commit_sent(self, number: int) -> None:
        """Marks all activity as in doubt until the reply."""
        self._in_doubt = (number, self.pairs)
        self.pairs = {}

    def committed(self) -> None:
        """Records that the sent commit was applied."""
        if self._in_doubt is not None:
            self._last_confirmed = self._in_doubt[0]
        self._in_doubt = None
        self.dropped = 0

    def not_committed(self) -> None:
        """Records that the sent commit was not applied."""
        if self._in_doubt is not None:
            _, self.pairs = self._in_doubt
        self._in_doubt = None

    def check(self, update: Update, stored: StoredUsage) -> None:
        """Compares the component's update with the ledger.

        Raises `RefusedError` if they differ.
        """
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
            new = sketch.decode(written.data, f"the component's sketch of {kind}")
            if written.count != new.count:
                raise RefusedError(f"the component counts {written.count} {kind}, and its sketch {new.count}")
            before = None
            if not isinstance(update.uniques, Delta) and stored.uniques is not None:
                data = getattr(stored.uniques, kind).data
                before = sketch.decode(data, f"the stored sketch of the {kind} of replica {self._replica}")
            self._compare(new, before, ids, kind)

    def _compare(self, new: sketch.ThetaSketch, before: sketch.ThetaSketch | None, ids: int, kind: str) -> None:
        """Checks that a sketch has all stored hashes, and no more new ids than were tracked."""
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
            what = f"has {len(added)} new hashes and the count {new.count}, or lacks stored hashes"
            tracked = f"{ids} ids were tracked, and {count_before} were stored"
            raise RefusedError(f"the component's sketch of {kind} {what}; {tracked}")
