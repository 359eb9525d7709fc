"""Parser of database URLs, by the rules in `docs/operating.md` ("Database URLs").

The rules are the same in every host. A URL may contain a password, and a mistyped URL may contain it anywhere. So
messages show no part of a PostgreSQL URL except the names of known parameters.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

from ..errors import ConfigurationError

EXPECTED = "expected `sqlite:PATH` or `postgres://USER:PASSWORD@HOST:PORT/DATABASE`"

CONNECT_SECONDS = 5
CONNECT_SECONDS_MAX = 600

_ONE_HOST = "name one host, or an address in front of all of them"
_SERVICE = "write the settings of the service into the URL, or set PGHOST and the other variables"

_REFUSED = {
    "service": ("PGSERVICE", _SERVICE),
    "passfile": (None, "name the file in the environment variable PGPASSFILE"),
    "replication": (None, "usage is not written through a replication connection; leave it out"),
}
"""Parameters of libpq that no host supports.

Each entry has the parameter's environment variable and an alternative.
"""

_ONLY = {
    "target_session_attrs": ("PGTARGETSESSIONATTRS", ("any", "read-write", "primary"), "usage is written to a primary"),
    "load_balance_hosts": ("PGLOADBALANCEHOSTS", ("disable",), "one host is used; leave it out"),
}
"""Parameters of libpq with a restricted value.

Each entry has the parameter's environment variable, the supported values, and the reason for the restriction.
"""


@dataclass(frozen=True)
class SqliteUrl:
    """A SQLite file, and whether it is created if it is missing."""

    path: Path
    creates: bool


def sqlite(url: str) -> SqliteUrl:
    """Parses a SQLite URL."""
    rest = url.removeprefix("sqlite:")
    if rest.startswith("//"):
        rest = rest[2:]
        if "@" in rest.partition("?")[0].partition("/")[0]:
            raise ConfigurationError("a SQLite URL has no user, password or host; expected `sqlite:PATH`")
    encoded, question_mark, parameters = rest.partition("?")
    try:
        name = unquote_to_bytes(encoded).decode()
    except UnicodeError:
        raise ConfigurationError("the path of the SQLite URL is not UTF-8; expected `sqlite:PATH`") from None
    if not name or "\0" in name or name == ":memory:" or name.startswith("file:") or "memory" in parameters:
        raise ConfigurationError("a SQLite database must be a file; expected `sqlite:PATH`, or `sqlite:./file:NAME`")
    if question_mark and parameters not in ("", "mode=rw", "mode=rwc"):
        raise ConfigurationError(f"`sqlite:{name}`: the only parameters are `mode=rwc` (the default) and `mode=rw`")
    # The path is made absolute, because the working directory may change before the file is opened again.
    path = Path(name).absolute()
    if path.is_dir():
        raise ConfigurationError(f"`{path}` is a directory; name a file in it")
    if not path.parent.is_dir():
        raise ConfigurationError(f"there is no directory `{path.parent}`; create it, or correct the path")
    return SqliteUrl(path, creates=parameters != "mode=rw")


def check_syntax(url: str) -> None:
    """Refuses special characters in a password unless they are percent-encoded.

    Other parsers would divide such a URL differently.
    """
    after_scheme = url.partition("//")[2]
    end = min((place for place in map(after_scheme.find, "/?#") if place >= 0), default=len(after_scheme))
    if "@" in after_scheme[end:].partition("?")[0]:
        encode = "percent-encode the characters `/ ? # @` in user and password (`/` is %2F)"
        raise ConfigurationError(f"the PostgreSQL URL has an `@` after its host; {encode}")


def resolve(given: Mapping[str, Any], environment: Mapping[str, str]) -> dict[str, Any]:
    """Completes the parameters of a URL with the environment and the defaults.

    An empty parameter counts as not set.
    """
    parameters = {name: str(value) for name, value in given.items() if value not in (None, "")}

    def setting(name: str, variable: str | None) -> str | None:
        return parameters.get(name) or (environment.get(variable) if variable else None) or None

    def refuse(name: str, variable: str | None, reason: str) -> None:
        where = f"the parameter `{name}` of the PostgreSQL URL" if name in parameters else f"the variable {variable}"
        raise ConfigurationError(f"{where} is not supported with this value: {reason}")

    for name, (variable, reason) in _REFUSED.items():
        if setting(name, variable):
            refuse(name, variable, reason)
    if environment.get("PGSERVICE") == "":
        raise ConfigurationError(
            "the variable PGSERVICE is empty, which libpq reads as the name of a service; unset it"
        )
    for name, (variable, allowed, reason) in _ONLY.items():
        value = setting(name, variable)
        if value and value not in allowed:
            refuse(name, variable, f"{reason}; supported values: {', '.join(allowed)}")
    for name, variable in (("host", "PGHOST"), ("hostaddr", "PGHOSTADDR"), ("port", "PGPORT")):
        if "," in (setting(name, variable) or ""):
            refuse(name, variable, _ONE_HOST)
    port = setting("port", "PGPORT")
    if port is not None and not (port.isascii() and port.isdigit() and 0 < int(port) < 65_536):
        refuse("port", "PGPORT", "a port is a number from 1 to 65535")
    limit = setting("connect_timeout", "PGCONNECT_TIMEOUT") or str(CONNECT_SECONDS)
    if not (limit.isascii() and limit.isdigit() and 1 <= int(limit) <= CONNECT_SECONDS_MAX):
        refuse("connect_timeout", "PGCONNECT_TIMEOUT", f"it is a number of seconds from 1 to {CONNECT_SECONDS_MAX}")
    parameters["connect_timeout"] = limit
    if not environment.get("PGAPPNAME"):
        parameters.setdefault("application_name", "boundary-usage")
    parameters["client_encoding"] = "UTF8"
    # A host address overrides a host name.
    host = setting("hostaddr", "PGHOSTADDR") or setting("host", "PGHOST")
    if host is not None and not _is_this_machine(host) and not setting("sslmode", "PGSSLMODE"):
        # By default, the certificate of a remote host is verified.
        parameters["sslmode"] = "verify-full"
        if not setting("sslrootcert", "PGSSLROOTCERT"):
            parameters["sslrootcert"] = "system"
    return parameters


def address(parameters: Mapping[str, Any], environment: Mapping[str, str]) -> str:
    """Returns the address of the server, for messages."""
    host = (
        parameters.get("host")
        or environment.get("PGHOST")
        or parameters.get("hostaddr")
        or environment.get("PGHOSTADDR")
    )
    port = parameters.get("port") or environment.get("PGPORT") or "5432"
    return f"the server on {host or 'the local socket'}, port {port}"


def invalid(reason: str) -> ConfigurationError:
    """Returns the error of an invalid PostgreSQL URL."""
    return ConfigurationError(
        f"the PostgreSQL URL is not valid: {reason}; expected `postgres://USER:PASSWORD@HOST:PORT/DATABASE`"
    )


def _is_this_machine(host: str) -> bool:
    # A path is the directory of a Unix socket, and an `@` starts the name of an abstract socket.
    if host.startswith(("/", "@")) or host.lower() == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
