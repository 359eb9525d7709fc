/**
 * The schema: which migrations there are, and which a database lacks.
 *
 * The scripts are those of the Rust host, and they are recorded as it records them: whoever comes first makes the
 * schema, for all. A database of a version that is not known here is refused.
 */

import { createHash, randomBytes } from "node:crypto";
import { readdir, readFile } from "node:fs/promises";

import { BoundaryUsageError } from "../errors.ts";

/** One script. */
export interface Migration {
  version: number;
  name: string;
  sql: string;
  /** What tells a script from another one of the same version. */
  checksum: Buffer;
}

/** A script that a database has. */
export interface Applied {
  version: number;
  checksum: Uint8Array;
}

/** The scripts for a kind of database, in order. Their files are called `0001_name.sql`. */
export async function migrations(kind: "sqlite" | "postgres"): Promise<Migration[]> {
  const folder = new URL(`../../dist/sql/${kind}/migrations/`, import.meta.url);
  const files = (await readdir(folder)).filter((file) => /^\d{4}_\w+\.sql$/.test(file)).sort();
  return Promise.all(
    files.map(async (file) => {
      const sql = await readFile(new URL(file, folder), "utf8");
      const checksum = createHash("sha384").update(sql).digest();
      return { version: Number(file.slice(0, 4)), name: file.slice(5, -4), sql, checksum };
    }),
  );
}

/** The scripts that a database lacks. */
export function missing(known: Migration[], applied: Applied[]): Migration[] {
  for (const { version, checksum } of applied) {
    const migration = known.find((migration) => migration.version === version);
    if (migration === undefined) {
      const what = `the database's schema has version ${version}, and this release knows ${known.at(-1)?.version}`;
      throw new BoundaryUsageError("refused", `${what}; use a newer release`);
    }
    if (!migration.checksum.equals(checksum)) {
      const what = `version ${version} of the database's schema was made by a different release`;
      throw new BoundaryUsageError("refused", `${what}; use that release, or another database`);
    }
  }
  return known.filter(({ version }) => !applied.some((one) => one.version === version));
}

/** A hashing key for a new database. */
export function randomKey(): Uint8Array {
  return randomBytes(16);
}

/** A stored hashing key. */
export function checkedKey(key: Uint8Array | undefined): Uint8Array {
  if (key?.length !== 16) {
    const what = "the table boundary_usage_deployment holds no key of 16 bytes; ids cannot be hashed without it";
    throw new BoundaryUsageError("refused", `${what}. Restore the row from a backup`);
  }
  return key;
}
