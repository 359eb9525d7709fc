/**
 * The SQL files that all hosts share: statements and migrations.
 *
 * The folder `dist/sql` is a copy of `host/boundary-usage/sql`, which the build puts into this package.
 */

import { readFileSync } from "node:fs";

/** A kind of database, by the name of its folder. */
export type DatabaseKind = "sqlite" | "postgres";

/** Returns the folder of a kind of database. */
export function sqlFolder(kind: DatabaseKind): URL {
  return new URL(`../../dist/sql/${kind}/`, import.meta.url);
}

/** Reads statements for a kind of database. The names of the statements are the file names without `.sql`. */
export function readStatements<Name extends string>(
  kind: DatabaseKind,
  names: readonly Name[],
): Readonly<Record<Name, string>> {
  const folder = sqlFolder(kind);
  const statements = names.map((name) => [name, readFileSync(new URL(`${name}.sql`, folder), "utf8")]);
  return Object.fromEntries(statements);
}
