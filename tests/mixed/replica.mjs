/** The Node.js replica of the test: replica.mjs URL REPLICA FLUSH_EVERY. */

import { createInterface } from "node:readline";

import { connect, Tracker } from "../../host/node/dist/index.js";

const [url, replica, flushEvery] = process.argv.slice(2);
const database = await connect(url);
const tracker = await Tracker.start(replica, database, { flushInterval: Number.POSITIVE_INFINITY });
let tracked = 0;
for await (const line of createInterface(process.stdin)) {
  const { workspace, owner, allowed, denied } = JSON.parse(line);
  tracker.track(workspace, owner, allowed, denied);
  tracked += 1;
  if (tracked % Number(flushEvery) === 0) {
    await tracker.flush();
  }
}
await tracker.shutdown();
await database.close();
