"""A running proxy with the reader of its access log, its upstream server, and the lines of `docs/hosts.md`."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from base64 import b64encode
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

WORKSPACE, OWNER = "6b1f7a52-3f6e-4e0c-9d3b-0d7c5a1e2f01", "0c55e1d4-7a3b-4f5e-8c21-5b9f0e6d7a02"
AUTHORIZATION = "Basic " + b64encode(b"alice:secret").decode()
READER = [sys.executable, "-m", "boundary_usage.access_log"]


def documented(kind: str, replacements: dict[str, object]) -> str:
    """Returns the lines of a kind in `docs/hosts.md`, with the places of this test."""
    document = (Path(__file__).parents[4] / "docs" / "hosts.md").read_text("utf-8")
    found = re.search(f"^```{kind}\n(.*?)^```$", document, re.MULTILINE | re.DOTALL)
    assert found, f"docs/hosts.md has no lines of the kind {kind}"
    lines = found[1]
    for text, place in replacements.items():
        assert text in lines, f"{kind} has no {text}"
        lines = lines.replace(text, str(place))
    return lines


class Upstream:
    """A server that responds with the status in the path, and identifies Alice in `/auth`."""

    def __init__(self) -> None:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                is_known = self.headers["Authorization"] == AUTHORIZATION
                is_check = self.path.startswith("/auth")
                self.send_response((200 if is_known else 401) if is_check else int(self.path.strip("/")))
                if is_check and is_known:
                    self.send_header("X-Workspace", WORKSPACE)
                    self.send_header("X-Owner", OWNER)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Stops the server."""
        self._server.shutdown()
        self._server.server_close()


class Proxy:
    """A running proxy, or a reader that runs it."""

    def __init__(self, folder: Path, database: str, command: list[str], port: int) -> None:
        self._port = port
        self._output = (folder / "output").open("w+")
        environment = os.environ | {"BOUNDARY_USAGE_DATABASE": database, "HOME": str(folder)}
        self._process = subprocess.Popen(command, env=environment, stdout=self._output, stderr=self._output)

    def __enter__(self) -> "Proxy":
        """Waits until the proxy listens."""
        while not self._is_listening():
            try:
                self._process.wait(0.02)
            except subprocess.TimeoutExpired:
                continue
            raise AssertionError(f"the proxy ended: {self._read_output()}")
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(60)
        self._output.close()

    def get(self, times: int, url: str, headers: dict[str, str]) -> list[int]:
        """Sends requests over one connection; returns their different statuses."""
        client = HTTPConnection("127.0.0.1", self._port, timeout=60)
        statuses = set()
        for _ in range(times):
            client.request("GET", url, headers=headers)
            response = client.getresponse()
            response.read()
            statuses.add(response.status)
        client.close()
        return sorted(statuses)

    def stop(self, number: int = signal.SIGTERM) -> str:
        """Sends a signal that stops the process; returns its output."""
        self._process.send_signal(number)
        exit_code = self._process.wait(60)
        output = self._read_output()
        assert exit_code == 0, output
        return output

    def _is_listening(self) -> bool:
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", self._port)) == 0

    def _read_output(self) -> str:
        self._output.seek(0)
        return self._output.read()


def free_port() -> int:
    """Returns a port on which nothing listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port: int = bound.getsockname()[1]
        return port
