/**
 * The schema of PostgreSQL that has the tables, and their migration.
 *
 * The tables are in one schema: the one on the search path that has them, or the first one on the search path if they
 * are missing. Every transaction sets its search path to that schema. So neither the search path of the session nor a
 * schema that is created later can lead a statement to other tables.
 */

import type { ClientBase } from "pg";

import { BoundaryUsageError, messageOf } from "../errors.ts";
import { type AppliedMigration, type Migration, missingMigrations, randomKey, readMigrations } from "./migrations.ts";
import { replyOf } from "./postgres_errors.ts";
import { beginOn, quoteIdentifier, SQL } from "./postgres_sql.ts";

/** The time limit of a migration's reply, in milliseconds. The server ends a statement after 300 s. */
const MIGRATION_REPLY_LIMIT = 310_000;

/** The row of `find_schema.sql`. */
interface FoundSchemas {
  on_path: string[];
  elsewhere: string[];
  first: string | null;
  search_path: string;
}

/** Creates or updates the tables, if necessary. Returns the schema that has them. */
export async function migrate(client: ClientBase): Promise<string> {
  const known = await readMigrations("postgres");
  await client.query(SQL.begin_lookup);
  const found = await findSchemas(client);
  await client.query("COMMIT");
  const schema = chooseSchema(found);
  if (found.on_path.length > 0) {
    const applied = await readOnly(client, schema, "read_migrations");
    if (missingMigrations(known, applied.map(appliedOf)).length === 0) {
      return schema;
    }
  }
  try {
    await applyMigrations(client, schema, known);
  } catch (error) {
    if (replyOf(error).code !== "42501") {
      throw error;
    }
    const what = `the schema of the database is out of date, and this role may not change it (${messageOf(error)})`;
    const hint = "connect once as the owner of the database, then run roles.sql";
    throw new BoundaryUsageError("refused", `${what}; ${hint}`, { cause: error });
  }
  return schema;
}

async function applyMigrations(client: ClientBase, schema: string, known: Migration[]): Promise<void> {
  const query = (text: string, values: unknown[] = []) => {
    const config = { text, values, query_timeout: MIGRATION_REPLY_LIMIT };
    return client.query(config);
  };
  await query(beginOn(schema, "begin_migration"));
  // One process at a time migrates, and no flush runs meanwhile.
  await query(SQL.acquire_exclusive_cutover_lock);
  // Since the lookup, another process may have created the tables, even in another schema.
  chooseSchema(await findSchemas(client));
  await query(SQL.create_migrations_table);
  const { rows } = await query(SQL.read_migrations);
  for (const { version, name, checksum, sql } of missingMigrations(known, rows.map(appliedOf))) {
    await query(sql);
    await query(SQL.record_migration, [version, name, checksum]);
  }
  await query(SQL.insert_hashing_key, [randomKey()]);
  await query("COMMIT");
}

async function findSchemas(client: ClientBase): Promise<FoundSchemas> {
  return (await client.query(SQL.find_schema)).rows[0];
}

/**
 * Returns the schema that has the tables, or the schema for new ones.
 *
 * Throws `configuration` if the tables are outside the search path, or exist twice on it. Otherwise a part of the usage
 * would go to another set of tables.
 */
function chooseSchema({ on_path: onPath, elsewhere, first, search_path: searchPath }: FoundSchemas): string {
  const [only] = onPath;
  if (only !== undefined && onPath.length === 1) {
    return only;
  }
  const option = "ALTER ROLE … SET search_path = …, or options=-csearch_path%3D… in the URL";
  const names = (schemas: string[]) => schemas.map(quoteIdentifier).join(" and ");
  let what: string;
  if (only !== undefined) {
    what = `the search path (${searchPath}) leads to several sets of tables, in the schemas ${names(onPath)}`;
  } else if (elsewhere.length > 0) {
    what = `the tables are in the schema ${names(elsewhere)}, which is not on the search path (${searchPath})`;
  } else if (first === null) {
    what = `no schema on the search path (${searchPath}) can hold the tables`;
  } else {
    return first;
  }
  throw new BoundaryUsageError("configuration", `${what}; set it to the schema that is meant: ${option}`);
}

function appliedOf({ version, checksum }: { version: string; checksum: Buffer }): AppliedMigration {
  return { version: Number(version), checksum };
}

/** Runs one statement in a transaction of its own, and returns its rows. */
export async function readOnly(
  client: ClientBase,
  schema: string,
  statement: "read_hashing_key" | "read_migrations",
): Promise<any[]> {
  await client.query(beginOn(schema, "begin_read"));
  const { rows } = await client.query(SQL[statement]);
  await client.query("COMMIT");
  return rows;
}
