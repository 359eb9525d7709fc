/** Replicas of the Rust host and of Node.js that share a database. */

import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import test from "node:test";

import { connect, Tracker } from "boundary-usage";

import { numbered, uuid } from "./scenario.ts";
import { MANUAL, newFolder, newPostgres, onEachDatabase, Program } from "./support.ts";

const ACTIVITIES = 2_000;

/** Writes activities to a file for the program's command `replay`. */
async function writeActivities(activities: { workspace: string; owner: string; allowed: number; denied: number }[]) {
  const path = join(await newFolder(), "activity.jsonl");
  await writeFile(path, activities.map((activity) => `${JSON.stringify(activity)}\n`).join(""));
  return path;
}

/** Writes activities of 700 workspaces and 300 users. The last 200 and 100 of them also use the other replica. */
function writeSharedActivities() {
  return writeActivities(
    Array.from({ length: ACTIVITIES }, (_, number) => {
      return { workspace: numbered(1 + (number % 700)), owner: numbered(1 + (number % 300)), allowed: 2, denied: 1 };
    }),
  );
}

test("Rust and Node.js replicas have exact totals on one PostgreSQL database", async () => {
  const url = await newPostgres();
  const program = new Program(url);
  const rust = program.start("replay", await writeSharedActivities(), "--flush-every", "100");
  const database = await connect(url);
  const tracker = await Tracker.start(uuid("r2"), database, MANUAL);
  for (let number = 0; number < ACTIVITIES; number += 1) {
    // 500 workspaces from 501 on, and 200 users from 201 on.
    tracker.track(numbered(501 + (number % 500)), numbered(201 + (number % 200)), 3, 1);
    if (number % 100 === 0) {
      await tracker.flush();
    }
  }
  await tracker.shutdown();
  await rust.output;
  assert.equal((await program.json("status")).rows.length, 2);
  assert.deepEqual(await program.totals(), [1_000, 400, 5 * ACTIVITIES, 2 * ACTIVITIES]);
  await database.close();
});

test("collections of the Rust host during flushes lose and double nothing", async () => {
  const url = await newPostgres();
  const program = new Program(url);
  const rust = program.start("replay", await writeSharedActivities(), "--flush-every", "20");
  const database = await connect(url);
  const tracker = await Tracker.start(uuid("r2"), database, { flushInterval: 1 });
  let running = true;
  const tracking = (async () => {
    for (let number = 0; number < ACTIVITIES; number += 1) {
      tracker.track(numbered(1 + (number % 50)), numbered(1), 3, 1);
      if (number % 100 === 0) {
        await tracker.flush();
      }
    }
    await tracker.shutdown();
    await rust.output;
  })().finally(() => (running = false));
  let [allowed, denied] = [0, 0];
  const collect = async () => {
    const [, , more = 0, moreDenied = 0] = await program.totals();
    [allowed, denied] = [allowed + more, denied + moreDenied];
  };
  while (running) {
    await collect();
  }
  await tracking;
  await collect();
  assert.deepEqual([allowed, denied], [5 * ACTIVITIES, 2 * ACTIVITIES]);
  await database.close();
});

onEachDatabase("a replica can move between hosts", async (url) => {
  const program = new Program(url);
  const database = await connect(url);
  const replica = uuid("r1");
  for (const workspace of [uuid("w1"), uuid("w3")]) {
    const tracker = await Tracker.start(replica, database, MANUAL);
    tracker.track(workspace, uuid("u1"), 1, 0);
    await tracker.shutdown();
    if (workspace === uuid("w1")) {
      const path = await writeActivities([{ workspace: uuid("w2"), owner: uuid("u1"), allowed: 1, denied: 0 }]);
      await program.json("replay", path, "--replica", replica);
    }
  }
  const { replicas } = await program.json("status");
  assert.deepEqual(
    replicas.map((one: { last_flush: number }) => one.last_flush),
    [3],
  );
  assert.deepEqual(await program.totals(), [3, 1, 3, 0]);
  await database.close();
});
