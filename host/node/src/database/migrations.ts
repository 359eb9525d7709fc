/**
 * The migrations of the tables, and the hashing key of a new database.
 *
 * All hosts apply the same files and record them in the same table. The first host that connects creates the tables.
 */

import { createHash, randomBytes } from "node:crypto";
import { readdir, readFile } from "node:fs/promises";

import { BoundaryUsageError } from "../errors.ts";
import { type DatabaseKind, sqlFolder } from "./statements.ts";

/** One migration file. */
export interface Migration {
  version: number;
  name: string;
  sql: string;
  /** The SHA-384 of the file, which distinguishes different files of one version. */
  checksum: Buffer;
}

/** A migration that a database has applied. */
export interface AppliedMigration {
  version: number;
  checksum: Uint8Array;
}

/** Reads the migrations for a kind of database, in order. File names have the form `0001_name.sql`. */
export async function readMigrations(kind: DatabaseKind): Promise<Migration[]> {
  const folder = new URL("migrations/", sqlFolder(kind));
  const files = (await readdir(folder)).filter((file) => /^\d{4}_\w+\.sql$/.test(file)).sort();
  return Promise.all(
    files.map(async (file) => {
      const sql = await readFile(new URL(file, folder), "utf8");
      const checksum = createHash("sha384").update(sql).digest();
      return { version: Number(file.slice(0, 4)), name: file.slice(5, -4), sql, checksum };
    }),
  );
}

/**
 * Returns the migrations that a database lacks.
 *
 * Throws `refused` if the database has a migration that this release does not contain.
 */
export function missingMigrations(known: Migration[], applied: AppliedMigration[]): Migration[] {
  for (const { version, checksum } of applied) {
    const migration = known.find((migration) => migration.version === version);
    if (migration === undefined) {
      const newest = known.at(-1)?.version;
      const what = `the schema of the database has version ${version}, and this release supports ${newest}`;
      throw new BoundaryUsageError("refused", `${what}; use a newer release`);
    }
    if (!migration.checksum.equals(checksum)) {
      const what = `version ${version} of the database schema was made by a different release`;
      throw new BoundaryUsageError("refused", `${what}; use that release, or another database`);
    }
  }
  return known.filter(({ version }) => !applied.some((one) => one.version === version));
}

/** Returns a hashing key for a new database. */
export function randomKey(): Uint8Array {
  return randomBytes(16);
}

/** Returns a stored hashing key, or throws `refused` if it is missing or invalid. */
export function validateKey(key: Uint8Array | null | undefined): Uint8Array {
  if (key?.length !== 16) {
    const what = "the table boundary_usage_deployment has no key of 16 bytes, and ids cannot be hashed without it";
    throw new BoundaryUsageError("refused", `${what}; restore the row from a backup`);
  }
  return key;
}
