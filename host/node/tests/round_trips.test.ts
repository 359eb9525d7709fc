/** The round trips of a flush to PostgreSQL, and the state of its session afterwards. */

import assert from "node:assert/strict";
import test from "node:test";

import { connect, Tracker } from "boundary-usage";
import pg from "pg";

import { numbered, uuid } from "./scenario.ts";
import { MANUAL, newPostgres } from "./support.ts";

/** Calls a function, and returns the connection and the text of each query that the driver sends meanwhile. */
async function queriesOf(call: () => Promise<unknown>): Promise<{ client: pg.Client; texts: unknown[] }> {
  const { query } = pg.Client.prototype;
  const clients = new Set<pg.Client>();
  const texts: unknown[] = [];
  pg.Client.prototype.query = function (this: pg.Client, ...parameters: unknown[]) {
    clients.add(this);
    texts.push(parameters[0]);
    return Reflect.apply(query, this, parameters);
  };
  try {
    await call();
  } finally {
    pg.Client.prototype.query = query;
  }
  const [client] = clients;
  assert.ok(client !== undefined && clients.size === 1, `${clients.size} connections`);
  return { client, texts };
}

test("a flush needs six round trips and leaves no state in its session", async () => {
  const database = await connect(await newPostgres());
  const tracker = await Tracker.start(uuid("r1"), database, MANUAL);
  // The flushes insert a row, replace its sketches, and keep its sketches.
  for (const number of [1, 2, 2]) {
    tracker.track(numbered(number), uuid("u1"), 2, 1);
    const { client, texts } = await queriesOf(() => tracker.flush());
    assert.equal(texts.length, 6);
    // A query with a name would be an object, and would stay in the session as a prepared statement.
    assert.ok(texts.every((text) => typeof text === "string"));
    for (const state of [
      "SELECT name FROM pg_prepared_statements",
      "SELECT name FROM pg_settings WHERE source = 'session'",
      "SELECT locktype FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory'",
    ]) {
      assert.deepEqual((await client.query(state)).rows, [], state);
    }
  }
  await tracker.shutdown();
  await database.close();
});
