/** Several processes and threads that share a database. Each has its own trackers, connections and component. */

import assert from "node:assert/strict";
import cluster, { type Worker as Process } from "node:cluster";
import { once } from "node:events";
import { Worker as Thread } from "node:worker_threads";

import { connect, Tracker } from "boundary-usage";

import { numbered, uuid } from "./scenario.ts";
import { onEachDatabase, Program } from "./support.ts";

const WORKERS = 3;
const ROUNDS = 20;

/** The program of a worker. */
const WORK = `
  const { connect, Tracker } = await import("boundary-usage");
  const { replica, url, workspaces } = JSON.parse(process.env.WORK);
  const database = await connect(url);
  const tracker = await Tracker.start(replica, database, { flushInterval: 5 });
  for (const workspace of workspaces) {
    tracker.track(workspace, workspace, 2, 1);
    await new Promise(setImmediate);
  }
  await tracker.shutdown();
  await database.close();
  process.exitCode = 0;
`;

/** Returns the environment of a worker, which contains its replica id and its workspaces. */
function environment(url: string, worker: number): Record<string, string> {
  const workspaces = Array.from({ length: ROUNDS }, (_, round) => numbered(1 + worker * ROUNDS + round));
  return { WORK: JSON.stringify({ url, replica: uuid(`r${worker + 2}`), workspaces }) };
}

/** Tracks and flushes in this process before the workers start and while they run. */
async function trackBeside(url: string, workers: () => Promise<unknown>[]): Promise<void> {
  const database = await connect(url);
  const tracker = await Tracker.start(uuid("r1"), database, { flushInterval: 5 });
  tracker.track(uuid("w1"), uuid("u1"), 2, 1);
  const running = workers();
  for (let round = 0; round < ROUNDS; round += 1) {
    tracker.track(uuid("w1"), uuid("u1"), 2, 1);
    await tracker.flush();
  }
  await Promise.all(running);
  await tracker.shutdown();
  await database.close();
  const tracked = WORKERS * ROUNDS + ROUNDS + 1;
  const unique = WORKERS * ROUNDS + 1;
  assert.deepEqual(await new Program(url).totals(), [unique, unique, 2 * tracked, tracked]);
}

onEachDatabase("processes of a cluster count once", async (url) => {
  const execArgv = ["--input-type=module", "--eval", WORK];
  cluster.setupPrimary({ execArgv, exec: "", cwd: new URL("../", import.meta.url).pathname });
  const ended = async (worker: Process) => assert.deepEqual(await once(worker, "exit"), [0, null]);
  await trackBeside(url, () =>
    Array.from({ length: WORKERS }, (_, worker) => ended(cluster.fork(environment(url, worker)))),
  );
});

onEachDatabase("worker threads count once", async (url) => {
  const ended = async (thread: Thread) => assert.deepEqual(await once(thread, "exit"), [0]);
  await trackBeside(url, () =>
    Array.from({ length: WORKERS }, (_, worker) => {
      const options = { eval: true, env: { ...process.env, ...environment(url, worker) } };
      return ended(new Thread(`(async () => {${WORK}})()`, options));
    }),
  );
});
