/**
 * A component that crashes or violates its contract is replaced, and loses no activity that it accepted.
 *
 * The misbehaving component belongs to the tests of the Rust host. An activity of a certain workspace is its cue.
 */

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { copyFile, cp, mkdir } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { pathToFileURL } from "node:url";
import test from "node:test";

import type { BoundaryUsageError, Tracker } from "boundary-usage";

import { Faults } from "./faults.ts";
import { numbered, uuid } from "./scenario.ts";
import { MANUAL, newFolder, newSqlite, Program, rows, variable } from "./support.ts";

const root = new URL("../", import.meta.url);

/** The package with the misbehaving component. */
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

/** The workspaces of cues, by the names in `tests/guests/misbehaving/src/cue.rs`. */
const workspaceOf = named("BOUNDARY_USAGE_TEST_CUES");

/** The hashing keys of mutations, by the names in `tests/guests/misbehaving/src/mutation.rs`. */
const hashingKeyOf = named("BOUNDARY_USAGE_TEST_MUTATIONS");

/** Cues of false updates. */
const FALSE_UPDATES: [cue: string, update: string][] = [
  ["CommitEmptyUpdateAndTrap", "an update without ids, and then traps"],
  ["CommitEmptyUpdateAndBegin", "an update without ids, and then begins again"],
  ["UpsertUnchangedWithoutRow", "unchanged sets for a row that does not exist"],
  ["UpsertCumulativeWithoutRow", "cumulative sets for a row that does not exist"],
  ["UpsertTooManyRequests", "too many requests"],
  ["UpsertDamagedSketch", "a damaged sketch"],
  ["RepeatFlushNumber", "the number of an earlier flush"],
];

/** Mutations of the component, each with the faults that reveal it. */
const MUTATIONS: [mutation: string, behaviour: string, faults: string[]][] = [
  ["NoPutBack", "forgets the activity of a failed flush", ["upsert"]],
  ["DoubtSentAgain", "sends a flush in doubt again although it was applied", ["commit-reply-lost"]],
  ["DoubtDropped", "forgets a flush in doubt that was not applied", ["commit-lost"]],
];

/** Starts a tracker with the misbehaving component. The hashing key selects a mutation. */
async function started(mutation?: string) {
  const url = await newSqlite();
  if (mutation !== undefined) {
    await (await misbehaving.connect(url)).close();
    await rows(url, `UPDATE boundary_usage_deployment SET hashing_key = x'${hashingKeyOf(mutation)}'`);
  }
  const faults = new Faults(await misbehaving.connect(url));
  const errors: BoundaryUsageError[] = [];
  const onError = (error: BoundaryUsageError) => errors.push(error);
  const tracker = await misbehaving.Tracker.start(uuid("r1"), faults, { ...MANUAL, onError });
  return { url, faults, tracker, errors };
}

/** Returns a function that looks a name up in the JSON object of an environment variable. */
function named(variableName: string): (name: string) => string {
  const values = new Map(Object.entries(JSON.parse(variable(variableName)) as Record<string, string>));
  return (name) => values.get(name) ?? assert.fail(`${variableName} has no ${name}`);
}

/** Tracks an activity that is a cue. */
function trackCue(tracker: Tracker, cue: string): void {
  tracker.track(workspaceOf(cue), uuid("u2"), 2, 1);
}

/** Tracks an activity of a numbered workspace. */
function trackOne(tracker: Tracker, number: number): void {
  tracker.track(numbered(number), uuid("u1"), 2, 1);
}

/** Tracks a cue to trap, and enough other activities for a full batch, which is forwarded immediately. */
function trackBatchWithTrap(tracker: Tracker): void {
  trackCue(tracker, "TrapInTrack");
  for (let number = 2; number <= 256; number += 1) {
    trackOne(tracker, number);
  }
}

const kinds = (errors: BoundaryUsageError[]) => errors.map(({ kind }) => kind);

for (const [cue, behaviour] of [
  ["TrapInTrack", "traps"],
  ["OverflowStack", "overflows its stack"],
] as const) {
  test(`a component that ${behaviour} in track is replaced, and nothing is lost`, async () => {
    const { url, tracker, errors } = await started();
    trackOne(tracker, 1);
    await tracker.flush();
    trackOne(tracker, 2);
    trackCue(tracker, cue);
    trackOne(tracker, 3);
    // The flush forwards the batch first, so the component crashes before the flush.
    assert.equal((await tracker.flush()).outcome, "written");
    trackOne(tracker, 4);
    assert.equal((await tracker.flush()).outcome, "written");
    await tracker.shutdown();
    assert.deepEqual(kinds(errors), ["component"]);
    assert.deepEqual(await new Program(url).totals(), [5, 2, 10, 5]);
  });
}

test("a component that crashes in a transaction is replaced, and nothing is lost", async () => {
  const { url, tracker, errors } = await started();
  trackOne(tracker, 1);
  trackCue(tracker, "TrapInTransaction");
  await assert.rejects(() => tracker.flush(), { kind: "component" });
  trackOne(tracker, 2);
  assert.equal((await tracker.flush()).outcome, "written");
  await tracker.shutdown();
  assert.deepEqual(kinds(errors), ["component"]);
  assert.deepEqual(await new Program(url).totals(), [3, 2, 6, 3]);
});

test("after a crash of the component behind its commit, nothing counts twice", async () => {
  const { url, tracker, errors } = await started();
  trackOne(tracker, 1);
  trackCue(tracker, "TrapAfterCommit");
  await assert.rejects(() => tracker.flush(), { kind: "component" });
  trackOne(tracker, 2);
  assert.deepEqual(await tracker.flush(), { outcome: "written", flush: 2n, newPeriod: false });
  await tracker.shutdown();
  assert.deepEqual(kinds(errors), ["component"]);
  assert.deepEqual(await new Program(url).totals(), [3, 2, 6, 3]);
});

test("the successor of a crashed component resolves its flush in doubt", async () => {
  for (const fault of ["commit-lost", "commit-reply-lost"]) {
    const { url, faults, tracker, errors } = await started();
    faults.queue.push(fault);
    trackOne(tracker, 1);
    await assert.rejects(() => tracker.flush(), { kind: "commit-unknown" });
    trackOne(tracker, 2);
    trackCue(tracker, "TrapInTrack");
    assert.equal((await tracker.flush()).outcome, "written");
    await tracker.shutdown();
    assert.deepEqual(kinds(errors), ["commit-unknown", "component"], fault);
    assert.deepEqual(await new Program(url).totals(), [3, 2, 6, 3], fault);
  }
});

test("a component that crashes during its flush is replaced once", async () => {
  const { url, faults, tracker, errors } = await started();
  const { promise, resolve } = Promise.withResolvers<void>();
  faults.upsertGate = promise;
  const reached = new Promise<void>((resolve) => (faults.onUpsert = resolve));
  trackOne(tracker, 1);
  const flushing = tracker.flush();
  await reached;
  trackBatchWithTrap(tracker);
  await Promise.all([assert.rejects(flushing, { kind: "component" }), resolve()]);
  const failures = errors.length;
  assert.equal((await tracker.flush()).outcome, "written");
  await tracker.shutdown();
  // The end of the first instance's flush has not failed its successor.
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
  trackBatchWithTrap(tracker);
  setTimeout(() => {
    hasReplied = true;
    resolve();
  }, 50);
  await assert.rejects(flushing, { kind: "component" });
  // The ledger would take a later reply for the reply to the next commit.
  assert.ok(hasReplied);
  assert.equal((await tracker.flush()).outcome, "written");
  await tracker.shutdown();
  assert.deepEqual(await new Program(url).totals(), [257, 2, 514, 257]);
});

test("track throws and accepts nothing while too many activities wait", async () => {
  const { url, faults, tracker } = await started();
  const { promise, resolve } = Promise.withResolvers<void>();
  faults.upsertGate = promise;
  const reached = new Promise<void>((resolve) => (faults.onUpsert = resolve));
  trackOne(tracker, 1);
  const flushing = tracker.flush();
  await reached;
  trackBatchWithTrap(tracker);
  // The successor starts after the end of the flush.
  for (let number = 1; number <= 65_536; number += 1) {
    trackOne(tracker, 1);
  }
  assert.throws(() => trackOne(tracker, 1), { kind: "component", message: /not accepted/ });
  await Promise.all([assert.rejects(flushing, { kind: "component" }), resolve()]);
  await tracker.shutdown();
  const tracked = 257 + 65_536;
  assert.deepEqual(await new Program(url).totals(), [257, 2, 2 * tracked, tracked]);
});

for (const [cue, update] of FALSE_UPDATES) {
  test(`a component that writes ${update} is refused and replaced`, async () => {
    const { url, tracker } = await started();
    trackOne(tracker, 1);
    trackCue(tracker, cue);
    await assert.rejects(() => tracker.flush(), { kind: "component", message: /the host's ledger has/ });
    assert.equal((await tracker.flush()).outcome, "written");
    await tracker.shutdown();
    assert.deepEqual(await new Program(url).totals(), [2, 2, 4, 2]);
  });
}

for (const [mutation, behaviour, faults] of MUTATIONS) {
  test(`a component that ${behaviour} is replaced`, async () => {
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
    assert.ok(kinds(errors).includes("component"));
    assert.deepEqual(await new Program(url).totals(), [tracked, 1, 2 * tracked, tracked]);
  });
}
