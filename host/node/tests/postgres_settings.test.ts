/** PostgreSQL: settings of the server, the database, the role and the driver change nothing. */

import assert from "node:assert/strict";
import test from "node:test";

import { type BoundaryUsageError, connect, Tracker } from "boundary-usage";
import pg from "pg";

import { typeParser } from "../src/database/postgres_types.ts";
import { numbered, uuid } from "./scenario.ts";
import { MANUAL, newPostgres, Program, sql } from "./support.ts";

/** The number of the type `text[]`. */
const TEXT_ARRAY = 1009;

/** Connects, flushes new ids several times, and compares the totals. */
async function assertFlushes(url: string): Promise<void> {
  const database = await connect(url);
  const tracker = await Tracker.start(uuid("r1"), database, MANUAL);
  for (let flush = 1; flush <= 3; flush += 1) {
    tracker.track(numbered(flush), uuid("u1"), 2, 1);
    assert.equal((await tracker.flush()).outcome, "written");
  }
  await tracker.shutdown();
  await database.close();
  assert.deepEqual(await new Program(url).totals(), [3, 1, 6, 3]);
}

/** Changes settings of a database. */
async function alter(url: string, ...settings: string[]): Promise<void> {
  await sql(url, settings.map((setting) => `ALTER DATABASE ${url.replace(/.*\//, "")} SET ${setting}`).join("; "));
}

test("hostile settings of the database change neither migration nor flushes", async () => {
  const url = await newPostgres();
  await alter(
    url,
    "bytea_output = 'escape'",
    "default_transaction_read_only = on",
    "default_transaction_isolation = 'serializable'",
    "default_transaction_deferrable = on",
    "lock_timeout = '1ms'",
    "statement_timeout = '1s'",
    "idle_in_transaction_session_timeout = '1s'",
    "DateStyle = 'German'",
    "IntervalStyle = 'sql_standard'",
    "TimeZone = 'Pacific/Apia'",
    "standard_conforming_strings = off",
    "client_encoding = 'LATIN1'",
    "extra_float_digits = -15",
    "row_security = off",
    "synchronous_commit = off",
  );
  await assertFlushes(url);
});

test("every commit of a flush waits for the disk", async () => {
  const url = await newPostgres();
  await (await connect(url)).close();
  await alter(url, "synchronous_commit = off");
  await sql(
    url,
    `
    CREATE TABLE seen (setting text);
    CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS
      $$ BEGIN INSERT INTO public.seen VALUES (current_setting('synchronous_commit')); RETURN NULL; END $$;
    CREATE TRIGGER look AFTER INSERT OR UPDATE ON boundary_usage_stats EXECUTE FUNCTION look()`,
  );
  const database = await connect(url);
  const tracker = await Tracker.start(uuid("r1"), database, MANUAL);
  tracker.track(uuid("w1"), uuid("u1"), 1, 1);
  await tracker.shutdown();
  await database.close();
  assert.deepEqual(await sql(url, "SELECT DISTINCT setting FROM seen"), [{ setting: "on" }]);
});

test("lost confirmed flushes are reported, and later flushes count", async () => {
  const url = await newPostgres();
  const database = await connect(url);
  const errors: BoundaryUsageError[] = [];
  const tracker = await Tracker.start(uuid("r1"), database, { ...MANUAL, onError: (error) => errors.push(error) });
  for (let flush = 0; flush < 3; flush += 1) {
    tracker.track(uuid("w1"), uuid("u1"), 1, 0);
    await tracker.flush();
  }
  // A lagging standby has only the first flush.
  await sql(
    url,
    "UPDATE boundary_usage_replicas SET last_flush = 1; UPDATE boundary_usage_stats SET allowed_requests = 1",
  );
  tracker.track(uuid("w1"), uuid("u1"), 1, 0);
  assert.deepEqual(await tracker.flush(), { outcome: "written", flush: 2n, newPeriod: false });
  assert.deepEqual(
    errors.map(({ kind }) => kind),
    ["lost"],
  );
  assert.match(errors[0]?.message ?? "", /is 1, but the database had confirmed 3: a failover/);
  await tracker.shutdown();
  assert.deepEqual(await new Program(url).totals(), [1, 1, 2, 0]);
  await database.close();
});

test("another database at the same address is refused", async () => {
  const url = await newPostgres();
  const database = await connect(url);
  const tracker = await Tracker.start(uuid("r1"), database, MANUAL);
  tracker.track(uuid("w1"), uuid("u1"), 1, 0);
  const [{ hashing_key: key }] = await sql(
    url,
    "SELECT encode(hashing_key, 'hex') AS hashing_key FROM boundary_usage_deployment",
  );
  await sql(url, "UPDATE boundary_usage_deployment SET hashing_key = decode(md5('another'), 'hex')");
  await assert.rejects(() => tracker.flush(), { kind: "refused", message: /another hashing key/ });
  await sql(url, `UPDATE boundary_usage_deployment SET hashing_key = decode('${key}', 'hex')`);
  await tracker.shutdown();
  assert.deepEqual(await new Program(url).totals(), [1, 1, 1, 0]);
  await database.close();
});

test("tables outside the search path are refused by name", async () => {
  const url = await newPostgres();
  await sql(url, 'CREATE SCHEMA "Owner\'s"; CREATE SCHEMA other');
  const pathTo = (schemas: string) => `${url}?options=-csearch_path%3D${encodeURIComponent(schemas)}`;
  const owner = await connect(pathTo('"Owner\'s",public'));
  const refused = { kind: "configuration", message: /in the schema "Owner's", which is not on the search path/ };
  await assert.rejects(() => connect(url), refused);
  await assert.rejects(() => connect(pathTo("other,public")), refused);
  await assert.rejects(() => connect(pathTo("missing")), refused);
  // A second schema on the search path changes nothing.
  const reader = await connect(pathTo('other,"Owner\'s"'));
  const tracker = await Tracker.start(uuid("r1"), reader, MANUAL);
  tracker.track(uuid("w1"), uuid("u1"), 1, 0);
  await tracker.flush();
  const tables = "SELECT table_schema AS s FROM information_schema.tables WHERE table_name = 'boundary_usage_stats'";
  assert.deepEqual(await sql(url, tables), [{ s: "Owner's" }]);
  // The search path now leads to a second set of tables.
  await sql(url, 'CREATE TABLE other.boundary_usage_migrations AS TABLE "Owner\'s".boundary_usage_migrations');
  await assert.rejects(() => connect(pathTo('other,"Owner\'s"')), {
    kind: "configuration",
    message: /several sets of tables, in the schemas "Owner's" and "other"/,
  });
  tracker.track(uuid("w2"), uuid("u1"), 1, 0);
  assert.deepEqual(await tracker.shutdown(), { outcome: "written", flush: 2n, newPeriod: false });
  await Promise.all([owner.close(), reader.close()]);
});

test("a search path without a schema is refused", async () => {
  const url = await newPostgres();
  const message = /no schema on the search path \(missing\) can hold the tables/;
  await assert.rejects(() => connect(`${url}?options=-csearch_path%3Dmissing`), { kind: "configuration", message });
});

test("a role that may not create tables is refused with a hint", async () => {
  const url = await newPostgres();
  const role = `reader_${process.pid}`;
  await sql(url, `CREATE ROLE ${role} LOGIN; REVOKE CREATE ON SCHEMA public FROM PUBLIC`);
  const as = url.replace("postgres@", `${role}@`);
  const message = /out of date.*permission denied for schema public/;
  await assert.rejects(() => connect(as), { kind: "refused", message });
  await sql(url, `DROP ROLE ${role}`);
});

test("arrays of texts are parsed as the server writes them", async () => {
  const texts = ["public", "Owner's", 'a "b"', "c,d", "e\\f", "{g}", "", " h ", "NULL"];
  const [{ written }] = await sql(
    await newPostgres(),
    `SELECT ARRAY[${texts.map((text) => `'${text.replaceAll("'", "''")}'`)}]::text AS written`,
  );
  assert.deepEqual(typeParser(TEXT_ARRAY)(written), texts);
  assert.deepEqual(typeParser(TEXT_ARRAY)("{}"), []);
});

// This must be the last test, because the driver keeps these settings for the whole process.
test("changes of the driver's types and defaults change nothing", async () => {
  const { binary } = pg.defaults;
  for (const type of [pg.types.builtins.BYTEA, pg.types.builtins.INT8, pg.types.builtins.BOOL]) {
    pg.types.setTypeParser(type, () => "changed by the application");
  }
  pg.defaults.binary = true;
  try {
    await assertFlushes(await newPostgres());
  } finally {
    pg.defaults.binary = binary ?? false;
  }
});
