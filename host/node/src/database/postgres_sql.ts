/**
 * The statements for PostgreSQL.
 */

import { readStatements } from "./statements.ts";

export const SQL = readStatements("postgres", [
  "acquire_exclusive_cutover_lock",
  "acquire_replica_lock",
  "acquire_shared_cutover_lock",
  "begin_flush",
  "begin_lookup",
  "begin_migration",
  "begin_read",
  "create_migrations_table",
  "find_schema",
  "insert_hashing_key",
  "insert_usage",
  "read_hashing_key",
  "read_migrations",
  "read_usage",
  "record_migration",
  "set_transaction",
  "update_requests",
  "update_usage",
]);

/** Returns the statements that begin a transaction on the tables of a schema. These statements need one round trip. */
export function beginOn(schema: string, statement: "begin_flush" | "begin_migration" | "begin_read"): string {
  return SQL[statement] + SQL.set_transaction.replace(':"schema"', () => quoteIdentifier(schema));
}

/** Quotes a name for SQL. */
export function quoteIdentifier(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}
