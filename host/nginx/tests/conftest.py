"""Support for the tests: real nginx servers with the module.

`make test-nginx` builds the module, and passes its path in the environment.
"""

import atexit
import contextlib
import ctypes
import http.client
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path

import pytest
from real_parts import LIMIT, from_environment, new_postgres, until

PR_SET_CHILD_SUBREAPER = 36

WORKSPACE = "0193a1b2-0000-7000-8000-000000000001"
OWNER = "0193a1b2-0000-7000-8000-00000000000a"
IDENTITY = {"X-Workspace": WORKSPACE, "X-Owner": OWNER}

# A binary upgrade needs an absolute path.
NGINX = "/usr/sbin/nginx"

# The folders of all servers. The workers run as www-data if the tests run as root.
FOLDERS = Path(tempfile.mkdtemp(prefix="boundary-usage-nginx-"))
FOLDERS.chmod(0o755)
atexit.register(shutil.rmtree, FOLDERS, ignore_errors=True)

# The compiled component of the first test, for the others.
COMPILED = FOLDERS / "compiled"

# nginx detaches itself, and its processes become children of this process. So their ends are noticed.
ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)


def is_running(pid: int) -> bool:
    """Returns whether a process runs."""
    try:
        # The name of the process is in parentheses, and its state is the next word.
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def children(pid: int) -> list[int]:
    """Returns the running children of a process."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in found if is_running(int(child))]


def title(pid: int) -> bytes:
    """Returns the title of a process, which is empty if the process has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


class Nginx:
    """An nginx server with the module, in a folder of its own."""

    def __init__(self, url: str | None = None, *, workers: int = 1, main: str = "", http: str = "", server: str = ""):
        """Writes the configuration.

        The state directory contains the database file, because the workers' user can write there.
        """
        self.folder = Path(tempfile.mkdtemp(dir=FOLDERS))
        self.folder.chmod(0o755)
        self.state = self.folder / "state"
        self.url = url or f"sqlite:{self.state / 'usage.db'}"
        with socket.create_server(("127.0.0.1", 0)) as reserved:
            self.port = reserved.getsockname()[1]
        self.access_log = self.folder / "access.log"
        self.error_log = self.folder / "error.log"
        self.pid_file = self.folder / "nginx.pid"
        self.main, self.workers = main, workers
        self.configure(http, server)

    def configure(self, http: str, server: str) -> None:
        """Writes the configuration with these directives."""
        temporary = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        paths = "\n".join(f"{name}_temp_path {self.folder}/{name};" for name in temporary)
        self.write(f"""
            boundary_usage_database {self.url};
            boundary_usage_state_dir {self.state};
            boundary_usage_workspace $http_x_workspace;
            boundary_usage_owner $http_x_owner;
            log_format results '$msec $pid $status $boundary_usage_result';
            access_log {self.access_log} results;
            {paths}
            {http}
            server {{
                listen 127.0.0.1:{self.port};
                {server}
            }}
        """)

    def write(self, http: str) -> None:
        """Writes the configuration with this block `http`."""
        (self.folder / "nginx.conf").write_text(f"""
            {"user www-data;" if os.geteuid() == 0 else ""}
            load_module {from_environment("BOUNDARY_USAGE_TEST_MODULE")};
            worker_processes {self.workers};
            pid {self.pid_file};
            error_log {self.error_log} notice;
            {self.main}
            events {{ worker_connections 256; }}
            http {{ {http} }}
        """)

    def command(self, *arguments: str) -> list[str]:
        """Returns a command of nginx for this configuration."""
        return [NGINX, "-e", str(self.error_log), "-c", str(self.folder / "nginx.conf"), *arguments]

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Runs nginx until it ends or detaches itself. It gets no environment."""
        environment = {}
        if preloaded := os.environ.get("BOUNDARY_USAGE_TEST_PRELOAD"):
            environment = {"LD_PRELOAD": preloaded, "ASAN_OPTIONS": "detect_leaks=0"}
        return subprocess.run(
            self.command(*arguments), env=environment, stderr=subprocess.PIPE, text=True, timeout=LIMIT, check=False
        )

    def start(self) -> None:
        """Starts the server; returns when all workers run."""
        started = self.run()
        assert started.returncode == 0, started.stderr
        until(lambda: len(self.running_workers()) == self.workers, "all workers")

    def __enter__(self) -> "Nginx":
        # A development build of the library compiles the component for seconds.
        if COMPILED.exists():
            shutil.copytree(COMPILED, self.state / "compiled")
            for path in [self.state, *self.state.rglob("*")]:
                if os.geteuid() == 0:
                    shutil.chown(path, "www-data")
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.pid_file.exists():
            self.stop()
        if (self.state / "compiled").exists() and not COMPILED.exists():
            shutil.copytree(self.state / "compiled", COMPILED)

    @property
    def master(self) -> int:
        """Returns the process that starts the workers."""
        return int(until(lambda: self.pid_file.exists() and self.pid_file.read_text().strip(), "the pid file"))

    def running_workers(self, master: int | None = None) -> list[int]:
        """Returns the workers that accept connections."""
        workers = {child: title(child) for child in children(master or self.master)}
        return [
            worker
            for worker, name in workers.items()
            if name.startswith(b"nginx: worker process") and b"shutting down" not in name
        ]

    def send(self, number: signal.Signals) -> None:
        """Sends a signal to the master."""
        os.kill(self.master, number)

    def reload(self) -> None:
        """Reads the configuration again; returns when new workers serve. Old workers may still run."""
        old = set(self.running_workers())
        self.send(signal.SIGHUP)
        until(
            lambda: len(new := self.running_workers()) == self.workers and not old & set(new), "workers after a reload"
        )

    def stop(self, number: signal.Signals = signal.SIGQUIT) -> None:
        """Ends the server; returns when all its processes have ended."""
        master = self.master
        processes = [master, *children(master)]
        os.kill(master, number)
        until(lambda: not any(is_running(process) for process in processes), "the end of nginx")
        with contextlib.suppress(ChildProcessError):
            os.waitpid(master, 0)

    def get(self, path: str, headers: dict[str, str] = IDENTITY) -> tuple[int, str]:
        """Sends a request; returns the status and the body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=LIMIT)
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        body = response.read().decode()
        connection.close()
        return response.status, body

    def results(self, number: int) -> list[str]:
        """Returns the results in the access log, when it has this number of requests.

        A client has its response before the log phase.
        """
        log = until(
            lambda: len(lines := self.access_log.read_text().splitlines()) >= number and lines, f"{number} log lines"
        )
        return [line.split()[3] for line in log]

    def errors(self) -> str:
        """Returns the error log."""
        return self.error_log.read_text()


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest) -> str | None:
    """Returns the URL of a PostgreSQL database, or None for the server's own SQLite file."""
    return new_postgres() if request.param == "postgres" else None
