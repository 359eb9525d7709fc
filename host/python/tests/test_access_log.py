"""The reader of access logs tracks the lines of a log. `tests/proxies` runs it with real proxies."""

import json
import os
import signal
import subprocess
import sys
from uuid import UUID

import pytest
from real_parts import totals

ALICE, BOB, CAROL = (str(UUID(int=number)) for number in (1, 2, 3))


def start(*arguments: str, url: str) -> subprocess.Popen[bytes]:
    """Starts the reader with pipes."""
    return subprocess.Popen(
        [sys.executable, "-m", "boundary_usage.access_log", *arguments],
        env=os.environ | {"BOUNDARY_USAGE_DATABASE": url},
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def read(log: str | bytes, *arguments: str, url: str, exit_code: int = 0) -> str:
    """Runs the reader with a log on stdin; returns its own log."""
    with start(*arguments, url=url) as reader:
        _, output = reader.communicate(log.encode() if isinstance(log, str) else log)
    assert reader.returncode == exit_code, output
    return output.decode()


def test_each_line_counts_by_its_decision(url: str) -> None:
    log = f"{ALICE} {CAROL} 200\n{BOB} {CAROL} 403\n{BOB} {CAROL} 407\n{ALICE} {CAROL} -\n{ALICE} {CAROL} 502"
    assert "{'allowed': 3, 'denied': 2}" in read(log, url=url)
    assert totals(url) == (2, 1, 3, 2)
    assert "{'allowed': 4, 'denied': 1}" in read(log, "--denied", "418,502", url=url)
    assert totals(url) == (2, 1, 4, 1)


def test_members_of_json_objects_identify_requests(sqlite_url: str) -> None:
    flat = json.dumps({"workspace": ALICE, "owner": CAROL, "status": 403, "more": [{}]})
    assert "{'denied': 1}" in read(flat, url=sqlite_url)
    nested = json.dumps({"request": {"headers": {"X-Workspace": [BOB], "X-Owner": [CAROL]}}, "decision": "allow"})
    names = ("--workspace", "request.headers.X-Workspace", "--owner", "request.headers.X-Owner")
    assert "{'allowed': 1}" in read(nested, *names, "--decision", "decision", url=sqlite_url)
    assert totals(sqlite_url) == (2, 1, 1, 1)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "- - 200",
        f"{ALICE} {CAROL}",
        f"{ALICE} {CAROL} 200 200",
        f"alice {CAROL} 200",
        f"{ALICE} {UUID(int=0)} 200",
        "{",
        "[" * 60_000,
        '{"a":' * 10_000,
        '{"workspace": {"id": 1}, "owner": [], "status": null}',
        f'{{"workspace": ["{ALICE}", "{BOB}"], "owner": "{CAROL}", "status": 200}}',
        f"{'x' * 65_536}{ALICE} {CAROL} 200",
        "\x1b[2J\u202e\udcff",
    ],
)
def test_a_line_without_an_identity_is_logged_and_not_counted(sqlite_url: str, line: str) -> None:
    good = f"{ALICE} {CAROL} 200\n"
    output = read(f"{good}{line}\n{good}".encode("utf-8", "surrogateescape"), url=sqlite_url)
    assert "{'allowed': 2, 'unidentified': 1}" in output
    assert output.replace("\n", "").isprintable()
    assert len(output) < 600
    assert totals(sqlite_url) == (1, 1, 2, 0)


def test_lines_without_an_identity_are_logged_ever_less_often(sqlite_url: str) -> None:
    output = read("- - 200\n" * 9, url=sqlite_url)
    assert output.count("WARNING") == 4  # the 1st, 2nd, 4th and 8th


def test_commands_of_squid_are_no_requests(sqlite_url: str) -> None:
    log = f"r0\nb1\nL{ALICE} {CAROL} TCP_DENIED\nF\nR\nL{ALICE} {CAROL} TCP_MISS\nT\nO\n"
    assert "{'denied': 1, 'allowed': 1}" in read(log, "--squid", "--denied", "TCP_DENIED", url=sqlite_url)
    assert totals(sqlite_url) == (1, 1, 1, 1)


def test_a_stop_signal_does_not_end_the_log(sqlite_url: str) -> None:
    with start(url=sqlite_url) as reader:
        assert reader.stdin is not None
        assert reader.stderr is not None
        reader.stdin.write(b"a line that shows that the reader runs\n")
        reader.stdin.flush()
        assert b"WARNING" in reader.stderr.readline()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            reader.send_signal(number)
        reader.stdin.write(f"{ALICE} {CAROL} 200\n".encode())
        reader.stdin.close()
        assert b"{'unidentified': 1, 'allowed': 1}" in reader.stderr.read()
    assert (reader.returncode, totals(sqlite_url)) == (0, (1, 1, 1, 0))


def test_the_reader_starts_a_proxy_and_ends_with_its_exit_code(sqlite_url: str) -> None:
    script = f"echo {ALICE} {CAROL} 200; exit 7"
    assert "{'allowed': 1}" in read("", "sh", "-c", script, url=sqlite_url, exit_code=7)
    assert "No such file" in read("", "no-such-proxy", url=sqlite_url, exit_code=1)
    assert totals(sqlite_url) == (1, 1, 1, 0)


def test_a_stop_signal_stops_the_proxy_whose_last_lines_count(sqlite_url: str) -> None:
    script = f"trap 'echo {ALICE} {CAROL} 200; exit' TERM; echo running; while read line; do :; done"
    with start("bash", "-c", script, url=sqlite_url) as reader:
        assert reader.stderr is not None
        assert b"'running'" in reader.stderr.readline()
        reader.terminate()
        assert b"{'unidentified': 1, 'allowed': 1}" in reader.stderr.read()
    assert (reader.returncode, totals(sqlite_url)) == (0, (1, 1, 1, 0))


def test_no_proxy_starts_without_the_database() -> None:
    output = read("", "sh", "-c", "echo started >&2", url="sqlite:/no/such/folder/usage.db", exit_code=1)
    assert "cannot track the access log: " in output
    assert "started" not in output
