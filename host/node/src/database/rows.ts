/**
 * Rows, arguments and errors that both kinds of database share.
 */

import { BoundaryUsageError, messageOf } from "../errors.ts";
import type { StoredUsage, Update } from "../usage.ts";
import { validateKey } from "./migrations.ts";

/** The row of `read_usage.sql`. Missing values are null. A driver returns counts as strings or bigints. */
export interface UsageRow {
  last_flush: string | bigint | null;
  unique_workspaces_count: string | bigint | null;
  unique_users_count: string | bigint | null;
  workspaces_sketch: Uint8Array | null;
  users_sketch: Uint8Array | null;
  hashing_key: Uint8Array | null;
}

/**
 * Converts the row of `read_usage.sql`.
 *
 * Throws `refused` if the database has another hashing key than `key`, because known ids would count twice then.
 */
export function storedUsage(row: UsageRow, key: Uint8Array | undefined): StoredUsage {
  if (key !== undefined && !Buffer.from(validateKey(row.hashing_key)).equals(key)) {
    const what = "the database was replaced by one with another hashing key";
    const hint = "put the first database back, or restart the process to use the new one";
    throw new BoundaryUsageError("refused", `${what}; ${hint}`);
  }
  const lastFlush = BigInt(row.last_flush ?? 0);
  const sketch = (count: string | bigint | null, bytes: Uint8Array | null) => {
    return count === null || bytes === null ? undefined : { count: BigInt(count), bytes: new Uint8Array(bytes) };
  };
  const workspaces = sketch(row.unique_workspaces_count, row.workspaces_sketch);
  const users = sketch(row.unique_users_count, row.users_sketch);
  return workspaces && users ? { lastFlush, uniques: { workspaces, users } } : { lastFlush };
}

/** A value that both drivers accept as an argument. */
export type Argument = string | number | bigint | Uint8Array;

/** Returns the name of the statement that writes an update, and its arguments. */
export function writeOf(
  replica: string,
  { flush, uniques, allowed, denied }: Update,
): [statement: "insert_usage" | "update_usage" | "update_requests", values: Argument[]] {
  const values: Argument[] = [replica, flush, allowed, denied];
  if (uniques.tag === "unchanged") {
    return ["update_requests", values];
  }
  const { workspaces, users } = uniques.val;
  values.push(workspaces.count, users.count, workspaces.bytes, users.bytes);
  return [uniques.tag === "delta" ? "insert_usage" : "update_usage", values];
}

/** Returns the error of a flush that is not newer than the replica's last one. */
export function staleFlush(replica: string, flush: bigint): BoundaryUsageError {
  const what = `flush ${flush} of replica ${replica} or a later one is already in the database`;
  return new BoundaryUsageError("conflict", `${what}; make sure that no second process uses this replica id`);
}

/** Returns the error of a commit without a reply. */
export function commitUnknown(error: unknown): BoundaryUsageError {
  const what = `the commit had no reply, so the flush may have been applied: ${messageOf(error)}`;
  return new BoundaryUsageError("commit-unknown", `${what}; the next flush resolves it`, { cause: error });
}
