/** Connections to PostgreSQL that break: at each request of a flush, in an orderly way, by a reset, or by silence. */

import assert from "node:assert/strict";
import test from "node:test";

import { type BoundaryUsageError, connect, Tracker } from "boundary-usage";

import { CuttingProxy, newPostgres, Program } from "./support.ts";
import { numbered, uuid } from "./scenario.ts";

/** Begin, two locks, read, write, commit. */
const REQUESTS = 6;

const BY_HAND = { flushInterval: Number.POSITIVE_INFINITY, onError: () => {} };

async function behindProxy(options = {}) {
  const url = await newPostgres();
  const proxy = await CuttingProxy.inFrontOf(url);
  const database = await connect(proxy.url);
  const tracker = await Tracker.start(uuid("r1"), database, { ...BY_HAND, ...options });
  return { url, proxy, database, tracker };
}

for (const how of ["", " reset"]) {
  test(`a connection cut at any request of a flush loses and doubles nothing (${how || "orderly end"})`, async () => {
    const { url, proxy, database, tracker } = await behindProxy();
    const points = Array.from({ length: REQUESTS }, (_, index) => `request:${index + 1}`);
    let tracked = 0;
    for (const point of [...points, "commit", "reply", ...points]) {
      // A new id, so that each flush writes its sets.
      tracker.track(numbered((tracked += 1)), uuid("u1"), 2, 1);
      await proxy.run(`cut ${point}${how}`);
      const error = await tracker.flush().then(
        () => undefined,
        (error: BoundaryUsageError) => error,
      );
      assert.equal(await proxy.run("pending"), "0", `the cut at ${point} has struck`);
      if (point === "request:1") {
        // An idle connection may break at any time; the next one is tried.
        assert.equal(error, undefined);
        continue;
      }
      const isCommit = ["commit", "reply", `request:${REQUESTS}`].includes(point);
      assert.equal(error?.kind, isCommit ? "commit-unknown" : "unavailable", point);
      assert.notEqual((await tracker.flush()).outcome, "idle", point);
    }
    await tracker.shutdown();
    assert.deepEqual(await new Program(url).totals(), [tracked, 1, 2 * tracked, tracked]);
    await database.close();
  });
}

test("a connection that breaks at each request of the start fails the start and nothing else", async () => {
  const url = await newPostgres();
  const proxy = await CuttingProxy.inFrontOf(url);
  for (const how of ["", " reset"]) {
    await proxy.run(`cut request:1${how}`);
    await assert.rejects(() => connect(proxy.url), { kind: "unavailable" });
  }
  const database = await connect(proxy.url);
  await proxy.run("cut request:1 reset");
  await assert.rejects(() => database.hashingKey(), { kind: "unavailable" });
  await database.hashingKey();
  await database.close();
});

test("a server that refuses connections during a shutdown is tried again until it accepts them", async () => {
  const failed = Promise.withResolvers<void>();
  let failures = 0;
  const onError = () => void ((failures += 1) === 3 && failed.resolve());
  const { url, proxy, database, tracker } = await behindProxy({ onError });
  tracker.track(uuid("w1"), uuid("u1"), 2, 1);
  await proxy.run("refuse");
  // The connection of the start is idle: it breaks, and no other can be opened.
  await proxy.run("cut request:1 reset");
  const stopped = tracker.shutdown();
  await Promise.race([failed.promise, stopped]);
  await proxy.run("accept");
  assert.deepEqual(await stopped, { outcome: "written", flush: 1n, newPeriod: true });
  assert.deepEqual(await new Program(url).totals(), [1, 1, 2, 1]);
  await database.close();
});

test("a shutdown resolves a commit whose reply was lost", async () => {
  const { url, proxy, database, tracker } = await behindProxy();
  tracker.track(uuid("w1"), uuid("u1"), 2, 1);
  await proxy.run("cut reply");
  assert.deepEqual(await tracker.shutdown(), { outcome: "confirmed", flush: 1n });
  assert.deepEqual(await new Program(url).totals(), [1, 1, 2, 1]);
  await database.close();
});

test("a shutdown that cannot tell what became of its commit says so", async () => {
  const { proxy, database, tracker } = await behindProxy({ shutdownTimeout: 500 });
  tracker.track(uuid("w1"), uuid("u1"), 2, 1);
  await proxy.run("cut silence");
  await assert.rejects(() => tracker.shutdown(), { kind: "timed-out", message: /it is unknown whether.*status/ });
  void database.close();
});
