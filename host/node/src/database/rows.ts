/**
 * What both kinds of database read and say in the same way.
 */

import { BoundaryUsageError, messageOf } from "../errors.ts";
import type { Stored } from "../usage.ts";

/** Reads the hashing key. */
export const SELECT_KEY = "SELECT hashing_key FROM boundary_usage_deployment";

/** Reads which scripts were applied. */
export const SELECT_APPLIED = "SELECT version, checksum FROM boundary_usage_migrations ORDER BY version";

/** What is stored of a replica: columns are null where there is nothing. Counts can be strings or bigints. */
export interface StoredRow {
  last_flush: string | bigint | null;
  unique_workspaces_count: string | bigint | null;
  unique_users_count: string | bigint | null;
  workspaces_sketch: Uint8Array | null;
  users_sketch: Uint8Array | null;
}

/** Reads such a row. */
export function stored(row: StoredRow): Stored {
  const lastFlush = BigInt(row.last_flush ?? 0);
  const set = (count: string | bigint | null, sketch: Uint8Array | null) => {
    return count === null || sketch === null ? undefined : { count: BigInt(count), sketch: new Uint8Array(sketch) };
  };
  const workspaces = set(row.unique_workspaces_count, row.workspaces_sketch);
  const users = set(row.unique_users_count, row.users_sketch);
  return workspaces && users ? { lastFlush, uniques: { workspaces, users } } : { lastFlush };
}

/** A flush that is not newer than the replica's last one. */
export function oldFlush(replica: string, flush: bigint): BoundaryUsageError {
  const what = `flush ${flush} of replica ${replica} was written before, or a later one was`;
  return new BoundaryUsageError("conflict", `${what}; make sure that no second process runs under this id`);
}

/** A database whose hashing key is not the one that the tracker hashes under: its sketches cannot be merged. */
export function otherKey(): BoundaryUsageError {
  const what = "the database is not the one of the start: its hashing key differs";
  return new BoundaryUsageError(
    "refused",
    `${what}; put the first database back, or restart the process to use this one`,
  );
}

/** A commit without a reply. */
export function commitUnknown(error: unknown): BoundaryUsageError {
  const what = `the commit brought no reply (${messageOf(error)}): it is unknown whether the flush was applied`;
  return new BoundaryUsageError("commit-unknown", `${what}; the next flush finds out`, { cause: error });
}
