/** The checks of the calls that a component makes. */

import assert from "node:assert/strict";

import { connect, type Database, type Update } from "boundary-usage";

import { Capabilities } from "../src/capabilities.ts";
import { Ledger } from "../src/ledger.ts";
import { type Activity, parseUuid } from "../src/usage.ts";
import { uuid } from "./scenario.ts";
import { onEachDatabase, Program } from "./support.ts";

async function ledgerOf(database: Database): Promise<Ledger> {
  const ledger = new Ledger(await database.hashingKey(), () => {});
  ledger.record([activity("w1", 1n)]);
  return ledger;
}

function activity(workspace: string, allowed: bigint): Activity {
  return { workspace: parseUuid(uuid(workspace), ""), owner: parseUuid(uuid("u1"), ""), allowed, denied: 0n };
}

onEachDatabase("R9: calls for another replica or in a wrong order are refused", async (url) => {
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
  // A false update would falsify the period's totals.
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
  const sketchBytes = (...words: bigint[]) => {
    const start = Uint8Array.of(3, 3, 3, 0, 0, 26, 0xcc, 0x93);
    return Buffer.concat([start, Buffer.from(BigUint64Array.from(words).buffer)]);
  };
  // Two of the sketches have a tiny theta, as if almost all ids had been dropped.
  const falseSets = [
    { ...workspaces, count: 3n },
    { count: 0n, bytes: sketchBytes(0n, 1n) },
    { ...workspaces, bytes: sketchBytes(0n, 1n) },
    { ...workspaces, bytes: sketchBytes(1n, 2n, 1n) },
    { ...workspaces, bytes: new Uint8Array(64) },
    { ...workspaces, bytes: users.bytes },
  ];
  for (const set of falseSets) {
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

onEachDatabase("a transaction that the component leaves open is rolled back", async (url) => {
  const [database, other] = [await connect(url), await connect(url)];
  const capabilities = new Capabilities(uuid("r1"), database, await ledgerOf(database));
  capabilities.beginFlush();
  await capabilities.begin(uuid("r1"));
  await capabilities.acquire("cutover", "shared");
  await capabilities.acquire("replica", "exclusive");
  assert.match((await capabilities.endFlush()) ?? "", /left its transaction open/);
  // The flush ends while the database begins the transaction.
  capabilities.beginFlush();
  const opening = capabilities.begin(uuid("r1"));
  await Promise.resolve();
  assert.match((await capabilities.endFlush()) ?? "", /left its transaction open/);
  await opening;
  await assert.rejects(() => capabilities.read(), { kind: "refused", message: /no transaction is open/ });
  // Both locks are free.
  const transaction = await other.begin();
  await transaction.acquireCutover();
  await transaction.acquireReplica(uuid("r1"));
  await transaction.rollback();
  await Promise.all([database.close(), other.close()]);
});
