"""Outages of the database: at the first start, later, and refused logins."""

from pathlib import Path

from conftest import Nginx
from real_parts import Proxy, new_postgres, query, totals, until

SERVER = "boundary_usage on; return 200 ok;"


def test_requests_count_as_soon_as_the_database_is_up(proxy: Proxy) -> None:
    proxy.run("refuse")
    with Nginx(proxy.url, server=SERVER) as nginx:
        assert nginx.get("/") == (200, "ok")
        assert nginx.results(1) == ["not-started"]
        until(lambda: "[error]" in nginx.errors(), "a log line")
        assert "boundary usage: cannot start, so requests are not counted; trying again" in nginx.errors()
        proxy.run("accept")
        sent = 1

        def is_counted() -> bool:
            nonlocal sent
            sent += 1
            nginx.get("/")
            return nginx.results(sent)[-1] == "allowed"

        until(is_counted, "a counted request")
        nginx.stop()
        counted = nginx.results(sent).count("allowed")
        nginx.url = proxy.behind
        assert totals(nginx.url) == (1, 1, counted, 0)


def test_a_stop_before_the_first_connection_does_not_wait(proxy: Proxy) -> None:
    proxy.run("refuse")
    with Nginx(proxy.url, server=SERVER) as nginx:
        nginx.stop()
        assert "exited with code 0" in nginx.errors()


def test_an_outage_loses_nothing_through_a_reload_and_a_restart(proxy: Proxy) -> None:
    nginx = Nginx(
        proxy.url, http="boundary_usage_flush_interval 1s; boundary_usage_shutdown_timeout 1s;", server=SERVER
    )
    with nginx:
        nginx.get("/")
        proxy.run("refuse")
        proxy.run("cut write reset")
        nginx.get("/")
        until(lambda: "[warn]" in nginx.errors(), "a failed flush")
        nginx.reload()
        nginx.get("/")
        assert nginx.results(3) == ["allowed"] * 3
        nginx.stop()
        assert "the last flush failed, and the next worker repeats it" in nginx.errors()
        proxy.run("accept")
        nginx.start()
        # The worker restores one slot at its start, and flushes the other one.
        until(lambda: "flushed the activity of a process that has ended" in nginx.errors(), "an empty slot")
        nginx.stop()
        assert "internal error" not in nginx.errors()
        nginx.url = proxy.behind
        assert totals(nginx.url) == (1, 1, 3, 0)


def test_a_refused_login_is_an_alert_and_is_repeated() -> None:
    url = new_postgres()
    role = f"late_{Path(url).name}"
    with Nginx(url.replace("//postgres", f"//{role}"), server=SERVER) as nginx:
        assert nginx.get("/") == (200, "ok")
        assert nginx.results(1) == ["not-started"]
        until(lambda: "[alert]" in nginx.errors(), "a log line")
        assert role in nginx.errors()
        query(url, f"CREATE ROLE {role} SUPERUSER LOGIN")
        until(lambda: nginx.get("/") and "allowed" in nginx.results(2), "a counted request")
