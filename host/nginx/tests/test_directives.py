"""The directives: faults of the configuration, and which processes start a tracker."""

from pathlib import Path

import pytest
from conftest import OWNER, WORKSPACE, Nginx, children
from real_parts import totals

IDS = f"boundary_usage_workspace {WORKSPACE}; boundary_usage_owner {OWNER};"

PLACES = "boundary_usage_database sqlite:{state}/usage.db; boundary_usage_state_dir {state};"


@pytest.mark.parametrize(
    ("directives", "message"),
    [
        ("boundary_usage_database mysql://host/usage; boundary_usage_state_dir {state};", "mysql"),
        ("boundary_usage_database sqlite:{state}/usage.db;", '"boundary_usage_database" needs "boundary_usage_state_d'),
        (PLACES + "boundary_usage_flush_interval 60;", 'flush-interval is "60", must be a time from 1ms'),
        (PLACES + "boundary_usage_checkpoint_interval 0s;", 'checkpoint-interval is "0s"'),
        (PLACES + "boundary_usage_shutdown_timeout forever;", 'shutdown-timeout is "forever"'),
        (PLACES + PLACES, '"boundary_usage_database" directive is duplicate'),
        ("boundary_usage_state_dir {state}; boundary_usage_state_dir {state};", "is duplicate"),
        (PLACES + "boundary_usage_workspace 7;", '"boundary_usage_workspace" is "7", must be a UUID'),
        (PLACES + "boundary_usage_owner 00000000-0000-0000-0000-000000000000;", "not the nil UUID"),
        (PLACES + "boundary_usage_denied 403 4xx;", 'status is "4xx", must be a number from 100 to 599'),
        (PLACES + "boundary_usage_denied 600;", 'status is "600"'),
        (PLACES + "boundary_usage_denied 403; boundary_usage_denied 407;", "is duplicate"),
        (PLACES + IDS + "boundary_usage yes;", 'invalid value "yes"'),
        (IDS + "boundary_usage on; server {{}}", '"boundary_usage on" needs "boundary_usage_database"'),
        (PLACES + "boundary_usage on; server {{}}", '"boundary_usage on" needs "boundary_usage_workspace"'),
        (
            PLACES + "boundary_usage_workspace $host; server {{ location / {{ boundary_usage on; }} }}",
            '"boundary_usage on" needs "boundary_usage_owner"',
        ),
        ("server {{ boundary_usage_database sqlite:usage.db; }}", "is not allowed here"),
    ],
)
def test_faults_of_the_configuration_are_refused_with_file_and_line(directives: str, message: str) -> None:
    nginx = Nginx()
    nginx.write("\n" + directives.format(state=nginx.state))
    checked = nginx.run("-t")
    assert checked.returncode == 1
    assert message in checked.stderr
    # The directives are in line 10.
    assert f"in {nginx.folder}/nginx.conf:10" in checked.stderr


def threads(pid: int) -> set[str]:
    """Returns the names of a process's threads."""
    return {path.read_text().strip() for path in Path(f"/proc/{pid}/task").glob("*/comm")}


def test_every_worker_has_a_slot_and_other_processes_have_no_tracker() -> None:
    nginx = Nginx(workers=3)
    nginx.configure(f"proxy_cache_path {nginx.folder}/cache keys_zone=cache:1m;", "boundary_usage on;")
    with nginx:
        workers = nginx.running_workers()
        others = [nginx.master, *(set(children(nginx.master)) - set(workers))]
        assert len(workers) == 3
        assert len(others) > 1, "the cache has a process"
        nginx.get("/")
        assert all("boundary-usage" in threads(worker) for worker in workers)
        assert not any("boundary-usage" in threads(other) for other in others)
        assert len(list(nginx.state.glob("slot-*"))) == 3


def test_a_server_without_counting_locations_starts_no_tracker() -> None:
    with Nginx() as nginx:
        assert nginx.get("/")[0] == 200
        assert threads(nginx.running_workers()[0]) == {"nginx"}
        assert nginx.results(1) == ["-"]


def test_a_reload_switches_counting_on_and_off() -> None:
    with Nginx(server="return 200;") as nginx:
        nginx.get("/")
        nginx.configure("", "boundary_usage on; return 200;")
        nginx.reload()
        nginx.get("/")
        nginx.configure("", "return 200 $boundary_usage_uncounted;")
        nginx.reload()
        assert nginx.get("/")[1] == "0"
        nginx.stop()
        assert nginx.results(3) == ["-", "allowed", "-"]
        assert totals(nginx.url) == (1, 1, 1, 0)
