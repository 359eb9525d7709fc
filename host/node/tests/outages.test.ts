/** Databases that are locked, full, unreachable or damaged for a while. */

import assert from "node:assert/strict";
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import test from "node:test";
import { promisify } from "node:util";

import { type BoundaryUsageError, connect, Tracker } from "boundary-usage";
import pg from "pg";

import { numbered, uuid } from "./scenario.ts";
import {
  CuttingProxy,
  MANUAL,
  newFolder,
  newPostgres,
  newSqlite,
  onEachDatabase,
  Program,
  primaryAndStandby,
  sql,
} from "./support.ts";

async function started(url: string) {
  const database = await connect(url);
  const tracker = await Tracker.start(uuid("r1"), database, MANUAL);
  tracker.track(uuid("w1"), uuid("u1"), 2, 1);
  return { database, tracker };
}

test("D6: a locked SQLite file fails the flush at its limit and blocks nothing", async () => {
  const url = await newSqlite();
  const { database, tracker } = await started(url);
  const other = new DatabaseSync(url.slice("sqlite:".length));
  other.exec("BEGIN IMMEDIATE");
  let turns = 0;
  const turning = setInterval(() => (turns += 1), 10);
  await assert.rejects(() => tracker.flush(), {
    kind: "conflict",
    message: /usage\.db.*another transaction holds the file/,
  });
  clearInterval(turning);
  assert.ok(turns > 50, `${turns}`);
  other.close();
  await tracker.shutdown();
  assert.deepEqual(await new Program(url).totals(), [1, 1, 2, 1]);
  await database.close();
});

onEachDatabase("D5: a shutdown outlasts a collection that takes longer than a flush waits", async (url) => {
  const { database, tracker } = await started(url);
  const release = await acquireCollectionLocks(url);
  const failed = Promise.withResolvers<void>();
  const second = await Tracker.start(uuid("r2"), database, { ...MANUAL, onError: () => failed.resolve() });
  second.track(uuid("w2"), uuid("u2"), 2, 1);
  const stopped = Promise.all([tracker.shutdown(), second.shutdown()]);
  // The first attempt fails after 5 s.
  await Promise.race([failed.promise, stopped]);
  await release();
  await stopped;
  assert.deepEqual(await new Program(url).totals(), [2, 2, 4, 2]);
  await database.close();
});

/** Acquires the locks of a collection. Returns a function that releases them. */
async function acquireCollectionLocks(url: string): Promise<() => Promise<void>> {
  if (url.startsWith("sqlite")) {
    const other = new DatabaseSync(url.slice("sqlite:".length));
    other.exec("BEGIN IMMEDIATE");
    return async () => other.close();
  }
  const other = new pg.Client(url);
  await other.connect();
  await other.query("BEGIN; SELECT pg_advisory_xact_lock(9)");
  return () => other.end();
}

test("D2: a cancelled statement and an ended session are retried", async () => {
  const url = await newPostgres();
  const { database, tracker } = await started(url);
  for (const end of ["pg_cancel_backend", "pg_terminate_backend"]) {
    const release = await acquireCollectionLocks(url);
    const flushed = assert.rejects(() => tracker.flush(), { kind: "unavailable" });
    const waiting = `SELECT ${end}(pid) AS ended FROM pg_stat_activity
      WHERE datname = current_database() AND wait_event_type = 'Lock' AND wait_event = 'advisory'`;
    while ((await sql(url, waiting)).length === 0) {
      // Wait until the flush waits for the lock.
    }
    await flushed;
    await release();
  }
  await tracker.shutdown();
  assert.deepEqual(await new Program(url).totals(), [1, 1, 2, 1]);
  await database.close();
});

test("D2: a server that accepts no connection is retried", async () => {
  const url = await newPostgres();
  const name = url.replace(/.*\//, "");
  const { database, tracker } = await started(url);
  const server = url.replace(/[^/]*$/, "postgres");
  await sql(server, `ALTER DATABASE ${name} ALLOW_CONNECTIONS false`);
  await sql(server, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '${name}'`);
  const message = /cannot connect to PostgreSQL at .*not currently accepting connections/;
  await assert.rejects(() => tracker.flush(), { kind: "unavailable", message });
  await sql(server, `ALTER DATABASE ${name} ALLOW_CONNECTIONS true`);
  await tracker.shutdown();
  assert.deepEqual(await new Program(url).totals(), [1, 1, 2, 1]);
  await database.close();
});

test("D2: a standby is named, and a promotion loses nothing", async () => {
  const [primary, standby] = await primaryAndStandby();
  const isNamed = { kind: "unavailable", message: /the server is a read-only standby; connect to the primary/ };
  await assert.rejects(() => connect(standby), isNamed);
  await (await connect(primary)).close();
  const replayed = "SELECT FROM pg_class WHERE relname = 'boundary_usage_client_drops'";
  while ((await sql(standby, replayed)).length === 0) {
    // Wait until the standby has the tables.
  }
  const { tracker } = await started(standby);
  await assert.rejects(() => tracker.flush(), isNamed);
  await sql(standby, "SELECT pg_promote()");
  await tracker.shutdown();
  assert.deepEqual(await new Program(standby).totals(), [1, 1, 2, 1]);
});

test("D3: a flush waits for the end of a late commit, which counts once", async () => {
  const url = await newPostgres();
  const proxy = await CuttingProxy.inFrontOf(url);
  const { database, tracker } = await started(proxy.url);
  await proxy.run("cut commit-delayed");
  await assert.rejects(() => tracker.flush(), { kind: "commit-unknown" });
  // The session of the late commit holds the replica's lock.
  const next = tracker.flush();
  const waiting = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'advisory'";
  while ((await sql(url, waiting)).length === 0) {
    // Wait until the next flush waits for the lock.
  }
  await proxy.run("deliver");
  assert.deepEqual(await next, { outcome: "confirmed", flush: 1n });
  await tracker.shutdown();
  assert.deepEqual(await new Program(url).totals(), [1, 1, 2, 1]);
  await database.close();
});

test("a file that is not a database is refused by name and not changed", async () => {
  const folder = await newFolder();
  for (const content of ["not a database, but long enough to be read as one".repeat(20), "SQLite format 3\0"]) {
    const path = join(folder, `file-${content.length}.db`);
    await writeFile(path, content);
    const isNamed = ({ kind, message }: BoundaryUsageError) => kind === "refused" && message.includes(path);
    await assert.rejects(() => connect(`sqlite:${path}`), isNamed);
    assert.equal(await readFile(path, "latin1"), content);
  }
});

test("D2: a full disk fails flushes and loses nothing", async () => {
  const folder = await newFolder();
  const run = promisify(execFile);
  await run("mount", ["-t", "tmpfs", "-o", "size=1m", "tmpfs", folder]).catch((cause: unknown) => {
    throw new Error("cannot mount the small disk of this test; run it as root", { cause });
  });
  try {
    const url = `sqlite:${join(folder, "usage.db")}`;
    const { database, tracker } = await started(url);
    await tracker.flush();
    await writeFile(join(folder, "filler"), Buffer.alloc(2 ** 20)).catch(() => undefined);
    for (let number = 1; number <= 20_000; number += 1) {
      tracker.track(numbered(number), uuid("u1"), 1, 1);
    }
    await assert.rejects(
      () => tracker.flush(),
      (error: BoundaryUsageError) => {
        return ["unavailable", "commit-unknown"].includes(error.kind) && /usage\.db/.test(error.message);
      },
    );
    await writeFile(join(folder, "filler"), "");
    await tracker.shutdown();
    await database.close();
    const [, users, allowed, denied] = await new Program(url).totals();
    assert.deepEqual([users, allowed, denied], [1, 20_002, 20_001]);
  } finally {
    await run("umount", ["--lazy", folder]);
  }
});

onEachDatabase("D3: processes that are killed during flushes double nothing", async (url) => {
  const replica = uuid("r1");
  const program = `
    const { connect, Tracker } = await import("boundary-usage");
    const tracker = await Tracker.start("${replica}", await connect(process.env.DATABASE), { flushInterval: Infinity });
    for (let number = 1; ; number += 1) {
      tracker.track("${uuid("w1")}", "${uuid("u1")}", 1, 0);
      await tracker.flush();
      console.log(number);
    }`;
  let confirmed = 0;
  let killed = 0;
  for (; killed < 5; killed += 1) {
    const child = spawn(process.execPath, ["--input-type=module", "--eval", program], {
      cwd: new URL("../", import.meta.url),
      env: { ...process.env, DATABASE: url },
      stdio: ["ignore", "pipe", "inherit"],
    });
    let printed = "";
    child.stdout.setEncoding("utf8").on("data", (text: string) => {
      printed += text;
      if (printed.split("\n").length > 5) {
        child.kill("SIGKILL");
      }
    });
    await once(child, "close");
    confirmed += printed.split("\n").length - 1;
  }
  const [workspaces, users, allowed = 0] = await new Program(url).totals();
  assert.deepEqual([workspaces, users], [1, 1]);
  // Each process may have sent one more flush than it has printed.
  assert.ok(allowed >= confirmed && allowed <= confirmed + killed, `${allowed} of ${confirmed}`);
});
