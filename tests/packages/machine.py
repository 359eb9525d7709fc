"""A Debian that systemd-nspawn boots, with an overlay in memory: each test starts from the same root."""

import json
import os
import re
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

FRAMES = Path(__file__).parents[1] / "frames" / "session.bin"
OWNER = "0c55e1d4-7a3b-4f5e-8c21-5b9f0e6d7a02"
# The paths of the package.
CONFIGURATION = "/etc/boundary-usage/boundary-usage.toml"
SOCKETS = "/run/boundary-usage"
STATE = "/var/lib/boundary-usage"
# Far longer than any awaited step takes. A test that waits longer has failed.
LIMIT = 300


def await_condition(what: str, condition: Callable[[], Any]) -> Any:
    """Return the first true value of the condition."""
    deadline = time.monotonic() + LIMIT
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"still not true after {LIMIT} s: {what}")
        time.sleep(0.05)
    return value


def configuration(*sockets: str, more: str = "") -> str:
    """Return a configuration with these sockets, each with its own workspace and all with one owner."""
    tables = [
        f'[[socket]]\npath = "{SOCKETS}/{name}"\nworkspace = "6b1f7a52-3f6e-4e0c-9d3b-0d7c5a1e2f{number:02}"\n'
        f'owner = "{OWNER}"\n'
        for number, name in enumerate(sockets)
    ]
    return "\n".join(['listen = "127.0.0.1:9464"', more, *tables])


def expected(sessions: int, workspaces: int = 1) -> list[int]:
    """Return the numbers of a summary after these sessions."""
    return [workspaces, 1, 9 * sessions, 4 * sessions]


def numbers(summary: dict[str, Any]) -> list[int]:
    """Return the numbers of a summary: workspaces, users, allowed and denied requests."""
    names = ["unique_workspaces", "unique_users", "allowed_requests", "denied_requests"]
    return [summary[name] for name in names]


def send_session(folder: Path, path: str, user: int = 0, group: int = 0) -> bool:
    """Send the recorded session to a socket as a client of this user; return whether the server has read all of it.

    A child process changes to the folder as root and follows the rest of the path as the user. So only the rest must be
    accessible to the user, and only the rest must fit into an address.
    """
    child = os.fork()
    if child == 0:
        try:
            os.chdir(folder)
            os.setgroups([])
            os.setgid(group)
            os.setuid(user)
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(LIMIT)
                client.connect(path)
                client.sendall(FRAMES.read_bytes())
                client.shutdown(socket.SHUT_WR)
                # The server never writes, and closes the connection after it has read everything.
                os._exit(client.recv(1) != b"")
        except OSError:
            os._exit(1)
    return os.waitpid(child, 0)[1] == 0


class Machine:
    """A booted Debian."""

    def __init__(self, root: Path, packages: Path):
        """Boot the root, with the folder of packages at /var/packages."""
        command = ["systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--private-network", "--boot"]
        command += ["--volatile=overlay", f"--directory={root}", "--console=pipe"]
        command += [f"--bind-ro={packages}:/var/packages"]
        self.output = tempfile.TemporaryFile("w+")
        self.container = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=self.output
        )
        try:
            self.leader: int = await_condition("the container has an init process", self._find_leader)
            # The state is "degraded" if a unit of Debian does not work in a container.
            await_condition("the machine has booted", lambda: self._state() in ("running", "degraded"))
        except BaseException:
            self.container.kill()
            self.container.wait()
            raise

    def __enter__(self) -> "Machine":
        return self

    def __exit__(self, *_: object) -> None:
        self.container.terminate()
        self.container.wait(LIMIT)
        self.output.close()

    def _find_leader(self) -> int | None:
        if self.container.poll() is not None:
            self.output.seek(0)
            raise AssertionError(f"systemd-nspawn has ended: {self.output.read()}")
        children = Path(f"/proc/{self.container.pid}/task/{self.container.pid}/children").read_text().split()
        inits = [child for child in children if Path(f"/proc/{child}/comm").read_text().strip() == "systemd"]
        return int(inits[0]) if inits else None

    def _state(self) -> str:
        return self._start("systemctl", "is-system-running").stdout.strip()

    def path(self, path: str) -> Path:
        """Return the path on this host of a path in the machine."""
        return Path(f"/proc/{self.leader}/root{path}")

    def _start(self, *command: str) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
        enter = ["/usr/bin/nsenter", f"--target={self.leader}", "--mount", "--uts", "--ipc", "--net", "--pid", "--"]
        return subprocess.run([*enter, *command], env=environment, capture_output=True, text=True, timeout=LIMIT)

    def fails(self, *command: str) -> str:
        """Run a command that must fail, and return its output."""
        ended = self._start(*command)
        assert ended.returncode != 0, f"{command} succeeded: {ended.stdout}"
        return ended.stdout + ended.stderr

    def run(self, *command: str) -> str:
        """Run a command that must succeed, and return its standard output."""
        ended = self._start(*command)
        assert ended.returncode == 0, f"{command}: {ended.stdout}{ended.stderr}\n{self.log()}"
        return ended.stdout

    def log(self) -> str:
        """Return the last lines of the service's log."""
        return self._start("journalctl", "--unit=boundary-usage", "--lines=100", "--output=cat").stdout

    def install(self, package: Path) -> str:
        """Install a package as a user would."""
        return self.run("apt-get", "install", "--quiet", "--yes", f"/var/packages/{package.name}")

    def property(self, name: str, unit: str = "boundary-usage") -> str:
        """Return a property of a unit."""
        return self.run("systemctl", "show", unit, f"--property={name}", "--value").strip()

    def get(self, path: str) -> str:
        """Return the body of an HTTP response of the service, or nothing if the status is not 200."""
        request = f"GET {path} HTTP/1.0\\r\\nHost: localhost\\r\\n\\r\\n"
        script = f"exec 3<>/dev/tcp/127.0.0.1/9464; printf '{request}' >&3; cat <&3"
        head, _, body = self._start("bash", "-c", script).stdout.partition("\n\n")
        return body if " 200 " in head.split("\n")[0] else ""

    def await_ready(self) -> int:
        """Wait until the service is ready, and return its process id in the machine."""
        await_condition("the service is ready", lambda: self.get("/readyz"))
        return int(self.property("MainPID"))

    def metric(self, name: str) -> float:
        """Return the value of a metric of the service."""
        found = re.search(rf"^boundary_usage_{name} (\S+)$", self.get("/metrics"), re.MULTILINE)
        assert found, f"no metric {name}"
        return float(found.group(1))

    def send_sessions(self, count: int, name: str = "audit.sock") -> None:
        """Send the recorded session this many times, as root."""
        for _ in range(count):
            assert self.send_session_as(0, 0, name), self.log()

    def send_session_as(self, user: int, group: int, name: str = "audit.sock") -> bool:
        """Send the recorded session as a client of this user; return whether the server has read all of it."""
        return send_session(self.path("/"), f"{SOCKETS[1:]}/{name}", user, group)

    def usage(self, *command: str) -> dict[str, Any]:
        """Run a command of the program as the service's user, and return the JSON that it prints."""
        database = f"BOUNDARY_USAGE_DATABASE=sqlite:{STATE}/usage.db"
        user = ["runuser", "--user=boundary-usage", "--", "env", database]
        return json.loads(self.run(*user, "boundary-usage", *command, "--format=json"))
