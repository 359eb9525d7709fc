"""The Debian package in a booted system: from the installation to the purge, with clients that send frames."""

import json
import os
import re
import subprocess
import tempfile
import time
import unittest
from pathlib import Path

from machine import CONFIGURATION, SOCKETS, STATE, Machine, await_condition, configuration, expected, numbers

# `make test-packages` sets these variables.
ROOT = Path(os.environ["DEBIAN_ROOT"])
PACKAGES = Path(os.environ["DEBIAN_PACKAGES"])
[OLD] = PACKAGES.glob("boundary-usage_0.0.9-1_*.deb")
[NEW] = (package for package in PACKAGES.glob("boundary-usage_*.deb") if package != OLD)
# A service that runs as its own user on a network cannot reach 0.
HIGHEST_EXPOSURE = 1.5


class DebianPackage(unittest.TestCase):
    """The life of an installation, and the parts that operators change."""

    def test_usage_survives_a_crash_an_upgrade_and_a_removal_until_the_purge(self) -> None:
        with Machine(ROOT, PACKAGES) as machine:
            output = machine.install(OLD)
            self.assertIn("systemctl enable --now boundary-usage", output)
            self.assertEqual("disabled", machine.fails("systemctl", "is-enabled", "boundary-usage").strip())

            machine.path(CONFIGURATION).write_text(configuration("audit.sock"))
            machine.run("systemctl", "enable", "--now", "boundary-usage")
            first = machine.await_ready()
            machine.send_sessions(3)
            self.kill_after_a_checkpoint(machine)
            second = await_condition("systemd restarts it", lambda: self.other_process(machine, first))
            machine.send_sessions(2)

            machine.path(CONFIGURATION).write_text(configuration("audit.sock", "new.sock"))
            machine.run("systemctl", "reload", "boundary-usage")
            await_condition("the new socket is open", lambda: machine.path(f"{SOCKETS}/new.sock").exists())
            machine.send_sessions(1, "new.sock")
            self.assertEqual(str(second), machine.property("MainPID"))

            machine.install(NEW)
            third = await_condition("the upgrade restarts it", lambda: self.other_process(machine, second))
            self.assertNotEqual(first, third)
            self.assertEqual(configuration("audit.sock", "new.sock"), machine.path(CONFIGURATION).read_text())
            machine.send_sessions(1)

            machine.run("apt-get", "remove", "--quiet", "--yes", "boundary-usage")
            self.assertEqual("", machine.run("find", "/usr", "-name", "*boundary-usage*"))
            self.assertTrue(machine.path(CONFIGURATION).exists())
            self.assertTrue(machine.path(f"{STATE}/usage.db").exists())

            machine.install(NEW)
            machine.run("systemctl", "start", "boundary-usage")
            machine.send_sessions(1)
            machine.run("systemctl", "stop", "boundary-usage")
            self.assertEqual(expected(3 + 2 + 1 + 1 + 1, workspaces=2), numbers(machine.usage("collect")))

            machine.run("apt-get", "purge", "--quiet", "--yes", "boundary-usage")
            folders = ["/etc", "/usr", "/var", "/run"]
            self.assertEqual("", machine.run("find", *folders, "-xdev", "-name", "*boundary-usage*"))

    def kill_after_a_checkpoint(self, machine: Machine) -> None:
        """Kill the service after everything sent so far is in the checkpoint, and nothing in the database."""
        await_condition(
            "the component has tracked what was sent",
            lambda: json.loads(machine.get("/status.json"))["tracker"]["waiting_activities"] == 0,
        )
        tracked = time.monotonic()
        await_condition(
            "the checkpoint is newer",
            lambda: time.monotonic() - machine.metric("checkpoint_age_seconds") > tracked,
        )
        self.assertGreater(machine.metric("pending_activities"), 0)
        machine.run("systemctl", "kill", "--signal=KILL", "boundary-usage")

    def other_process(self, machine: Machine, previous: int) -> int | None:
        """Return the process id of the service if it is ready and not the previous one."""
        current = int(machine.property("MainPID"))
        return current if current not in (0, previous) and machine.get("/readyz") else None

    def test_a_start_without_sockets_fails_once_with_the_reason(self) -> None:
        with Machine(ROOT, PACKAGES) as machine:
            machine.install(NEW)
            machine.fails("systemctl", "start", "boundary-usage")
            self.assertEqual("failed", machine.property("ActiveState"))
            self.assertIn("no socket: add a table `[[socket]]`", machine.log())
            self.assertEqual("0", machine.property("NRestarts"))

    def test_clients_of_a_group_connect_through_the_service_and_a_socket_unit(self) -> None:
        with Machine(ROOT, PACKAGES) as machine:
            machine.install(NEW)
            machine.run("groupadd", "--gid=4000", "developers")
            machine.path("/etc/systemd/system/boundary-usage.service.d").mkdir()
            override = "[Service]\nSupplementaryGroups=developers\n"
            machine.path("/etc/systemd/system/boundary-usage.service.d/group.conf").write_text(override)
            machine.path(CONFIGURATION).write_text(configuration("audit.sock", more='group = "developers"'))
            machine.run("systemctl", "daemon-reload")
            machine.run("systemctl", "start", "boundary-usage")
            machine.await_ready()
            self.assertTrue(machine.send_session_as(4001, 4000), machine.log())
            self.assertFalse(machine.send_session_as(4001, 4001))

            machine.run("systemctl", "stop", "boundary-usage")
            machine.run("rm", "-r", SOCKETS)
            example = machine.path("/usr/share/doc/boundary-usage/examples/boundary-usage.socket").read_text()
            shared = example.replace("SocketMode=0600", "SocketMode=0660\nSocketGroup=developers")
            machine.path("/etc/systemd/system/boundary-usage.socket").write_text(shared)
            machine.run("systemctl", "daemon-reload")
            machine.run("systemctl", "start", "boundary-usage.socket")
            # The connection starts the service.
            self.assertTrue(machine.send_session_as(4001, 4000), machine.log())
            self.assertTrue(machine.send_session_as(4001, 4000), machine.log())
            self.assertFalse(machine.send_session_as(4001, 4001))
            machine.run("systemctl", "stop", "boundary-usage.socket", "boundary-usage.service")
            self.assertEqual(expected(3), numbers(machine.usage("collect")))

    def test_the_unit_is_hardened_and_lintian_finds_no_fault(self) -> None:
        with Machine(ROOT, PACKAGES) as machine:
            machine.install(NEW)
            verdict = machine.run("systemd-analyze", "security", "--no-pager", "boundary-usage.service")
            exposure = float(verdict.split("Overall exposure level for boundary-usage.service: ")[1].split()[0])
            self.assertLessEqual(exposure, HIGHEST_EXPOSURE, verdict)
            # A minimal Debian has no `man` that could find the manual.
            self.assertEqual("", machine.run("systemd-analyze", "verify", "--man=no", "boundary-usage.service"))
            self.assertIn("serve", machine.run("zcat", "/usr/share/man/man1/boundary-usage-serve.1.gz"))
            completion = "source /usr/share/bash-completion/completions/boundary-usage; complete -p boundary-usage"
            self.assertIn("boundary-usage", machine.run("bash", "-c", completion))
            for path in ("fish/vendor_completions.d/boundary-usage.fish", "zsh/vendor-completions/_boundary-usage"):
                self.assertIn("boundary-usage", machine.path(f"/usr/share/{path}").read_text())
        checked = subprocess.run(["lintian", "--fail-on=error,warning", NEW], capture_output=True, text=True)
        self.assertEqual((0, ""), (checked.returncode, checked.stdout), checked.stderr)

    def test_the_copyright_file_names_every_linked_crate(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run(["dpkg-deb", "--extract", NEW, folder], check=True)
            copyright_file = (Path(folder) / "usr/share/doc/boundary-usage/copyright").read_text()
            program = (Path(folder) / "usr/bin/boundary-usage").read_bytes()
        # Panic messages contain the paths of their sources.
        sources = re.findall(rb"\bregistry/src/[^/]+/([\w-]+)-(\d+\.\d+\.\d+[\w.+-]*)/", program)
        linked = {f"{name.decode()} {version.decode()}" for name, version in sources}
        self.assertGreater(len(linked), 50)
        component = ["--package=boundary-usage-tracker", "--target=wasm32-unknown-unknown"]
        for package in (["--package=boundary-usage-cli"], component):
            command = ["cargo", "tree", "--locked", "--edges=normal,no-proc-macro", "--prefix=none", *package]
            tree = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            linked |= {f"{name} {version}" for name, version in re.findall(r"^(\S+) v(\S+)$", tree, re.MULTILINE)}
        entry = re.compile(r"^(\S+ \S+)\n  License: \S.*\n  Authors: \S.*\n  Notices: \S", re.MULTILINE)
        self.assertEqual(set(), linked - set(entry.findall(copyright_file)))
        for holder in ("Copyright 2026 the authors of boundary-usage", "The Rust Project Developers", "BoringSSL"):
            self.assertIn(holder, copyright_file)


if __name__ == "__main__":
    unittest.main()
