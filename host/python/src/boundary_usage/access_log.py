"""Tracks the requests in a proxy's access log, which the proxy writes to a pipe.

    python -m boundary_usage.access_log --denied PR haproxy -db -f haproxy.cfg

Each line is a request: either `WORKSPACE OWNER DECISION`, or a JSON object with these three members.
"""

import argparse
import contextlib
import fcntl
import json
import logging
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from typing import IO, Any
from uuid import UUID, uuid4

from boundary_usage import BoundaryUsageError, ConfigurationError, Tracker, connect

_log = logging.getLogger("boundary_usage")

LINE_BYTES_MAX = 65_536
PIPE_BYTES = 1_048_576
"""The size of the proxy's pipe, which holds about 10,000 lines. Linux grants it to every user."""


def main() -> int:
    """Runs the reader; returns the exit code of the process."""
    options = _arguments().parse_args()
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.INFO)
    try:
        with contextlib.closing(connect(options.database)) as database, Tracker(uuid4(), database) as tracker:
            reader = Reader(tracker, options)
            exit_code = _run_proxy(options.command, reader) if options.command else _read_stdin(reader)
            _log.info("the access log ended after these lines: %s", dict(reader.counts))
    except (BoundaryUsageError, OSError) as error:
        _log.error("cannot track the access log: %s", error)
        return 1
    return exit_code


def _read_stdin(reader: "Reader") -> int:
    # A service manager stops proxy and reader together, and the proxy still writes the end of its log.
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    reader.read(sys.stdin.buffer)
    return 0


def _run_proxy(command: list[str], reader: "Reader") -> int:
    """Starts a proxy and reads its stdout; returns its exit code."""
    proxy = subprocess.Popen(command, stdout=subprocess.PIPE)
    # The terminal sends these to the proxy, too.
    for number in (signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, lambda received, _frame: proxy.send_signal(received))
    assert proxy.stdout is not None
    with contextlib.suppress(OSError):  # The user has too many large pipes.
        fcntl.fcntl(proxy.stdout, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    try:
        reader.read(proxy.stdout)
    except BoundaryUsageError:
        proxy.terminate()
        raise
    exit_code = proxy.wait()
    return 128 - exit_code if exit_code < 0 else exit_code


class Reader:
    """Tracks lines of an access log."""

    def __init__(self, tracker: Tracker, options: argparse.Namespace) -> None:
        self._tracker = tracker
        self._names = [name.split(".") for name in (options.workspace, options.owner, options.decision)]
        self._denied = frozenset(options.denied.split(","))
        self._is_squid = options.squid
        self.counts: Counter[str] = Counter()

    def read(self, stream: IO[bytes]) -> None:
        """Tracks the lines of a log to its end."""
        for line in read_lines(stream):
            self._track(line)

    def _track(self, line: str) -> None:
        if self._is_squid:
            if not line.startswith("L"):
                return  # A command that concerns log files, such as their rotation.
            line = line[1:]
        try:
            workspace, owner, decision = self._members(line) if line.startswith("{") else line.split()
            is_denied = decision in self._denied
            self._tracker.track(UUID(workspace), UUID(owner), not is_denied, is_denied)
        except (ValueError, RecursionError, ConfigurationError):
            self._count_unidentified(line)
        else:
            self.counts["denied" if is_denied else "allowed"] += 1

    def _members(self, line: str) -> list[str]:
        record = json.loads(line)
        return [_member(record, path) for path in self._names]

    def _count_unidentified(self, line: str) -> None:
        """Counts a line that is in no summary; logs the 1st, 2nd, 4th, 8th …."""
        self.counts["unidentified"] += 1
        count = self.counts["unidentified"]
        if count & (count - 1) == 0:
            # Clients determine parts of a line, so it is quoted.
            reason = "expected a workspace UUID, an owner UUID and a decision"
            _log.warning("a line was not tracked: %s: %.200r (unidentified lines: %d)", reason, line, count)


def read_lines(stream: IO[bytes]) -> Iterator[str]:
    """Yields the lines of a stream; a line of more than 64 KiB is cut."""
    is_rest = False
    while line := stream.readline(LINE_BYTES_MAX):
        if not is_rest:
            yield line.decode("utf-8", "replace").rstrip()
        is_rest = not line.endswith(b"\n")


def _member(record: Any, path: list[str]) -> str:
    """Returns the text at a path; of a list, its only element."""
    for name in path:
        record = record.get(name) if isinstance(record, dict) else None
    if isinstance(record, list) and len(record) == 1:
        record = record[0]
    return str(record)


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m boundary_usage.access_log",
        description="Track the requests in the access log that a proxy writes to stdout, or in the one on stdin. "
        "Each line is a request: either `WORKSPACE OWNER DECISION`, or a JSON object with these members.",
    )
    parser.add_argument("command", metavar="COMMAND", nargs=argparse.REMAINDER, help="proxy to start [default: stdin]")
    database = os.environ.get("BOUNDARY_USAGE_DATABASE") or "sqlite:boundary-usage.db"
    parser.add_argument("--database", metavar="URL", default=database, help="database [BOUNDARY_USAGE_DATABASE]")
    for name, default in (("workspace", "workspace"), ("owner", "owner"), ("decision", "status")):
        text = f"member of a JSON object with the {name}; dots lead into objects [default: {default}]"
        parser.add_argument("--" + name, metavar="NAME", default=default, help=text)
    denied = "decisions of denied requests; all others are allowed [default: 403,407]"
    parser.add_argument("--denied", metavar="VALUE,…", default="403,407", help=denied)
    parser.add_argument("--squid", action="store_true", help="read the protocol of Squid's logfile_daemon")
    return parser


if __name__ == "__main__":
    sys.exit(main())
