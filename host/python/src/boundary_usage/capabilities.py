"""What the component can do: the imports of its world, each with the checks that keep it to its own replica.

A component is not trusted. Nothing here knows the component's runtime; `component` translates.
"""

from uuid import UUID

from .database import Database, Transaction
from .errors import RefusedError
from .usage import REQUESTS_MAX, Delta, Stored, Unchanged, UniqueSet, Update

SKETCH_BYTES_MAX = 131_096
"""The longest sketch of the contract."""


class Capabilities:
    """The functions behind one instance of the component. At most one transaction is open."""

    def __init__(self, replica: UUID, database: Database) -> None:
        self._replica = replica
        self._database = database
        # Read once: a component that is replaced must not need the database for it.
        self._key = database.hashing_key()
        self._transaction: Transaction | None = None
        self._granted: set[str] = set()
        self._has_row = False
        self._commit_sent = False

    def flush_begins(self) -> None:
        """One commit for each flush that the host asks for."""
        self._commit_sent = False

    def hashing_key(self) -> tuple[int, int]:
        """The key under which ids are hashed."""
        return int.from_bytes(self._key[:8]), int.from_bytes(self._key[8:])

    def begin(self, replica: UUID) -> None:
        """Opens the transaction."""
        if replica != self._replica:
            raise RefusedError(f"replica {replica} is not the component's own")
        if self._transaction is not None:
            raise RefusedError("the component has a transaction open")
        if self._commit_sent:
            raise RefusedError("this flush has sent its commit")
        self._granted = set()
        self._transaction = self._database.begin()

    def acquire(self, lock: str, mode: str) -> None:
        """Takes a lock for the transaction."""
        transaction = self._open()
        if (lock, mode) == ("cutover", "shared"):
            transaction.acquire_cutover()
        elif (lock, mode) == ("replica", "exclusive"):
            transaction.acquire_replica(self._replica)
        elif lock == "cutover":
            raise RefusedError("only a collection holds the cutover lock alone")
        else:
            raise RefusedError("a replica's lock is exclusive")
        self._granted.add(lock)

    def read(self) -> Stored:
        """Reads what is stored of the replica."""
        transaction = self._open()
        if "replica" not in self._granted:
            raise RefusedError("to read needs the replica's lock")
        stored = transaction.read(self._replica)
        self._granted.add("read")
        self._has_row = stored.uniques is not None
        return stored

    def upsert(self, update: Update) -> bool:
        """Writes the replica's row; answers whether it is new."""
        transaction = self._open()
        if not {"cutover", "replica", "read"} <= self._granted:
            raise RefusedError("to upsert needs the cutover lock, the replica's lock, and a read")
        if "upserted" in self._granted:
            raise RefusedError("the transaction has an upsert already")
        _check(update)
        new_period = isinstance(update.uniques, Delta)
        if new_period == self._has_row:
            raise RefusedError("the update does not fit what was read: a delta begins a row, and all else needs one")
        transaction.upsert(self._replica, update)
        self._granted.add("upserted")
        return new_period

    def commit(self) -> None:
        """Ends the transaction and makes its update last."""
        transaction = self._open()
        if "upserted" not in self._granted:
            self.roll_back()
            raise RefusedError("there is nothing to commit")
        self._transaction = None
        self._commit_sent = True
        transaction.commit()

    def roll_back(self) -> None:
        """Ends the transaction, if one is open, without its update."""
        transaction, self._transaction = self._transaction, None
        if transaction is not None:
            transaction.rollback()

    def _open(self) -> Transaction:
        if self._transaction is None:
            raise RefusedError("the component has no transaction open")
        return self._transaction


def _check(update: Update) -> None:
    """A component's numbers are untrusted; its sketches are read by the next one that merges them."""
    numbers = {
        "flush number": update.flush,
        "count of allowed requests": update.allowed,
        "count of denied requests": update.denied,
    }
    if not isinstance(update.uniques, Unchanged):
        uniques = update.uniques.uniques
        for unique_set in (uniques.workspaces, uniques.users):
            _check_sketch(unique_set)
            numbers["count of unique ids"] = max(unique_set.count, numbers.get("count of unique ids", 0))
    for name, number in numbers.items():
        if number > REQUESTS_MAX:
            raise RefusedError(f"the component's {name} is {number}, beyond 2^63 - 1")


def _check_sketch(unique_set: UniqueSet) -> None:
    """The start of a compact Theta sketch: preamble length, version, family. Those who merge it check the rest."""
    sketch = unique_set.sketch
    is_theta = len(sketch) >= 8 and 1 <= sketch[0] & 0x3F <= 3 and sketch[1:3] == b"\x03\x03"
    if not is_theta or len(sketch) > SKETCH_BYTES_MAX:
        raise RefusedError("the component's sketch is not a compact Theta sketch")
