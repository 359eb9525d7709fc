/**
 * PostgreSQL: how a transaction begins, and the schema that has the tables.
 */

import type { ClientBase } from "pg";

import { BoundaryUsageError } from "../errors.ts";
import { SELECT_APPLIED } from "./rows.ts";
import { type Applied, migrations, missing, randomKey } from "./schema.ts";

/**
 * Opens a transaction in which nothing depends on settings of the server, the database or the role: not its isolation,
 * its time limits, its form of replies, nor where tables are looked for. What is committed survives a crash of the
 * server.
 */
export function begin(access: "READ ONLY" | "READ WRITE", schema?: string): string {
  const settings = {
    lock_timeout: "'5s'",
    statement_timeout: "'10s'",
    idle_in_transaction_session_timeout: "'15s'",
    synchronous_commit: "on",
    bytea_output: "hex",
    ...(schema === undefined ? {} : { search_path: `${schema}, pg_temp` }),
  };
  const set = Object.entries(settings).map(([name, value]) => `; SET LOCAL ${name} = ${value}`);
  return `BEGIN ISOLATION LEVEL READ COMMITTED ${access}${set.join("")}`;
}

/** The cutover lock, alone: one process makes the schema, and no flush runs meanwhile. */
const LOCK_SCHEMA =
  "SET LOCAL lock_timeout = '10s'; SET LOCAL statement_timeout = '60s'; SELECT pg_advisory_xact_lock(9)";

/** The schemas that have the tables, and the place of each on the search path. */
const FIND_SCHEMA = `
  SELECT quote_ident(n.nspname) AS schema, array_position(current_schemas(false), n.nspname) AS place
  FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
  WHERE c.relname = 'boundary_usage_migrations' AND c.relkind IN ('r', 'p') AND NOT pg_is_other_temp_schema(n.oid)
  ORDER BY place, n.nspname`;

/** The schema for new tables. */
const CURRENT_SCHEMA = "SELECT quote_ident(current_schema()) AS schema";

const CREATE_MIGRATIONS = `
  CREATE TABLE IF NOT EXISTS boundary_usage_migrations (
    version BIGINT PRIMARY KEY,
    description TEXT NOT NULL,
    installed_on TIMESTAMPTZ NOT NULL DEFAULT now(),
    success BOOLEAN NOT NULL,
    checksum BYTEA NOT NULL,
    execution_time BIGINT NOT NULL
  )`;

const INSERT_APPLIED = `
  INSERT INTO boundary_usage_migrations (version, description, success, checksum, execution_time)
  VALUES ($1, $2, TRUE, $3, -1)`;

const INSERT_KEY = "INSERT INTO boundary_usage_deployment (hashing_key) VALUES ($1) ON CONFLICT DO NOTHING";

/** Returns the schema that has the tables. */
export async function bringUpToDate(client: ClientBase): Promise<string> {
  const known = await migrations("postgres");
  const found = await findSchema(client);
  if (found !== undefined && missing(known, await applied(client, found)).length === 0) {
    return found;
  }
  const schema = found ?? (await client.query(CURRENT_SCHEMA)).rows[0]?.schema;
  if (typeof schema !== "string") {
    const message =
      "the search path of the role names no schema that exists; set it with ALTER ROLE … SET search_path = …";
    throw new BoundaryUsageError("configuration", message);
  }
  await client.query(begin("READ WRITE", schema));
  await client.query(LOCK_SCHEMA);
  // Looked up again: another process may have made the tables since.
  await findSchema(client);
  await client.query(CREATE_MIGRATIONS);
  const { rows } = await client.query(SELECT_APPLIED);
  for (const { version, name, checksum, sql } of missing(known, rows.map(appliedOf))) {
    await client.query(sql);
    await client.query(INSERT_APPLIED, [version, name, checksum]);
  }
  await client.query(INSERT_KEY, [randomKey()]);
  await client.query("COMMIT");
  return schema;
}

/**
 * Finds the schema that has the tables; none if no schema has them. Refuses tables where the search path does not lead
 * to them, or that exist twice on it: part of the usage would go to another set of tables.
 */
async function findSchema(client: ClientBase): Promise<string | undefined> {
  const { rows } = await client.query(FIND_SCHEMA);
  const reached = rows.filter(({ place }) => place !== null);
  if (reached.length === 1) {
    return reached[0].schema;
  }
  if (rows.length === 0) {
    return undefined;
  }
  const names = (reached.length > 1 ? reached : rows).map(({ schema }) => schema).join(" and ");
  const where = reached.length > 1 ? "more than once on the search path" : "which is not on the search path";
  const hint =
    "set the one that is meant with ALTER ROLE … SET search_path = …, or with options=-csearch_path%3D… in the URL";
  throw new BoundaryUsageError("configuration", `the tables are in the schema ${names}, ${where}; ${hint}`);
}

async function applied(client: ClientBase, schema: string): Promise<Applied[]> {
  return (await readOnly(client, schema, SELECT_APPLIED)).map(appliedOf);
}

function appliedOf({ version, checksum }: { version: string; checksum: Buffer }): Applied {
  return { version: Number(version), checksum };
}

/** Runs a query in a transaction of its own. */
export async function readOnly(client: ClientBase, schema: string, query: string): Promise<any[]> {
  await client.query(begin("READ ONLY", schema));
  const { rows } = await client.query(query);
  await client.query("COMMIT");
  return rows;
}
