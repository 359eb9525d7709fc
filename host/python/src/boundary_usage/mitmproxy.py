"""An addon for mitmproxy that tracks the requests of its clients.

    mitmdump -s "$(python -m boundary_usage.mitmproxy)" --proxyauth @users.htpasswd --set boundary_usage_users=users.txt

Each request counts once, when it ends. The CONNECT of a tunnel counts if mitmproxy sees no request inside the tunnel.
"""

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from uuid import UUID, uuid4
from weakref import WeakKeyDictionary

from mitmproxy import ctx
from mitmproxy.addonmanager import Loader
from mitmproxy.connection import Client
from mitmproxy.exceptions import OptionsError
from mitmproxy.flow import Error
from mitmproxy.http import HTTPFlow, Request, Response
from mitmproxy.net.check import is_valid_host

from boundary_usage import BoundaryUsageError, ConfigurationError, Database, Tracker, connect

_log = logging.getLogger("boundary_usage")


class Identity(NamedTuple):
    """The sender of a request."""

    workspace: UUID
    owner: UUID


class Settings:
    """The options of the addon, validated."""

    def __init__(self) -> None:
        options = ctx.options
        self.headers = (options.boundary_usage_workspace, options.boundary_usage_owner)
        self.users: dict[str, Identity] | None = None
        if users := options.boundary_usage_users:
            if any(self.headers):
                raise ConfigurationError("boundary_usage_users excludes boundary_usage_workspace and _owner")
            if not options.proxyauth:
                raise ConfigurationError("boundary_usage_users needs the option proxyauth, which authenticates users")
            self.users = _read_users(Path(users).expanduser())
        elif not all(self.headers):
            raise ConfigurationError(
                "no option identifies the sender of a request; set boundary_usage_users to a file of users, or set "
                "boundary_usage_workspace and boundary_usage_owner to names of headers"
            )
        self.allow = [_pattern(text) for text in _values(options.boundary_usage_allow)]
        default = [] if self.allow else ["403"]
        self.denied = {_status(text) for text in _values(options.boundary_usage_denied) or default}

    def allows(self, request: Request) -> bool:
        """Returns whether the allow list is empty or contains the request's hosts."""
        if not self.allow:
            return True
        # A client that names two hosts, one in the URL and one in the header, needs both.
        hosts = (host.lower().rstrip(".") for host in (request.host, request.pretty_host))
        return all(any(_matches(pattern, host) for pattern in self.allow) for host in hosts)


class Connection:
    """The requests of a client's connection that have not ended."""

    def __init__(self) -> None:
        self.open: dict[str, tuple[HTTPFlow, Identity | None]] = {}
        self.tunnel = ""
        """The flow id of the latest CONNECT."""
        self.tunnel_identity: Identity | None = None
        """The identity in the headers of the latest CONNECT."""


class BoundaryUsage:
    """The addon. mitmproxy calls all its methods on one thread."""

    def __init__(self) -> None:
        self._settings: Settings
        self._database: Database
        self._tracker: Tracker | None = None
        self._connections: WeakKeyDictionary[Client, Connection] = WeakKeyDictionary()
        self._counts: Counter[str] = Counter()

    def load(self, loader: Loader) -> None:
        """Declares the options."""
        for name, default, text in [
            ("database", "sqlite:boundary-usage.db", "URL of the database for usage."),
            ("users", "", "File of users, one per line: user name of proxyauth, workspace UUID, owner UUID."),
            ("workspace", "", "Name of the header that contains the workspace UUID, instead of a file of users."),
            ("owner", "", "Name of the header that contains the owner UUID, instead of a file of users."),
        ]:
            loader.add_option("boundary_usage_" + name, str, default, text)
        allow = "Hosts that clients may reach, such as example.com or *.example.com; other requests get 403."
        loader.add_option("boundary_usage_allow", Sequence[str], [], allow)
        denied = "Statuses of responses that count as denied; by default 403, or none if there is an allow list."
        loader.add_option("boundary_usage_denied", Sequence[str], [], denied)
        # mitmproxy ignores unknown options, and would run without this addon if an option is given twice.
        for name in ctx.options.deferred:
            if name.startswith("boundary_usage_") and name not in ctx.options:
                _log.error("boundary usage has no option %s", name)
        try:
            ctx.options.process_deferred()
        except OptionsError as error:
            _log.error("boundary usage cannot start: %s", error)

    def configure(self, updated: set[str]) -> None:
        """Validates the options and starts the tracker."""
        if not any(name.startswith("boundary_usage_") for name in updated):
            return
        if self._tracker is not None:
            raise OptionsError("options of boundary usage cannot change while mitmproxy runs; restart it")
        try:
            self._settings = Settings()
            self._database = connect(ctx.options.boundary_usage_database)
            self._tracker = Tracker(uuid4(), self._database)
        except (BoundaryUsageError, OSError, UnicodeError) as error:
            # If an error is logged while mitmproxy starts, it ends.
            _log.error("boundary usage cannot start: %s", error)

    def http_connect(self, flow: HTTPFlow) -> None:
        """Begins a tunnel."""
        self._begin(flow)

    def requestheaders(self, flow: HTTPFlow) -> None:
        """Begins a request."""
        self._begin(flow)

    def response(self, flow: HTTPFlow) -> None:
        """Ends a request with a response."""
        self._end(flow)

    def error(self, flow: HTTPFlow) -> None:
        """Ends a request without a response."""
        self._end(flow)

    def http_connect_error(self, flow: HTTPFlow) -> None:
        """Ends a tunnel that is not open, after which the client may use its connection for other requests."""
        self._end(flow)
        if connection := self._connections.get(flow.client_conn):
            connection.tunnel_identity = None

    def client_disconnected(self, client: Client) -> None:
        """Ends a tunnel without a request inside it."""
        if connection := self._connections.pop(client, None):
            self._end_all(connection)

    def done(self) -> None:
        """Counts the open requests, flushes and stops."""
        if self._tracker is None:
            return
        for connection in self._connections.values():
            self._end_all(connection)
        self._connections.clear()
        tracker, self._tracker = self._tracker, None
        try:
            tracker.shutdown()
        except BoundaryUsageError as error:
            _log.error("the last flush failed: %s", error)
        self._database.close()
        _log.info("boundary usage stopped after these requests: %s", dict(self._counts))

    def _begin(self, flow: HTTPFlow) -> None:
        """Identifies the sender, and denies the request if the allow list has no such host."""
        if not flow.live or flow.is_replay == "request":
            return  # The operator loads or repeats a saved request.
        if self._tracker is None:
            _refuse(flow, 503, "the usage tracker does not run")
            return
        connection = self._connections.setdefault(flow.client_conn, Connection())
        # If mitmproxy sees a request inside a tunnel, the request counts instead of the CONNECT.
        connection.open.pop(connection.tunnel, None)
        identity = self._identify(flow, connection)
        if identity is None and self._settings.users is not None:
            if flow.response is None:
                _refuse(flow, 403, "this user has no workspace")
                self._count(None, is_denied=True)
            return
        if self._settings.allows(flow.request):
            connection.open[flow.id] = (flow, identity)
        else:
            _refuse(flow, 403, "the allow list does not contain this host")
            self._count(identity, is_denied=True)

    def _identify(self, flow: HTTPFlow, connection: Connection) -> Identity | None:
        """Returns the sender of a request; removes the headers with its ids."""
        if self._settings.users is not None:
            user, _password = flow.metadata.get("proxyauth", ("", ""))
            identity = self._settings.users.get(user)
        else:
            ids = [_id(flow.request.headers.pop(name, "")) for name in self._settings.headers]
            identity = Identity(ids[0], ids[1]) if ids[0] and ids[1] else None
        if flow.request.method == "CONNECT":
            connection.tunnel, connection.tunnel_identity = flow.id, identity
        # The client of a proxy in front of this one can set headers inside a tunnel, and not those of its CONNECT.
        return connection.tunnel_identity or identity

    def _end(self, flow: HTTPFlow) -> None:
        connection = self._connections.get(flow.client_conn)
        if connection and (begun := connection.open.pop(flow.id, None)):
            self._count(begun[1], self._is_denied(flow))

    def _end_all(self, connection: Connection) -> None:
        for flow, identity in connection.open.values():
            self._count(identity, self._is_denied(flow))
        connection.open.clear()

    def _is_denied(self, flow: HTTPFlow) -> bool:
        is_killed = flow.error is not None and flow.error.msg == Error.KILLED_MESSAGE
        return is_killed or (flow.response is not None and flow.response.status_code in self._settings.denied)

    def _count(self, identity: Identity | None, is_denied: bool) -> None:
        if self._tracker is None:
            return
        if identity is None:
            self._count_untracked("unidentified", "it has no valid workspace and owner")
            return
        try:
            refusal = None if self._tracker.try_track(*identity, not is_denied, is_denied) else "the intake is full"
        except BoundaryUsageError as error:
            refusal = str(error)
        if refusal is None:
            self._counts["denied" if is_denied else "allowed"] += 1
        else:
            self._count_untracked("refused", refusal)

    def _count_untracked(self, kind: str, reason: str) -> None:
        """Counts a request that is in no summary; logs the 1st, 2nd, 4th, 8th … of its kind."""
        self._counts[kind] += 1
        count = self._counts[kind]
        if count & (count - 1) == 0:
            _log.warning("a request was not tracked: %s (%s requests: %d)", reason, kind, count)


def _refuse(flow: HTTPFlow, status: int, text: str) -> None:
    is_chunked = "transfer-encoding" in flow.request.headers
    if flow.request.stream or (is_chunked and ctx.options.stream_large_bodies):
        # mitmproxy cannot respond to a request while it streams its body, so it closes the connection.
        flow.kill()
    else:
        flow.response = Response.make(status, text + "\n", {"content-type": "text/plain"})


def _read_users(path: Path) -> dict[str, Identity]:
    users = {}
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        fields = line.split()
        if not fields:
            continue
        ids = [_id(text) for text in fields[1:]]
        if len(ids) != 2 or not ids[0] or not ids[1] or fields[0] in users:
            raise ConfigurationError(f"{path}:{number}: expected a new user name, a workspace UUID and an owner UUID")
        users[fields[0]] = Identity(ids[0], ids[1])
    return users


def _id(text: str) -> UUID | None:
    try:
        identity = UUID(text)
    except ValueError:
        return None
    return identity if identity.int else None


def _values(option: Sequence[str]) -> list[str]:
    return [text.strip() for part in option for text in part.split(",")]


def _status(text: str) -> int:
    if not (text.isdecimal() and 100 <= int(text) <= 599):
        raise ConfigurationError(f"boundary_usage_denied has `{text}`, must be a status from 100 to 599")
    return int(text)


def _pattern(text: str) -> str:
    if text != "*" and not is_valid_host(text.removeprefix("*.")):
        raise ConfigurationError(f"boundary_usage_allow has `{text}`, must be a host without port, *.HOST or *")
    # mitmproxy decodes internationalised names.
    return text.lower().rstrip(".").encode("idna").decode("idna")


def _matches(pattern: str, host: str) -> bool:
    return pattern in ("*", host) or (pattern.startswith("*.") and host.endswith(pattern[1:]))


addons = [BoundaryUsage()]

if __name__ == "__main__":
    print(__file__)
