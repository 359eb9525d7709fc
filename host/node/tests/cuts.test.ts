/** Connections to PostgreSQL that break: with an orderly end, with a reset, or by silence. */

import assert from "node:assert/strict";
import test from "node:test";

import { type BoundaryUsageError, connect, Tracker } from "boundary-usage";

import { numbered, uuid } from "./scenario.ts";
import { CuttingProxy, MANUAL, newPostgres, Program } from "./support.ts";

/** The requests of a flush: begin, two locks, read, upsert, commit. */
const REQUESTS = 6;

async function behindProxy(options = {}) {
  const url = await newPostgres();
  const proxy = await CuttingProxy.inFrontOf(url);
  const database = await connect(proxy.url);
  const tracker = await Tracker.start(uuid("r1"), database, { ...MANUAL, ...options });
  return { url, proxy, database, tracker };
}

for (const [how, name] of [
  ["", "orderly end"],
  [" reset", "reset"],
]) {
  test(`a connection cut at any request of a flush loses and doubles nothing (${name})`, async () => {
    const { url, proxy, database, tracker } = await behindProxy();
    const points = Array.from({ length: REQUESTS }, (_, index) => `request:${index + 1}`);
    let tracked = 0;
    for (const point of [...points, "commit", "reply", ...points]) {
      // A new id makes each flush write its sketches.
      tracker.track(numbered((tracked += 1)), uuid("u1"), 2, 1);
      await proxy.run(`cut ${point}${how}`);
      const error = await tracker.flush().then(
        () => undefined,
        (error: BoundaryUsageError) => error,
      );
      assert.equal(await proxy.run("pending"), "0", `the cut at ${point} has not happened`);
      if (point === "request:1") {
        // The tracker replaces a broken idle connection.
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

test("a connection cut during the start fails the start and nothing else", async () => {
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

test("a shutdown retries until the server accepts connections again", async () => {
  const failed = Promise.withResolvers<void>();
  let failures = 0;
  const onError = () => void ((failures += 1) === 3 && failed.resolve());
  const { url, proxy, database, tracker } = await behindProxy({ onError });
  tracker.track(uuid("w1"), uuid("u1"), 2, 1);
  await proxy.run("refuse");
  // The idle connection breaks, and the server accepts no other one.
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

test("a shutdown without a commit reply reports that the outcome is unknown", async () => {
  const { proxy, database, tracker } = await behindProxy({ shutdownTimeout: 500 });
  tracker.track(uuid("w1"), uuid("u1"), 2, 1);
  await proxy.run("cut silence");
  await assert.rejects(() => tracker.shutdown(), { kind: "timed-out", message: /it is unknown whether.*status/ });
  void database.close();
});
