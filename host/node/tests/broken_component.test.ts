/**
 * A component that breaks, or breaks the contract: it is replaced, and nothing that it had accepted is lost.
 *
 * The component is the one of the Rust host's tests; `guest/src/misbehaving.rs` lists the cues.
 */

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { copyFile, cp, mkdir } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { pathToFileURL } from "node:url";
import test from "node:test";

import type { BoundaryUsageError, Tracker } from "boundary-usage";

import { newFolder, newSqlite, Program, rows, variable } from "./support.ts";
import { Faults } from "./faults.ts";
import { numbered, uuid } from "./scenario.ts";

const root = new URL("../", import.meta.url);

/** The package with the misbehaving component inside. */
const misbehaving: typeof import("boundary-usage") = await (async () => {
  const folder = await newFolder();
  await cp(new URL("dist/", root), join(folder, "dist"), { recursive: true });
  await cp(new URL("package.json", root), join(folder, "package.json"));
  const component = join(folder, "dist", "component");
  await mkdir(component, { recursive: true });
  await copyFile(variable("BOUNDARY_USAGE_TEST_MISBEHAVING"), join(component, "tracker.wasm"));
  await promisify(execFile)(process.execPath, ["scripts/transpile.js", component], { cwd: root });
  return import(pathToFileURL(join(folder, "dist", "index.js")).href);
})();

async function started(mutation?: number) {
  const url = await newSqlite();
  if (mutation !== undefined) {
    await (await misbehaving.connect(url)).close();
    const key = `6d75746174696f6e${mutation.toString(16).padStart(16, "0")}`;
    await rows(url, `UPDATE boundary_usage_deployment SET hashing_key = x'${key}'`);
  }
  const faults = new Faults(await misbehaving.connect(url));
  const errors: BoundaryUsageError[] = [];
  const settings = {
    flushInterval: Number.POSITIVE_INFINITY,
    onError: (error: BoundaryUsageError) => errors.push(error),
  };
  const tracker = await misbehaving.Tracker.start(uuid("r1"), faults, settings);
  return { url, faults, tracker, errors };
}

/** The workspace that is a cue. */
function cue(number: number): string {
  return `6d697362-6568-6176-0000-${number.toString(16).padStart(12, "0")}`;
}

/** Tracks an activity of a new workspace. */
function trackOne(tracker: Tracker, number: number): void {
  tracker.track(numbered(number), uuid("u1"), 2, 1);
}

const kinds = (errors: BoundaryUsageError[]) => errors.map(({ kind }) => kind);

for (const [number, what] of [
  [1, "panics"],
  [4, "overflows its stack"],
] as const) {
  test(`a component that ${what} while it tracks is replaced, and nothing is lost`, async () => {
    const { url, tracker, errors } = await started();
    trackOne(tracker, 1);
    await tracker.flush();
    trackOne(tracker, 2);
    tracker.track(cue(number), uuid("u2"), 2, 1);
    trackOne(tracker, 3);
    // The batch is handed over by the flush, and breaks the component.
    assert.equal((await tracker.flush()).outcome, "written");
    trackOne(tracker, 4);
    assert.equal((await tracker.flush()).outcome, "written");
    await tracker.shutdown();
    assert.deepEqual(kinds(errors), ["component"]);
    assert.deepEqual(await new Program(url).totals(), [5, 2, 10, 5]);
  });
}

test("a component that breaks in a transaction is replaced, and nothing is lost", async () => {
  const { url, tracker, errors } = await started();
  trackOne(tracker, 1);
  tracker.track(cue(10), uuid("u2"), 2, 1);
  await assert.rejects(() => tracker.flush(), { kind: "component" });
  trackOne(tracker, 2);
  assert.equal((await tracker.flush()).outcome, "written");
  await tracker.shutdown();
  assert.deepEqual(kinds(errors), ["component"]);
  assert.deepEqual(await new Program(url).totals(), [3, 2, 6, 3]);
});

test("a component that breaks when its commit is applied is replaced, and nothing counts twice", async () => {
  const { url, tracker, errors } = await started();
  trackOne(tracker, 1);
  tracker.track(cue(31), uuid("u2"), 2, 1);
  await assert.rejects(() => tracker.flush(), { kind: "component" });
  trackOne(tracker, 2);
  assert.deepEqual(await tracker.flush(), { outcome: "written", flush: 2n, newPeriod: false });
  await tracker.shutdown();
  assert.deepEqual(kinds(errors), ["component"]);
  assert.deepEqual(await new Program(url).totals(), [3, 2, 6, 3]);
});

test("a component that breaks with a commit in doubt is replaced, and its successor finds out", async () => {
  for (const fault of ["commit-lost", "commit-reply-lost"]) {
    const { url, faults, tracker, errors } = await started();
    faults.queue.push(fault);
    trackOne(tracker, 1);
    await assert.rejects(() => tracker.flush(), { kind: "commit-unknown" });
    trackOne(tracker, 2);
    tracker.track(cue(1), uuid("u2"), 2, 1);
    assert.equal((await tracker.flush()).outcome, "written");
    await tracker.shutdown();
    assert.deepEqual(kinds(errors), ["commit-unknown", "component"], fault);
    assert.deepEqual(await new Program(url).totals(), [3, 2, 6, 3], fault);
  }
});

test("a component that breaks while its flush waits is replaced, and its successor is kept", async () => {
  const { url, faults, tracker, errors } = await started();
  const { promise, resolve } = Promise.withResolvers<void>();
  faults.upsertGate = promise;
  const reached = new Promise<void>((resolve) => (faults.onUpsert = resolve));
  trackOne(tracker, 1);
  const flushing = tracker.flush();
  await reached;
  tracker.track(cue(1), uuid("u2"), 2, 1);
  // As many as one batch, so that they are handed over now.
  for (let number = 2; number <= 256; number += 1) {
    trackOne(tracker, number);
  }
  await Promise.all([assert.rejects(flushing, { kind: "component" }), resolve()]);
  const failures = errors.length;
  assert.equal((await tracker.flush()).outcome, "written");
  await tracker.shutdown();
  // A late failure of the first one has not discarded its successor.
  assert.equal(errors.length, failures);
  assert.deepEqual(await new Program(url).totals(), [257, 2, 514, 257]);
});

test("a flush of a component that crashes during its commit ends after the reply", async () => {
  const { url, faults, tracker } = await started();
  let hasReplied = false;
  const reached = new Promise<void>((resolve) => (faults.onReply = resolve));
  const { promise, resolve } = Promise.withResolvers<void>();
  faults.replyGate = promise;
  trackOne(tracker, 1);
  const flushing = tracker.flush();
  await reached;
  tracker.track(cue(1), uuid("u2"), 2, 1);
  // A full batch is forwarded immediately.
  for (let number = 2; number <= 256; number += 1) {
    trackOne(tracker, number);
  }
  setTimeout(() => {
    hasReplied = true;
    resolve();
  }, 50);
  await assert.rejects(flushing, { kind: "component" });
  // A late reply would be taken for the reply to the next commit.
  assert.ok(hasReplied);
  assert.equal((await tracker.flush()).outcome, "written");
  await tracker.shutdown();
  assert.deepEqual(await new Program(url).totals(), [257, 2, 514, 257]);
});

for (const number of [12, 17, 18, 19, 28, 29, 30]) {
  test(`a component that writes what it was not given is refused and replaced (cue ${number})`, async () => {
    const { url, tracker } = await started();
    trackOne(tracker, 1);
    tracker.track(cue(number), uuid("u2"), 2, 1);
    await assert.rejects(() => tracker.flush(), { kind: "component", message: /the host's ledger has/ });
    assert.equal((await tracker.flush()).outcome, "written");
    await tracker.shutdown();
    assert.deepEqual(await new Program(url).totals(), [2, 2, 4, 2]);
  });
}

test("a component that forgets activity after a failure is replaced, and nothing is lost", async () => {
  // The first half of the key says that a protection is broken, the second one which: see `guest/src/mutations.rs`.
  for (const [mutation, faults] of [
    [4, ["upsert"]],
    [5, ["commit-reply-lost"]],
    [6, ["commit-lost"]],
  ] as const) {
    const { url, faults: database, tracker, errors } = await started(mutation);
    let tracked = 0;
    for (const fault of [...faults, "none", "none"]) {
      tracked += 1;
      trackOne(tracker, tracked);
      if (fault !== "none") {
        database.queue.push(fault);
      }
      await tracker.flush().catch(() => undefined);
    }
    await tracker.shutdown();
    assert.ok(kinds(errors).includes("component"), `mutation ${mutation}`);
    assert.deepEqual(await new Program(url).totals(), [tracked, 1, 2 * tracked, tracked], `mutation ${mutation}`);
  }
});
