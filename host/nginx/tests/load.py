"""A load generator, which counts its completed requests: wrk with a script."""

import json
import signal
import subprocess
from pathlib import Path

CONNECTIONS = 16

# wrk ends earlier, by a signal.
DURATION = "1h"

# The ids of the script.
WORKSPACES, OWNERS = 50, 20


class Load:
    """Sends an exact number of requests. A quarter of them is for the location `/denied`."""

    def __init__(self, port: int, requests: int) -> None:
        self._remaining = 100 * CONNECTIONS
        self._total = self._remaining
        assert requests % self._total == 0, "every connection sends as many requests"
        self._process = subprocess.Popen(
            ["wrk", f"--threads={CONNECTIONS}", f"--connections={CONNECTIONS}", f"--duration={DURATION}"]
            + [f"--script={Path(__file__).with_name('load.lua')}", f"http://127.0.0.1:{port}"]
            + ["--", str(requests // CONNECTIONS)],
            stdout=subprocess.PIPE,
            text=True,
        )

    def wait_for(self, part: float) -> None:
        """Waits until this part of the requests has completed."""
        assert self._process.stdout is not None
        while self._total - self._remaining < part * self._total:
            line = self._process.stdout.readline()
            assert line, "wrk has ended"
            self._remaining -= line == "percent\n"

    def finish(self) -> dict[str, int]:
        """Waits for all requests; returns the numbers of completed ones by result."""
        self.wait_for(1)
        self._process.send_signal(signal.SIGINT)
        output, _ = self._process.communicate()
        counts: dict[str, int] = json.loads(output.splitlines()[-1])
        return counts

    def __enter__(self) -> "Load":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
