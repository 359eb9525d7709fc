/** `track`, `flush` and `shutdown` of a tracker, and failures of its database. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";

import { BoundaryUsageError, connect, Tracker } from "boundary-usage";
import pg from "pg";

import { Faults } from "./faults.ts";
import { numbered, uuid } from "./scenario.ts";
import { MANUAL, newPostgres, newSqlite, onEachDatabase, Program, sql } from "./support.ts";

/** The statements of the Rust host. */
const STATEMENTS = new URL("../../boundary-usage/sql/postgres/", import.meta.url);

async function started(url: string, options = {}) {
  const faults = new Faults(await connect(url));
  const errors: BoundaryUsageError[] = [];
  const onError = (error: BoundaryUsageError) => errors.push(error);
  const tracker = await Tracker.start(uuid("r1"), faults, { ...MANUAL, onError, ...options });
  return { faults, tracker, errors };
}

/** Blocks every upsert until `open` is called. `reached` resolves when an upsert is blocked. */
function blockUpserts(faults: Faults) {
  const { promise, resolve } = Promise.withResolvers<void>();
  faults.upsertGate = promise;
  const reached = new Promise<void>((resolve) => (faults.onUpsert = resolve));
  return { open: resolve, reached };
}

onEachDatabase("R3: activity during a flush belongs to the next flush", async (url) => {
  const { faults, tracker } = await started(url);
  tracker.track(uuid("w1"), uuid("u1"), 10, 5);
  const { open, reached } = blockUpserts(faults);
  const first = tracker.flush();
  await reached;
  // These are more than one batch, so the host calls the component during its flush.
  for (let number = 1; number <= 1_000; number += 1) {
    tracker.track(numbered(number), uuid("u2"), 2, 1);
  }
  open();
  assert.deepEqual(await first, { outcome: "written", flush: 1n, newPeriod: true });
  assert.deepEqual(await tracker.flush(), { outcome: "written", flush: 2n, newPeriod: false });
  await tracker.shutdown();
  assert.deepEqual(await new Program(url).totals(), [1_001, 2, 2_010, 1_005]);
  await faults.close();
});

test("R7: the flush loop continues after a failed flush", async () => {
  const url = await newSqlite();
  const { faults, tracker, errors } = await started(url, { flushInterval: 1 });
  faults.queue.push("begin");
  const written = new Promise<void>((resolve) => (faults.onUpsert = resolve));
  tracker.track(uuid("w1"), uuid("u1"), 1, 1);
  // The flush loop does not keep the process alive, but this timer does.
  const alive = setInterval(() => {}, 1_000);
  await written;
  clearInterval(alive);
  await tracker.shutdown();
  assert.deepEqual(
    errors.map(({ kind }) => kind),
    ["unavailable"],
  );
  assert.ok(faults.begun >= 2);
  assert.deepEqual(await new Program(url).totals(), [1, 1, 1, 1]);
});

test("D5: a shutdown flushes and then accepts no activity", async () => {
  const { tracker } = await started(await newSqlite());
  tracker.track(uuid("w1"), uuid("u1"), 1, 1);
  assert.deepEqual(await tracker.shutdown(), { outcome: "written", flush: 1n, newPeriod: true });
  assert.throws(() => tracker.track(uuid("w1"), uuid("u1")), { kind: "stopped" });
  assert.throws(() => tracker.flush(), { kind: "stopped" });
  await assert.rejects(() => tracker.shutdown(), { kind: "stopped" });
});

test("D5: a shutdown ends at its time limit", async () => {
  const { faults, tracker } = await started(await newSqlite(), { shutdownTimeout: 10 });
  tracker.track(uuid("w1"), uuid("u1"), 1, 1);
  const { open } = blockUpserts(faults);
  await assert.rejects(() => tracker.shutdown(), { kind: "timed-out" });
  open();
});

test("counts saturate, and nil ids and invalid counts are refused", async () => {
  const url = await newSqlite();
  const { tracker } = await started(url);
  for (const allowed of [2n ** 70n, 1n]) {
    tracker.track(uuid("w1"), uuid("u1"), allowed, 2n ** 63n - 1n);
    await tracker.flush();
  }
  const nil = numbered(0);
  for (const [workspace, owner, allowed] of [
    [nil, uuid("u1"), 0],
    [uuid("w1"), nil, 0],
    ["w1", uuid("u1"), 0],
  ] as const) {
    assert.throws(() => tracker.track(workspace, owner, allowed), { kind: "configuration" });
  }
  for (const allowed of [-1, 0.5, Number.NaN, -1n]) {
    assert.throws(() => tracker.track(uuid("w1"), uuid("u1"), allowed), { kind: "configuration" });
  }
  await tracker.shutdown();
  const [row] = (await new Program(url).json("status")).rows;
  // JavaScript rounds 2^63 - 1 when it parses JSON.
  assert.equal(BigInt(row.allowed_requests), 2n ** 63n);
  await assert.rejects(async () => Tracker.start(nil, await connect(url)), { kind: "configuration" });
});

test("uniques beyond 16,384 are estimates", async () => {
  const url = await newSqlite();
  const { tracker } = await started(url);
  for (let number = 1; number <= 20_000; number += 1) {
    tracker.track(numbered(number), uuid("u1"), 1, 0);
  }
  await tracker.flush();
  tracker.track(numbered(1), uuid("u1"), 1, 0);
  await tracker.shutdown();
  const [workspaces = 0, ...others] = await new Program(url).totals();
  assert.ok(Math.abs(workspaces - 20_000) < 20_000 * 0.04, `${workspaces}`);
  assert.deepEqual(others, [1, 20_001, 0]);
});

test("trackers of one process flush simultaneously", async () => {
  const url = await newPostgres();
  const database = await connect(url);
  const names = ["r1", "r2", "r3", "r4", "r5"];
  const trackers = await Promise.all(
    names.map((name) => Tracker.start(uuid(name), database, MANUAL)),
  );
  for (let round = 0; round < 5; round += 1) {
    trackers.forEach((tracker, index) => tracker.track(numbered(round + 1), numbered(index + 1), 1, 2));
    await Promise.all(trackers.map((tracker) => tracker.flush()));
  }
  await Promise.all(trackers.map((tracker) => tracker.shutdown()));
  assert.deepEqual(await new Program(url).totals(), [5, 5, 25, 50]);
  await database.close();
});

test("an unexpected exception of the database fails the flush and loses nothing", async () => {
  const { faults, tracker, errors } = await started(await newSqlite());
  tracker.track(uuid("w1"), uuid("u1"), 1, 1);
  const { begin } = faults;
  faults.begin = () => Promise.reject(new TypeError("unexpected"));
  await assert.rejects(() => tracker.flush(), { kind: "refused", message: "unexpected" });
  faults.begin = begin;
  assert.deepEqual(await tracker.flush(), { outcome: "written", flush: 1n, newPeriod: true });
  assert.equal(errors.length, 1);
  await tracker.shutdown();
});

test("an unexpected exception of a commit leaves its outcome unknown", async () => {
  const url = await newSqlite();
  const { faults, tracker } = await started(url);
  const { begin } = faults;
  // The thrown values are an error without a message, `undefined`, and an object without a text form.
  for (const thrown of [new RangeError(), undefined, Object.create(null)]) {
    faults.begin = async () => {
      const transaction = await begin.call(faults);
      const commit = transaction.commit;
      transaction.commit = async () => {
        await commit();
        throw thrown;
      };
      return transaction;
    };
    tracker.track(uuid("w1"), uuid("u1"), 1, 1);
    await assert.rejects(() => tracker.flush(), { kind: "commit-unknown" });
    assert.equal((await tracker.flush()).outcome, "confirmed");
  }
  faults.begin = begin;
  await tracker.shutdown();
  assert.deepEqual(await new Program(url).totals(), [1, 1, 3, 3]);
});

test("invalid stored usage is refused and loses nothing", async () => {
  const url = await newSqlite();
  const { faults, tracker } = await started(url);
  const { begin } = faults;
  const none = { count: 0n, bytes: new Uint8Array() };
  const uniques = { workspaces: none, users: none };
  const invalid: unknown[] = [
    { lastFlush: "1" },
    { lastFlush: -1n },
    { lastFlush: 2n ** 64n },
    { lastFlush: 1n, uniques: { ...uniques, users: { count: 1n, bytes: new Uint8Array(200_000) } } },
    { lastFlush: 1n, uniques: { ...uniques, users: { count: 1.5, bytes: new Uint8Array() } } },
  ];
  tracker.track(uuid("w1"), uuid("u1"), 1, 1);
  for (const read of invalid) {
    faults.begin = async () => Object.assign(await begin.call(faults), { read: async () => read });
    await assert.rejects(() => tracker.flush(), { kind: "refused", message: /are damaged/ });
  }
  faults.begin = begin;
  assert.deepEqual(await tracker.flush(), { outcome: "written", flush: 1n, newPeriod: true });
  await tracker.shutdown();
  assert.deepEqual(await new Program(url).totals(), [1, 1, 1, 1]);
});

test("D6: the wait for a lock has a limit", async () => {
  const waitFor = async (statement: string, values: string[], message: RegExp) => {
    const url = await newPostgres();
    const { faults, tracker } = await started(url);
    tracker.track(uuid("w1"), uuid("u1"), 1, 1);
    const other = new pg.Client(url);
    await other.connect();
    await other.query("BEGIN");
    await other.query(readFileSync(new URL(`${statement}.sql`, STATEMENTS), "utf8"), values);
    await assert.rejects(() => tracker.flush(), { kind: "conflict", message });
    await other.end();
    assert.deepEqual(await tracker.flush(), { outcome: "written", flush: 1n, newPeriod: true });
    await tracker.shutdown();
    await faults.close();
  };
  // Both wait simultaneously, because the limit is 5 s.
  await Promise.all([
    waitFor("acquire_exclusive_cutover_lock", [], /cutover lock/),
    waitFor("acquire_replica_lock", [uuid("r1")], /another flush of replica/),
  ]);
});

test("broken idle connections are replaced", async () => {
  const url = await newPostgres();
  const { faults, tracker } = await started(url);
  tracker.track(uuid("w1"), uuid("u1"), 1, 1);
  await tracker.flush();
  const end =
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity " +
    "WHERE datname = current_database() AND pid <> pg_backend_pid()";
  await sql(url, end);
  tracker.track(uuid("w2"), uuid("u2"), 1, 1);
  assert.deepEqual(await tracker.flush(), { outcome: "written", flush: 2n, newPeriod: false });
  await tracker.shutdown();
  await faults.close();
});
