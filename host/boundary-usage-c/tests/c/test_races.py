"""Data races between a C program and the threads of the library, by ThreadSanitizer.

ThreadSanitizer sees the accesses of the C program, which is instrumented. They include those of the log sink on the
library's threads, and those to memory that the program releases. The library is not instrumented: its synchronisation
by atomics is invisible, so ThreadSanitizer reports much of its own memory. These reports are left out. The compiler
checks the library's code instead, and `make test-intake` its atomics.
"""

import os
import re
import subprocess
from pathlib import Path

from conftest import Compile

ACCESS = re.compile(r"^  (?:Previous )?(?:atomic )?(?:write|read) of size", re.IGNORECASE)
FRAME = re.compile(r"^    #\d+ ")


def accessing_frames(report: str) -> list[str]:
    """Returns the frame of each access in a report, which is the first one outside ThreadSanitizer.

    ThreadSanitizer forgets the stacks of old accesses. Those have no frame.
    """
    frames: list[str] = []
    is_wanted = False
    for line in report.splitlines():
        if ACCESS.match(line):
            is_wanted = True
        elif not FRAME.match(line):
            is_wanted = False
        elif is_wanted and "libtsan" not in line:
            frames.append(line)
            is_wanted = False
    return frames


def races(program: Path, url: str, replaced: Path) -> list[str]:
    """Runs a program; returns the reports with an access of the program itself."""
    # A report of the library would otherwise suppress one of the program at the same address, which `malloc` reuses.
    options = "exitcode=0 history_size=7 suppress_equal_addresses=0"
    environment = os.environ | {"TSAN_OPTIONS": options}
    command = [str(program), url, "50", str(replaced)]
    ended = subprocess.run(command, env=environment, stderr=subprocess.PIPE, text=True, timeout=600)
    assert ended.returncode == 0, ended.stderr
    reports = [report for report in ended.stderr.split("=" * 18) if "WARNING: ThreadSanitizer" in report]
    assert any(accessing_frames(report) for report in reports), "the reports have another form than expected"
    return [report for report in reports if any("threads.c" in frame for frame in accessing_frames(report))]


def test_the_program_and_the_library_have_no_data_race(compiled: Compile, url: str, tmp_path: Path) -> None:
    program = compiled("threads", "c99", "-fsanitize=thread")
    found = races(program, url, tmp_path / "replaced.db")
    assert not found, "\n".join(found)


def test_a_late_call_of_a_log_sink_would_be_noticed(compiled: Compile, sqlite_url: str, tmp_path: Path) -> None:
    program = compiled("threads", "c99", "-fsanitize=thread", "-DRELEASES_EARLY")
    assert any("count_message" in report for report in races(program, sqlite_url, tmp_path / "replaced.db"))
