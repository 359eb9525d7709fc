/**
 * The words that the tracker, its database and its callers share.
 */

import { BoundaryUsageError } from "./errors.ts";

/** The largest count that a database holds; sums stop there. */
export const REQUESTS_MAX = 2n ** 63n - 1n;

/** A set of ids that counts without naming: a compact Theta sketch, and what it estimates. */
export interface UniqueSet {
  count: bigint;
  sketch: Uint8Array;
}

/** The two sets that are counted. */
export interface Uniques {
  workspaces: UniqueSet;
  users: UniqueSet;
}

/** What the database holds of a replica: its last flush (0: none), and the open period's ids if it flushed in it. */
export interface StoredUsage {
  lastFlush: bigint;
  uniques?: Uniques;
}

/**
 * What becomes of a replica's unique sets.
 *
 * - `delta`: the replica has no row in the open period; the ids of this flush alone go into a new one.
 * - `cumulative`: the ids of the open period, this flush included, replace those of the row.
 * - `unchanged`: the row holds the ids of this flush already, and keeps its sets.
 */
export type UniquesUpdate = { tag: "delta" | "cumulative"; val: Uniques } | { tag: "unchanged" };

/** What one flush writes. */
export interface Update {
  flush: bigint;
  uniques: UniquesUpdate;
  allowed: bigint;
  denied: bigint;
}

/**
 * What a flush did.
 *
 * - `idle`: nothing was tracked since the last flush; no transaction was opened.
 * - `confirmed`: a flush whose commit had brought no reply was found applied; nothing else was waiting.
 * - `written`: the activity since the last flush is in the database.
 */
export type Flushed =
  | { outcome: "idle" }
  | { outcome: "confirmed"; flush: bigint }
  | { outcome: "written"; flush: bigint; newPeriod: boolean };

/** A UUID as the contract has it: two halves, most significant first. */
export interface Halves {
  high: bigint;
  low: bigint;
}

/** What one batch of requests adds. */
export interface Activity {
  workspace: Halves;
  owner: Halves;
  allowed: bigint;
  denied: bigint;
}

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;

/** Reads a UUID that is not nil. `what` is for the message. Callers in JavaScript can pass any value. */
export function halves(uuid: string, what: string): Halves {
  if (typeof uuid !== "string" || !UUID.test(uuid)) {
    const hint = "write it as xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx";
    throw new BoundaryUsageError("configuration", `the ${what} ${shown(uuid)} is not a UUID; ${hint}`);
  }
  const digits = uuid.replaceAll("-", "");
  const read = { high: BigInt(`0x${digits.slice(0, 16)}`), low: BigInt(`0x${digits.slice(16)}`) };
  if (read.high === 0n && read.low === 0n) {
    throw new BoundaryUsageError("configuration", `the ${what} is the nil UUID; each has an id of its own`);
  }
  return read;
}

/** Writes a UUID in the usual way. */
export function hyphenated({ high, low }: Halves): string {
  const digits = high.toString(16).padStart(16, "0") + low.toString(16).padStart(16, "0");
  return digits.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}

/** Reads a count of requests: a whole number that is not negative. Counts beyond 2^63 - 1 are taken for that. */
export function requests(count: number | bigint, what: string): bigint {
  const isCount = typeof count === "bigint" || (typeof count === "number" && Number.isSafeInteger(count));
  if (!isCount || count < 0) {
    const rule = "a count is a whole number and never negative; pass a bigint beyond 2^53";
    throw new BoundaryUsageError("configuration", `the ${what} ${shown(count)} is not a count of requests; ${rule}`);
  }
  return least(BigInt(count), REQUESTS_MAX);
}

/** Adds two counts, up to 2^63 - 1. */
export function sum(left: bigint, right: bigint): bigint {
  return least(left + right, REQUESTS_MAX);
}

function least(left: bigint, right: bigint): bigint {
  return left < right ? left : right;
}

/** A value for a message: a short text in quotes, a number, or only the type. */
function shown(value: unknown): string {
  switch (typeof value) {
    case "string":
      return JSON.stringify(value.length > 80 ? `${value.slice(0, 80)}…` : value);
    case "number":
    case "bigint":
    case "boolean":
    case "undefined":
      return String(value);
    default:
      return value === null ? "null" : `of the type ${typeof value}`;
  }
}
