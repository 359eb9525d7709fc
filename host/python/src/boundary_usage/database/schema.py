"""The migrations of the tables, and the hashing key of a new database.

All hosts apply the same files and record them in the same table. The first host that connects creates the tables.
"""

import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha384

from ..errors import RefusedError
from .statements import sql_folder


@dataclass(frozen=True)
class Migration:
    """One migration file."""

    version: int
    name: str
    sql: str

    @property
    def checksum(self) -> bytes:
        """The SHA-384 of the file, which distinguishes different files of the same version."""
        return sha384(self.sql.encode()).digest()


def migrations(kind: str) -> list[Migration]:
    """Reads the migrations for a kind of database, in order.

    The names of the files have the form `0001_name.sql`.
    """
    folder = sql_folder(kind).joinpath("migrations")
    return [
        Migration(int(name[:4]), name[5:].removesuffix(".sql"), folder.joinpath(name).read_text("utf-8"))
        for name in sorted(entry.name for entry in folder.iterdir())
    ]


def missing(known: list[Migration], applied: Iterable[tuple[int, bytes]]) -> list[Migration]:
    """Returns the migrations that a database lacks.

    `applied` holds versions and checksums.

    Raises `RefusedError` if the database has a version that this release does not support.
    """
    checksums = {migration.version: migration.checksum for migration in known}
    versions = set()
    for version, checksum in applied:
        versions.add(version)
        if version not in checksums:
            newest = max(checksums)
            what = f"the schema of the database has version {version}, and this release supports {newest}"
            raise RefusedError(f"{what}; use a newer release")
        if checksum != checksums[version]:
            what = f"version {version} of the database schema was made by a different release"
            raise RefusedError(f"{what}; use that release, or another database")
    return [migration for migration in known if migration.version not in versions]


def random_key() -> bytes:
    """Returns a hashing key for a new database."""
    return secrets.token_bytes(16)


def checked_key(key: bytes | None) -> bytes:
    """Returns a stored hashing key if it is valid."""
    if key is None or len(key) != 16:
        what = "the table boundary_usage_deployment has no key of 16 bytes, and ids cannot be hashed without it"
        raise RefusedError(f"{what}; restore the row from a backup")
    return bytes(key)
