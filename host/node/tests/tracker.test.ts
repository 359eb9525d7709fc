/** What `track`, `flush` and `shutdown` promise while they run beside each other. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";

import { BoundaryUsageError, connect, type Database, Tracker, type Update } from "boundary-usage";
import pg from "pg";

import { Capabilities } from "../src/capabilities.ts";
import { Ledger } from "../src/ledger.ts";
import { Schedule } from "../src/schedule.ts";
import { CompactThetaSketch } from "../src/sketch.ts";
import { type Activity, parseUuid } from "../src/usage.ts";
import { newPostgres, newSqlite, onEachDatabase, Program, sql } from "./support.ts";
import { Faults } from "./faults.ts";
import { numbered, uuid } from "./scenario.ts";

const NEVER = Number.POSITIVE_INFINITY;

/** The statements of the Rust host. */
const STATEMENTS = new URL("../../boundary-usage/sql/postgres/", import.meta.url);

async function started(url: string, options = {}) {
  const faults = new Faults(await connect(url));
  const errors: BoundaryUsageError[] = [];
  const onError = (error: BoundaryUsageError) => errors.push(error);
  const tracker = await Tracker.start(uuid("r1"), faults, { flushInterval: NEVER, onError, ...options });
  return { faults, tracker, errors };
}

async function ledgerOf(database: Database): Promise<Ledger> {
  const ledger = new Ledger(await database.hashingKey(), () => {});
  ledger.record([activity("w1", 1n)]);
  return ledger;
}

function activity(workspace: string, allowed: bigint): Activity {
  return { workspace: parseUuid(uuid(workspace), ""), owner: parseUuid(uuid("u1"), ""), allowed, denied: 0n };
}

/** Holds every upsert up until `open` is called; `reached` tells when one is held. */
function gate(faults: Faults) {
  const { promise, resolve } = Promise.withResolvers<void>();
  faults.upsertGate = promise;
  const reached = new Promise<void>((resolve) => (faults.onUpsert = resolve));
  return { open: resolve, reached };
}

onEachDatabase("R3: what is tracked while a flush waits for the database belongs to the next", async (url) => {
  const { faults, tracker } = await started(url);
  tracker.track(uuid("w1"), uuid("u1"), 10, 5);
  const { open, reached } = gate(faults);
  const first = tracker.flush();
  await reached;
  // More than one batch, so that the component is called while its flush waits.
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

test("R7: the loop flushes by itself and goes on after a failure", async () => {
  const url = await newSqlite();
  const { faults, tracker, errors } = await started(url, { flushInterval: 1 });
  faults.queue.push("begin");
  const written = new Promise<void>((resolve) => (faults.onUpsert = resolve));
  tracker.track(uuid("w1"), uuid("u1"), 1, 1);
  // The loop does not keep the process alive; this does.
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

test("D5: a shutdown flushes, and then nothing is accepted", async () => {
  const { tracker } = await started(await newSqlite());
  tracker.track(uuid("w1"), uuid("u1"), 1, 1);
  assert.deepEqual(await tracker.shutdown(), { outcome: "written", flush: 1n, newPeriod: true });
  assert.throws(() => tracker.track(uuid("w1"), uuid("u1")), { kind: "stopped" });
  assert.throws(() => tracker.flush(), { kind: "stopped" });
  await assert.rejects(() => tracker.shutdown(), { kind: "stopped" });
});

test("D5: a shutdown waits no longer than its limit", async () => {
  const { faults, tracker } = await started(await newSqlite(), { shutdownTimeout: 10 });
  tracker.track(uuid("w1"), uuid("u1"), 1, 1);
  const { open } = gate(faults);
  await assert.rejects(() => tracker.shutdown(), { kind: "timed-out" });
  open();
});

test("counts saturate; ids that name nobody and counts that are none are refused", async () => {
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
  // JSON numbers of JavaScript are not exact there.
  assert.equal(BigInt(row.allowed_requests), 2n ** 63n);
  await assert.rejects(async () => Tracker.start(nil, await connect(url)), { kind: "configuration" });
});

test("uniques beyond what is exact are estimated", async () => {
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

test("trackers in one process flush at once", async () => {
  const url = await newPostgres();
  const database = await connect(url);
  const names = ["r1", "r2", "r3", "r4", "r5"];
  const trackers = await Promise.all(
    names.map((name) => Tracker.start(uuid(name), database, { flushInterval: NEVER })),
  );
  for (let round = 0; round < 5; round += 1) {
    trackers.forEach((tracker, index) => tracker.track(numbered(round + 1), numbered(index + 1), 1, 2));
    await Promise.all(trackers.map((tracker) => tracker.flush()));
  }
  await Promise.all(trackers.map((tracker) => tracker.shutdown()));
  assert.deepEqual(await new Program(url).totals(), [5, 5, 25, 50]);
  await database.close();
});

onEachDatabase("a transaction that the component forgets, or that opens too late, is rolled back", async (url) => {
  const [database, other] = [await connect(url), await connect(url)];
  const capabilities = new Capabilities(uuid("r1"), database, await ledgerOf(database));
  const lock = async () => {
    await capabilities.acquire("cutover", "shared");
    await capabilities.acquire("replica", "exclusive");
  };
  capabilities.beginFlush();
  await capabilities.begin(uuid("r1"));
  await lock();
  assert.match((await capabilities.endFlush()) ?? "", /left its transaction open/);
  // The flush ends while the database begins the transaction.
  capabilities.beginFlush();
  const opening = capabilities.begin(uuid("r1"));
  await Promise.resolve();
  assert.match((await capabilities.endFlush()) ?? "", /left its transaction open/);
  await opening;
  await assert.rejects(() => capabilities.read(), { kind: "refused", message: /no transaction is open/ });
  // Nothing holds a lock: another one gets them at once.
  const transaction = await other.begin();
  await transaction.acquireCutover();
  await transaction.acquireReplica(uuid("r1"));
  await transaction.rollback();
  await Promise.all([database.close(), other.close()]);
});

test("a failure that is none of the database's is answered, and loses nothing", async () => {
  const { faults, tracker, errors } = await started(await newSqlite());
  tracker.track(uuid("w1"), uuid("u1"), 1, 1);
  const { begin } = faults;
  faults.begin = () => Promise.reject(new TypeError("odd"));
  await assert.rejects(() => tracker.flush(), { kind: "refused", message: "odd" });
  faults.begin = begin;
  assert.deepEqual(await tracker.flush(), { outcome: "written", flush: 1n, newPeriod: true });
  assert.equal(errors.length, 1);
  await tracker.shutdown();
});

test("an unexpected failure of a commit leaves its outcome unknown, and the next flush finds out", async () => {
  const url = await newSqlite();
  const { faults, tracker } = await started(url);
  const { begin } = faults;
  // One without a message, one that is not even an error, and one whose text cannot be made.
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

test("what a database returns is checked before it reaches the component, and nothing is lost", async () => {
  const url = await newSqlite();
  const { faults, tracker } = await started(url);
  const { begin } = faults;
  const none = { count: 0n, sketch: new Uint8Array() };
  const uniques = { workspaces: none, users: none };
  const odd: unknown[] = [
    { lastFlush: "odd" },
    { lastFlush: -1n },
    { lastFlush: 2n ** 64n },
    { lastFlush: 1n, uniques: { ...uniques, users: { count: 1n, sketch: new Uint8Array(200_000) } } },
    { lastFlush: 1n, uniques: { ...uniques, users: { count: 1.5, sketch: new Uint8Array() } } },
  ];
  tracker.track(uuid("w1"), uuid("u1"), 1, 1);
  for (const read of odd) {
    faults.begin = async () => Object.assign(await begin.call(faults), { read: async () => read });
    await assert.rejects(() => tracker.flush(), { kind: "refused", message: /are damaged/ });
  }
  faults.begin = begin;
  assert.deepEqual(await tracker.flush(), { outcome: "written", flush: 1n, newPeriod: true });
  await tracker.shutdown();
  assert.deepEqual(await new Program(url).totals(), [1, 1, 1, 1]);
});

onEachDatabase("R9: the component is kept to its own replica and to the order of the contract", async (url) => {
  const database = await connect(url);
  const ledger = new Ledger(await database.hashingKey(), () => {});
  const capabilities = new Capabilities(uuid("r1"), database, ledger);
  const refused = (call: Promise<unknown>, message: RegExp) => assert.rejects(call, { kind: "refused", message });

  await refused(capabilities.begin(uuid("r1")), /no flush is running/);
  capabilities.beginFlush();
  await refused(capabilities.begin(uuid("r1")), /nothing to flush/);
  ledger.record([activity("w1", 3n), activity("w2", 4n)]);
  await refused(capabilities.read(), /no transaction is open/);
  await refused(capabilities.begin(uuid("r2")), /not the component's own/);
  await capabilities.begin(uuid("r1"));
  await refused(capabilities.begin(uuid("r1")), /another transaction is open/);
  await refused(capabilities.read(), /needs the lock of the replica/);
  await refused(capabilities.acquire("cutover", "exclusive"), /only a collection/);
  await refused(capabilities.acquire("replica", "shared"), /is exclusive/);
  await capabilities.acquire("cutover", "shared");
  await capabilities.acquire("replica", "exclusive");
  await refused(capabilities.upsert({} as Update), /and a read/);
  const update = ledger.updateOf(await capabilities.read());
  assert.equal(update?.uniques.tag, "delta");
  const val = update.uniques.val;
  // A component that writes anything but its own activity would falsify the numbers of all replicas.
  for (const flush of [0n, 2n, 2n ** 63n - 1n]) {
    await refused(capabilities.upsert({ ...update, flush }), /flush number is \d+, and the host's ledger has 1/);
  }
  for (const count of [6n, 8n, 0n, 2n ** 63n]) {
    await refused(capabilities.upsert({ ...update, allowed: count }), /count of allowed requests is/);
    await refused(capabilities.upsert({ ...update, denied: count + 1n }), /count of denied requests is/);
  }
  for (const tag of ["unchanged", "cumulative"] as const) {
    await refused(capabilities.upsert({ ...update, uniques: { tag, val } }), /ledger has delta/);
  }
  const { workspaces, users } = val;
  // Without hashes and with theta 1, as if all ids had been dropped; and with one hash and theta 2.
  const sketch = (...words: bigint[]) => {
    const start = Uint8Array.of(3, 3, 3, 0, 0, 26, 0xcc, 0x93);
    return Buffer.concat([start, Buffer.from(BigUint64Array.from(words).buffer)]);
  };
  const damaged = [
    { ...workspaces, count: 3n },
    { count: 0n, sketch: sketch(0n, 1n) },
    { ...workspaces, sketch: sketch(0n, 1n) },
    { ...workspaces, sketch: sketch(1n, 2n, 1n) },
    { ...workspaces, sketch: new Uint8Array(64) },
    { ...workspaces, sketch: users.sketch },
  ];
  for (const set of damaged) {
    const uniques = { tag: "delta" as const, val: { workspaces: set, users } };
    await refused(capabilities.upsert({ ...update, uniques }), /(count|sketch) of (unique )?workspaces is/);
  }
  assert.equal(await capabilities.upsert(update), true);
  await refused(capabilities.upsert(update), /has written an update/);
  await capabilities.commit();
  await refused(capabilities.begin(uuid("r1")), /has sent its commit/);
  assert.match((await capabilities.endFlush()) ?? "", /the host's ledger has/);
  ledger.record([activity("w1", 0n)]);
  capabilities.beginFlush();
  await capabilities.begin(uuid("r1"));
  await refused(capabilities.commit(), /nothing to commit/);
  assert.equal(await capabilities.endFlush(), undefined);
  assert.deepEqual(await new Program(url).totals(), [2, 1, 7, 0]);
  await database.close();
});

test("a sketch reads back as it was written, and damage is noticed", () => {
  const key = new Uint8Array(16);
  for (const ids of [0, 1, 2, 16_384, 16_385, 40_000]) {
    const bytes = CompactThetaSketch.of(
      Array.from({ length: ids }, (_, id) => BigInt(id)),
      key,
    ).toBytes();
    assert.deepEqual(CompactThetaSketch.fromBytes(bytes)?.toBytes(), bytes, `${ids}`);
    assert.equal(CompactThetaSketch.fromBytes(Buffer.concat([bytes, new Uint8Array(1)])), undefined);
    assert.equal(CompactThetaSketch.fromBytes(bytes.subarray(0, -8)), undefined);
    for (let position = 0; ids > 1 && position < 3; position += 1) {
      const damaged = Uint8Array.from(bytes);
      damaged[position] = 9;
      assert.equal(CompactThetaSketch.fromBytes(damaged), undefined, `${ids} ids, byte ${position}`);
    }
  }
});

test("D6: locks of others hold a flush up, and a limit ends that", async () => {
  const holdUp = async (statement: string, values: string[], message: RegExp) => {
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
  // At once, because the limit is 5 s.
  await Promise.all([
    holdUp("acquire_exclusive_cutover_lock", [], /cutover lock/),
    holdUp("acquire_replica_lock", [uuid("r1")], /another flush of replica/),
  ]);
});

test("connections that died while idle are replaced", async () => {
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

test("the schedule spreads flushes and retries soon", () => {
  const schedule = new Schedule(60_000, 0.1);
  const rounded = (waits: number[]) => waits.map(Math.round);
  assert.deepEqual(rounded([0, 0.5, 1].map((random) => schedule.afterSuccess(random))), [54_000, 60_000, 66_000]);
  const retries = Array.from({ length: 8 }, () => schedule.afterFailure(0.5) / 1_000);
  assert.deepEqual(rounded(retries), [1, 2, 4, 8, 16, 32, 60, 60]);
  schedule.afterSuccess(0.5);
  assert.equal(Math.round(schedule.afterFailure(0.5)), 1_000);
});
