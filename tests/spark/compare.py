"""Compares the SQL for Apache Spark in deploy/spark with `boundary-usage report`.

It records random activity in several databases with one hashing key, and exports them as Parquet. It runs each file of
SQL, and compares every number with a report over the same databases. `make test-spark` calls it with the program and a
folder.
"""

import datetime
import json
import random
import shutil
import subprocess
import sys
import time
import uuid
from pathlib import Path

from pyspark.sql import SparkSession

SQL = Path(__file__).parent.parent.parent / "deploy" / "spark"
FIRST = datetime.date(2026, 1, 14)
LENGTHS = ["day", "week", "month"]
NUMBERS = ["active", "new", "returning", "resurrected", "lost"]
KINDS = ["users", "workspaces"]


class Databases:
    """Databases with one hashing key, and their exports."""

    def __init__(self, program, folder, names, key=b"0123456789abcdef"):
        """Creates the databases in an empty folder."""
        self.program, self.folder, self.names = program, folder, names
        self.key = folder / "hashing.key"
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "exports").mkdir(parents=True)
        self.key.write_bytes(key)
        self.key.chmod(0o600)
        for name in names:
            self.run(f"{FIRST} 00:00:00", name, "init", "--hashing-key-file", str(self.key))

    def url(self, name):
        """Returns the URL of a database."""
        return f"sqlite:{self.folder / name}.db"

    def run(self, clock, name, *arguments):
        """Runs the program under a clock that starts at a time in UTC, and returns its output."""
        command = ["env", "TZ=UTC", f"XDG_STATE_HOME={self.folder / 'state'}", "faketime", "-f", f"@{clock}"]
        command += [self.program, *arguments, "--database", self.url(name)]
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout

    def record(self, index, name, pairs):
        """Records pairs of a workspace and a user as the activity of a day."""
        path = self.folder / "day.jsonl"
        with path.open("w") as lines:
            for workspace, user in pairs:
                record = {"workspace": str(uuid.UUID(int=workspace)), "owner": str(uuid.UUID(int=user))}
                record |= {"allowed": random.randrange(9), "denied": random.randrange(3)}
                lines.write(json.dumps(record) + "\n")
        self.run(f"{day(index)} 10:00:00", name, "replay", str(path))

    def collect(self, index, name):
        """Collects at the midnight that ends a day."""
        self.run(f"{day(index + 1)} 00:00:00", name, "collect")

    def export(self):
        """Exports each database into the folder of exports, and returns that folder."""
        for name in self.names:
            output = str(self.folder / "exports" / f"{name}.parquet")
            clock = f"{FIRST} 00:00:00"
            self.run(clock, name, "export", "--sketches", "--format", "parquet", "--output", output)
        return self.folder / "exports"

    def report(self, last, *arguments):
        """Returns the report over all databases, as of the last day."""
        sources = [part for name in self.names for part in ("--from-database", self.url(name))]
        output = self.run(f"{last} 23:00:00", self.names[0], "report", "--format", "json", *sources, *arguments)
        return json.loads(output)


def day(index):
    """Returns the day with this index."""
    return FIRST + datetime.timedelta(days=index)


class Comparison:
    """Counts compared numbers."""

    def __init__(self):
        """Creates a comparison without numbers."""
        self.equal = self.within = 0

    def number(self, place, ours, spark, bounds):
        """Compares a number. Estimates may differ, within the bounds of the report."""
        if ours == spark:
            self.equal += 1
        elif bounds is not None and bounds[0] <= spark <= bounds[1]:
            self.within += 1
        else:
            raise AssertionError(f"{place}: the report has {ours}, and Spark has {spark} (bounds {bounds})")


def query(spark, name, exports, by):
    """Runs a file of SQL, and returns its rows."""
    spark.conf.set("exports", str(exports))
    spark.conf.set("by", by)
    started = time.monotonic()
    rows = spark.sql((SQL / name).read_text().rstrip().removesuffix(";")).collect()
    print(f"{name} by {by}: {len(rows)} rows in {time.monotonic() - started:.1f} s", flush=True)
    return rows


def compare_actives(spark, databases, exports, last, by, comparison):
    """Compares the numbers of each window."""
    rows = {(str(row.start), row.kind): row for row in query(spark, "actives.sql", exports, by)}
    report = databases.report(last, "--by", by)["rows"]
    assert len(rows) == len(KINDS) * len(report), f"{len(rows)} rows for {len(report)} windows"
    for window in report:
        for kind in KINDS:
            row, ours = rows[window["start"], kind], window[kind]
            for name in NUMBERS + (["active_7_days", "active_30_days"] if by == "day" else []):
                bounds = None if ours["exact"] else (ours["low"][name], ours["high"][name])
                comparison.number(f"{name} {kind} by {by} {window['start']}", ours[name], row[name], bounds)
            for name in ["allowed_requests", "denied_requests"]:
                comparison.number(f"{name} by {by} {window['start']}", window[name], row[name], None)
            assert row.spans_midnight == window.get("spans_midnight", False), window


def compare_retention(spark, databases, exports, last, by, comparison):
    """Compares the numbers of each cohort."""
    rows = {(str(row.start), row.kind, row.later): row for row in query(spark, "retention.sql", exports, by)}
    cohorts = databases.report(last, "--retention", "--by", by)["cohorts"]
    assert len(rows) == sum(len(cohort[kind]["active"]) for cohort in cohorts for kind in KINDS)
    for cohort in cohorts:
        for kind in KINDS:
            ours = cohort[kind]

            def bounds(of, ours=ours):
                return None if ours["exact"] else (of(ours["low"]), of(ours["high"]))

            for later, active in enumerate(ours["active"]):
                row, place = rows[cohort["start"], kind, later], f"{kind} by {by} {cohort['start']} + {later}"
                comparison.number(place, active, row.active, bounds(lambda counts, at=later: counts["active"][at]))
                comparison.number(f"size of {place}", ours["size"], row["size"], bounds(lambda counts: counts["size"]))
                for days, after in ours["active_after_days"].items():
                    limits = None if after is None else bounds(lambda counts, at=days: counts["active_after_days"][at])
                    comparison.number(f"{days} days {place}", after, row[f"active_after_{days}_days"], limits)


def exact(program, folder):
    """Records forty days in three databases, whose sets are exact. Some days have no activity, and a period is long."""
    databases, last = Databases(program, folder, ["eu", "us", "asia"]), 39
    for index in range(last + 1):
        for name in databases.names:
            if index in (0, last) or (index not in range(20, 25) and random.random() < 0.5):
                pairs = [(random.randrange(1, 90), random.randrange(1, 60)) for _ in range(random.randrange(1, 12))]
                databases.record(index, name, pairs)
            if (index, name) != (10, "asia"):
                databases.collect(index, name)
    return databases, day(last)


def estimated(program, folder):
    """Records nine days in two databases, whose sets exceed the exact range."""
    databases, last = Databases(program, folder, ["eu", "us"]), 8
    for index in range(last + 1):
        for name in databases.names:
            if index % 2 == 0:
                start = random.randrange(1, 40_000)
                databases.record(index, name, [(start + number, start + number // 2) for number in range(40_000)])
            databases.collect(index, name)
    return databases, day(last)


def refuses_several_keys(spark, databases, exports, program):
    """Checks that exports of databases with different keys are refused."""
    other = Databases(program, databases.folder / "other", ["other"], key=b"fedcba9876543210")
    other.record(0, "other", [(1, 1)])
    other.collect(0, "other")
    shutil.copy(other.export() / "other.parquet", exports)
    for name in ["actives.sql", "retention.sql"]:
        try:
            query(spark, name, exports, "week")
        except Exception as error:
            assert "the exports have several hashing keys" in str(error), error
        else:
            raise AssertionError(f"{name} merged databases with different keys")


def main():
    """Compares all numbers."""
    program, folder = sys.argv[1], Path(sys.argv[2])
    random.seed(21)
    builder = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false")
    builder = builder.config("spark.sql.shuffle.partitions", "2").config("spark.ui.showConsoleProgress", "false")
    spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    for make, lengths in [(exact, LENGTHS), (estimated, ["day", "week"])]:
        databases, last = make(program, folder / make.__name__)
        exports, comparison = databases.export(), Comparison()
        for by in lengths:
            compare_actives(spark, databases, exports, last, by, comparison)
            compare_retention(spark, databases, exports, last, by, comparison)
        assert comparison.equal > 500, "too few numbers were compared"
        print(f"{make.__name__}: {comparison.equal} equal numbers, {comparison.within} within the report's bounds")
        if make is exact:
            assert comparison.within == 0
            refuses_several_keys(spark, databases, exports, program)
    spark.stop()


main()
