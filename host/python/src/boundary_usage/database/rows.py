"""Rows and arguments that both kinds of database read and write in the same way."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from ..errors import ConflictError
from ..usage import Delta, Sketch, StoredUsage, Unchanged, Uniques, Update


def stored(row: Sequence[Any]) -> StoredUsage:
    """Converts the row of `read_usage`; its last column is the hashing key."""
    last_flush, workspaces, users, workspaces_sketch, users_sketch, _key = row
    if workspaces is None:
        return StoredUsage(last_flush or 0, None)
    uniques = Uniques(Sketch(workspaces, bytes(workspaces_sketch)), Sketch(users, bytes(users_sketch)))
    return StoredUsage(last_flush or 0, uniques)


def write(replica: Any, update: Update) -> tuple[str, list[Any]]:
    """Returns the name of the statement that writes an update, and its arguments."""
    arguments: list[Any] = [replica, update.flush, update.allowed, update.denied]
    if isinstance(update.uniques, Unchanged):
        return "update_requests", arguments
    workspaces, users = update.uniques.uniques.workspaces, update.uniques.uniques.users
    arguments += [workspaces.count, users.count, workspaces.data, users.data]
    return "insert_usage" if isinstance(update.uniques, Delta) else "update_usage", arguments


def old_flush(replica: UUID, flush: int) -> ConflictError:
    """Returns the error of a flush that is not newer than the replica's last one."""
    what = f"flush {flush} of replica {replica} or a later one is already in the database"
    return ConflictError(f"{what}; make sure that no second process uses this replica id")
