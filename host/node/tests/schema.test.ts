/** The database schema: equal for all hosts, and refused if it belongs to another release. */

import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import test from "node:test";

import { connect } from "boundary-usage";

import { uuid } from "./scenario.ts";
import { inSqlite, newFolder, newPostgres, newSqlite, onEachDatabase, Program, sql } from "./support.ts";

const MIGRATIONS = "SELECT version, description, success, checksum FROM boundary_usage_migrations ORDER BY version";

/** Creates a database with the program of the Rust host. Its command `replay` creates the tables. */
async function createByProgram(url: string): Promise<void> {
  const path = join(await newFolder(), "activity.jsonl");
  const activity = { workspace: uuid("w1"), owner: uuid("u1"), allowed: 1, denied: 0 };
  await writeFile(path, `${JSON.stringify(activity)}\n`);
  await new Program(url).json("replay", path);
}

test("both hosts create the same tables on SQLite", async () => {
  const [ours, theirs] = [await newSqlite(), await newSqlite()];
  await (await connect(ours)).close();
  await createByProgram(theirs);
  const tables = (url: string) =>
    inSqlite(url, (database) => {
      const found = database
        .prepare("SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name")
        .all();
      const texts = found.map(({ type, name, sql }) => [
        type,
        name,
        String(sql)
          .replace(/\s+/g, " ")
          .replace(/ ?([()]) ?/g, "$1"),
      ]);
      return [texts, database.prepare(MIGRATIONS).all()];
    });
  assert.deepEqual(tables(ours), tables(theirs));
  // The Rust host accepts the tables.
  assert.deepEqual((await new Program(ours).json("status")).rows, []);
});

test("both hosts create the same tables on PostgreSQL", async () => {
  const [ours, theirs] = [await newPostgres(), await newPostgres()];
  await (await connect(ours)).close();
  await createByProgram(theirs);
  const columns = `
    SELECT table_name, column_name, data_type, is_nullable, column_default FROM information_schema.columns
    WHERE table_schema = 'public' ORDER BY table_name, ordinal_position`;
  const tables = async (url: string) => [await sql(url, columns), await sql(url, MIGRATIONS)];
  assert.deepEqual(await tables(ours), await tables(theirs));
  assert.deepEqual((await new Program(ours).json("status")).rows, []);
});

const changes: [string, string, RegExp][] = [
  [
    "a schema of a newer release",
    "UPDATE boundary_usage_migrations SET version = 99 WHERE version = 2",
    /version 99.*newer release/,
  ],
  [
    "a schema of a different release",
    "UPDATE boundary_usage_migrations SET checksum = '' WHERE version = 1",
    /different release/,
  ],
  ["a schema without a hashing key", "DELETE FROM boundary_usage_deployment", /no key of 16 bytes/],
];
for (const [name, change, message] of changes) {
  onEachDatabase(`${name} is refused`, async (url) => {
    await (await connect(url)).close();
    if (url.startsWith("sqlite")) {
      inSqlite(url, (database) => database.exec(change.replace("= ''", "= x''")));
    } else {
      await sql(url, change);
    }
    const opened = async () => {
      const database = await connect(url);
      await database.hashingKey().finally(() => database.close());
    };
    await assert.rejects(opened, { kind: "refused", message });
  });
}

const wrong = ["", "hunter2", "mysql://u:hunter2@h/d", "sqlite:", "sqlite::memory:", "sqlite://u:hunter2@h/d"];
for (const url of [...wrong, "sqlite:no/such/folder/usage.db", "postgres:hunter2", "postgres://h:hunter2/d"]) {
  test(`the URL ${JSON.stringify(url)} is refused and not shown`, async () => {
    const isRefused = (error: Error & { kind?: string }) => {
      return error.kind === "configuration" && !error.message.includes("hunter2");
    };
    await assert.rejects(() => connect(url), isRefused);
  });
}
