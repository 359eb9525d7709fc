"""The functions that the component imports.

The checks of these functions restrict the component to its own replica. The host does not trust the component. This
module does not depend on the component runtime; `component` converts the values.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from .database import Database, Transaction
from .errors import BoundaryUsageError, CommitUnknownError, RefusedError, UnavailableError
from .ledger import Ledger
from .usage import REQUESTS_MAX, Delta, StoredUsage, Unchanged, Update

_log = logging.getLogger("boundary_usage")


class Capabilities:
    """The imports of one tracker's component. At most one transaction is open."""

    def __init__(self, replica: UUID, database: Database) -> None:
        self.ledger = Ledger(replica)
        self._replica = replica
        self._database = database
        # A restart of the component must not depend on the database, so the key is read once.
        self._key = database.hashing_key()
        self._transaction: Transaction | None = None
        self._granted: set[str] = set()
        self._stored = StoredUsage(0, None)
        self._update: Update | None = None
        self._commit_sent = False

    def flush_begins(self) -> None:
        """Allows the component one commit."""
        self._commit_sent = False

    def flush_ends(self) -> bool:
        """Rolls back the open transaction; returns whether there was one."""
        is_open = self._transaction is not None
        self.roll_back()
        return is_open

    def resolve_doubt(self) -> None:
        """Resolves the flush in doubt, before a new instance gets the unflushed activity."""
        try:
            self.begin(self._replica)
            self.acquire("replica", "exclusive")
            self.read()
        finally:
            self.roll_back()

    def hashing_key(self) -> tuple[int, int]:
        """Returns the key of the id hashes."""
        return int.from_bytes(self._key[:8]), int.from_bytes(self._key[8:])

    def begin(self, replica: UUID) -> None:
        """Begins the transaction."""
        if replica != self._replica:
            raise RefusedError(f"replica {replica} is not the component's own replica")
        if self._transaction is not None:
            raise RefusedError("the component already has an open transaction")
        if self._commit_sent:
            raise RefusedError("this flush has already sent its commit")
        self._granted = set()
        self._update = None
        with _errors_of_the_contract("beginning a transaction"):
            self._transaction = self._database.begin()

    def acquire(self, lock: str, mode: str) -> None:
        """Acquires a lock for the transaction."""
        transaction = self._open()
        if (lock, mode) == ("cutover", "shared"):
            with _errors_of_the_contract("acquiring the cutover lock"):
                transaction.acquire_cutover()
        elif (lock, mode) == ("replica", "exclusive"):
            with _errors_of_the_contract("acquiring the replica's lock"):
                transaction.acquire_replica(self._replica)
        elif lock == "cutover":
            raise RefusedError("only a collection may acquire the cutover lock in exclusive mode")
        else:
            raise RefusedError("the replica's lock has no shared mode")
        self._granted.add(lock)

    def read(self) -> StoredUsage:
        """Reads the stored usage of the replica."""
        transaction = self._open()
        if "replica" not in self._granted:
            raise RefusedError("a read needs the replica's lock")
        with _errors_of_the_contract("reading the stored usage"):
            stored = transaction.read(self._replica)
        self._granted.add("read")
        self._stored = stored
        self.ledger.resolve(stored.last_flush)
        return stored

    def upsert(self, update: Update) -> bool:
        """Writes the replica's row; returns whether it is new."""
        transaction = self._open()
        if not {"cutover", "replica", "read"} <= self._granted:
            raise RefusedError("an upsert needs the cutover lock, the replica's lock and a read")
        if self._update is not None:
            raise RefusedError("the transaction already has an upsert")
        _check_range(update)
        new_period = isinstance(update.uniques, Delta)
        if new_period == (self._stored.uniques is not None):
            raise RefusedError("the update does not match the stored usage: only a delta inserts a row")
        self.ledger.check(update, self._stored)
        with _errors_of_the_contract("writing usage"):
            transaction.upsert(self._replica, update)
        self._update = update
        return new_period

    def commit(self) -> None:
        """Commits the transaction."""
        transaction = self._open()
        if self._update is None:
            self.roll_back()
            raise RefusedError("the transaction has no upsert to commit")
        self._transaction = None
        self._commit_sent = True
        number = self._update.flush
        self.ledger.commit_sent(number)
        try:
            transaction.commit()
        except CommitUnknownError as error:
            raise self._unknown(number, str(error)) from error
        except BoundaryUsageError:
            self.ledger.not_committed()
            raise
        except Exception as error:
            _log.exception("committing failed unexpectedly")
            raise self._unknown(number, _unexpected(error)) from error
        self.ledger.committed()

    def roll_back(self) -> None:
        """Rolls back the transaction, if one is open."""
        transaction, self._transaction = self._transaction, None
        if transaction is not None:
            try:
                transaction.rollback()
            except Exception:
                _log.exception("rolling back failed unexpectedly")

    def _unknown(self, number: int, cause: str) -> CommitUnknownError:
        return CommitUnknownError(
            f"the commit of flush {number} of replica {self._replica} had no reply, so its outcome is unknown: "
            f"{cause}; the next flush resolves it, and `boundary-usage status` shows the replica's last flush"
        )

    def _open(self) -> Transaction:
        if self._transaction is None:
            raise RefusedError("the component has no open transaction")
        return self._transaction


@contextmanager
def _errors_of_the_contract(action: str) -> Iterator[None]:
    """Converts every exception to an error of the contract.

    Any other exception would be a trap.
    """
    try:
        yield
    except BoundaryUsageError:
        raise
    except Exception as error:
        _log.exception("%s failed unexpectedly", action)
        raise UnavailableError(f"{action} failed: {_unexpected(error)}") from error


def _unexpected(error: Exception) -> str:
    return f"unexpected {type(error).__name__}: {error}"


def _check_range(update: Update) -> None:
    """Refuses numbers that the database cannot store."""
    numbers = {
        "flush number": update.flush,
        "count of allowed requests": update.allowed,
        "count of denied requests": update.denied,
    }
    if not isinstance(update.uniques, Unchanged):
        uniques = update.uniques.uniques
        numbers["count of unique ids"] = max(uniques.workspaces.count, uniques.users.count)
    for name, number in numbers.items():
        if number > REQUESTS_MAX:
            raise RefusedError(f"the component's {name} is {number}, more than 2^63 - 1")
