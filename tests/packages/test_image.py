"""The image: it runs read-only as a user without rights, and counts what clients send."""

import json
import os
import subprocess
import tempfile
import unittest
from pathlib import Path
from typing import Any

from machine import (
    CONFIGURATION,
    LIMIT,
    SOCKETS,
    STATE,
    await_condition,
    configuration,
    expected,
    numbers,
    send_session,
)

# `make test-packages` sets this variable.
IMAGE = f"oci-archive:{os.environ['OCI_ARCHIVE']}"
# The user of the image.
USER = 65532


class Podman:
    """Podman with its own storage, and a container that serves."""

    def __init__(self, folder: Path):
        """Load the image."""
        self.options = [f"--root={folder}/storage", f"--runroot={folder}/run", f"--tmpdir={folder}/tmp"]
        self.options += ["--storage-driver=vfs", "--runtime=runc", "--cgroup-manager=cgroupfs", "--events-backend=none"]
        self.image = self.run("pull", "--quiet", IMAGE).strip()
        self.sockets = folder / "sockets"
        self.sockets.mkdir()
        os.chown(self.sockets, USER, USER)
        self.configuration = folder / "boundary-usage.toml"
        self.configuration.write_text(configuration("audit.sock"))

    def run(self, *arguments: str) -> str:
        """Run a command of podman that must succeed, and return its standard output."""
        ended = subprocess.run(["podman", *self.options, *arguments], capture_output=True, text=True, timeout=LIMIT)
        assert ended.returncode == 0, f"{arguments}: {ended.stdout}{ended.stderr}"
        return ended.stdout

    def container(self, *arguments: str) -> str:
        """Run the image with the volume of the state."""
        options = ["--read-only", "--cap-drop=all", "--security-opt=no-new-privileges", "--network=none"]
        # Podman's defaults are above the limits of some machines.
        options += ["--ulimit=nofile=4096:4096", "--ulimit=nproc=4096:4096", "--log-driver=k8s-file"]
        options += [f"--volume=state:{STATE}", f"--volume={self.sockets}:{SOCKETS}"]
        options += [f"--volume={self.configuration}:{CONFIGURATION}:ro"]
        return self.run("run", *options, *arguments)

    def serve(self) -> dict[str, Any]:
        """Start the image's own command, wait until clients can connect, and return the container's state."""
        self.container("--detach", "--name=serve", self.image)
        state = json.loads(self.run("inspect", "serve"))[0]["State"]
        await_condition("clients can connect", lambda: send_session(self.sockets, "audit.sock"))
        return state

    def stop(self) -> None:
        """Stop the container with the image's signal, and delete it."""
        self.run("stop", "--time=60", "serve")
        exit_code = json.loads(self.run("inspect", "serve"))[0]["State"]["ExitCode"]
        assert exit_code == 0, self.run("logs", "serve")
        self.run("rm", "--volumes", "serve")


class Image(unittest.TestCase):
    """The life of a container."""

    def test_usage_in_a_volume_survives_a_read_only_container_without_rights(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            podman = Podman(Path(folder))
            state = podman.serve()
            status = Path(f"/proc/{state['Pid']}/status").read_text()
            self.assertIn(f"Uid:\t{USER}\t{USER}\t{USER}\t{USER}\n", status)
            self.assertIn("CapEff:\t0000000000000000\n", status)
            mounts = [line.split() for line in Path(f"/proc/{state['Pid']}/mounts").read_text().splitlines()]
            [options] = [options for _, path, _, options, *_ in mounts if path == "/"]
            self.assertIn("ro", options.split(","))
            self.assertTrue(send_session(podman.sockets, "audit.sock"))
            status = json.loads(podman.run("exec", "serve", "boundary-usage", "status", "--format=json"))
            self.assertEqual([], status["damaged"])
            podman.run("cp", "serve:/usr/share/doc/boundary-usage/copyright", folder)
            self.assertIn("The notices follow", (Path(folder) / "copyright").read_text())
            podman.stop()

            podman.serve()
            podman.stop()
            summary = json.loads(podman.container("--rm", podman.image, "collect", "--format=json"))
            self.assertEqual(expected(2 + 1), numbers(summary))
