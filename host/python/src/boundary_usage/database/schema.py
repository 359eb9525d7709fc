"""The schema: which migrations there are, and which a database lacks.

The scripts are those of the Rust host, and they are recorded as it records them: whoever comes first makes the schema,
for all. A database of a version that is not known here is refused.
"""

import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha384
from importlib.resources import files

from ..errors import RefusedError


@dataclass(frozen=True)
class Migration:
    """One script."""

    version: int
    name: str
    sql: str

    @property
    def checksum(self) -> bytes:
        """What tells a script from another one of the same version."""
        return sha384(self.sql.encode()).digest()


def migrations(kind: str) -> list[Migration]:
    """The scripts for a kind of database, in order. Their files are called `0001_name.sql`."""
    folder = files(__package__).joinpath("sql", kind, "migrations")
    names = sorted(entry.name for entry in folder.iterdir() if entry.name[:4].isdigit())
    return [
        Migration(int(name[:4]), name[5:].removesuffix(".sql"), folder.joinpath(name).read_text("utf-8"))
        for name in names
    ]


def missing(known: list[Migration], applied: Iterable[tuple[int, bytes]]) -> list[Migration]:
    """The scripts that a database lacks, given the versions and checksums that it has."""
    checksums = {migration.version: migration.checksum for migration in known}
    versions = set()
    for version, checksum in applied:
        versions.add(version)
        if version not in checksums:
            newest = max(checksums)
            what = f"the database's schema has version {version}, and this release knows {newest}"
            raise RefusedError(f"{what}; use a newer release")
        if checksum != checksums[version]:
            what = f"version {version} of the database's schema was made by a different release"
            raise RefusedError(f"{what}; use that release, or another database")
    return [migration for migration in known if migration.version not in versions]


def random_key() -> bytes:
    """A hashing key for a new database."""
    return secrets.token_bytes(16)


def checked_key(key: bytes | None) -> bytes:
    """A stored hashing key."""
    if key is None or len(key) != 16:
        what = "the table boundary_usage_deployment holds no key of 16 bytes; ids cannot be hashed without it"
        raise RefusedError(f"{what}. Restore the row from a backup")
    return bytes(key)
