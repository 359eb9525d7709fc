"""The SQL files that all hosts share: statements and migrations.

The folder `sql` is a copy of `host/boundary-usage/sql`, which the build puts into this package.
"""

from importlib.resources import files
from importlib.resources.abc import Traversable


def sql_folder(kind: str) -> Traversable:
    """Returns the folder of a kind of database: `sqlite` or `postgres`."""
    return files(__package__).joinpath("sql", kind)


def read_statements(kind: str) -> dict[str, str]:
    """Reads all statements for a kind of database.

    The names of the statements are the file names without `.sql`.
    """
    suffix = ".sql"
    return {
        entry.name.removesuffix(suffix): entry.read_text("utf-8")
        for entry in sql_folder(kind).iterdir()
        if entry.name.endswith(suffix)
    }
