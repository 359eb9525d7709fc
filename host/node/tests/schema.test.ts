/** The schema is the same, whoever makes it, and one of another release is left alone. */

import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import test from "node:test";

import { connect } from "boundary-usage";

import { newFolder, newPostgres, newSqlite, onEachDatabase, Program, sql } from "./support.ts";
import { uuid } from "./scenario.ts";

const MIGRATIONS = "SELECT version, description, success, checksum FROM boundary_usage_migrations ORDER BY version";

/** Has the program of the Rust host create a database: `replay` does, `collect` and `status` do not. */
async function createByProgram(url: string): Promise<void> {
  const path = join(await newFolder(), "activity.jsonl");
  const activity = { workspace: uuid("w1"), owner: uuid("u1"), allowed: 1, denied: 0 };
  await writeFile(path, `${JSON.stringify(activity)}\n`);
  await new Program(url).json("replay", path);
}

function inSqlite<T>(url: string, act: (database: DatabaseSync) => T): T {
  const database = new DatabaseSync(url.slice("sqlite:".length));
  try {
    return act(database);
  } finally {
    database.close();
  }
}

test("SQLite has the same tables whichever host makes them", async () => {
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
  // The Rust host takes it as its own.
  assert.deepEqual((await new Program(ours).json("status")).rows, []);
});

test("PostgreSQL has the same tables whichever host makes them", async () => {
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
    "a newer schema",
    "UPDATE boundary_usage_migrations SET version = 99 WHERE version = 2",
    /version 99.*newer release/,
  ],
  ["a different schema", "UPDATE boundary_usage_migrations SET checksum = '' WHERE version = 1", /different release/],
  ["a schema without its key", "DELETE FROM boundary_usage_deployment", /no key of 16 bytes/],
];
for (const [name, change, told] of changes) {
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
    await assert.rejects(opened, { kind: "refused", message: told });
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
