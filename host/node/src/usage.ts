/**
 * The types that the tracker, its database and its callers share.
 */

import { BoundaryUsageError } from "./errors.ts";

/** The largest count of requests, at which sums saturate. */
export const REQUESTS_MAX = 2n ** 63n - 1n;

/** A set of ids: a serialized Theta sketch of their keyed hashes, and the number of ids by its estimate. */
export interface Sketch {
  count: bigint;
  bytes: Uint8Array;
}

/** The unique workspaces and users of some activity. */
export interface Uniques {
  workspaces: Sketch;
  users: Sketch;
}

/** The stored usage of a replica. */
export interface StoredUsage {
  /** The number of the last applied flush; 0 before the first one. */
  lastFlush: bigint;
  /** The uniques of the open period, if the replica has flushed in it. */
  uniques?: Uniques;
}

/**
 * The change of a replica's unique sets.
 *
 * - `delta`: the replica has no row in the open period. The new row gets the ids of this flush alone.
 * - `cumulative`: the union of the row's ids and those of this flush replaces the row's sets.
 * - `unchanged`: the row already contains all ids of this flush and keeps its sets.
 */
export type UniquesUpdate = { tag: "delta" | "cumulative"; val: Uniques } | { tag: "unchanged" };

/** The update that one flush writes. */
export interface Update {
  /** The number of the flush. */
  flush: bigint;
  uniques: UniquesUpdate;
  /** Allowed requests since the last flush. */
  allowed: bigint;
  /** Denied requests since the last flush. */
  denied: bigint;
}

/**
 * The result of a flush.
 *
 * - `idle`: there was no activity since the last flush, so the flush began no transaction.
 * - `confirmed`: a flush without a commit reply turned out to be applied. There was nothing else to write.
 * - `written`: the activity since the last flush is in the database.
 */
export type Flushed =
  | { outcome: "idle" }
  | { outcome: "confirmed"; flush: bigint }
  | { outcome: "written"; flush: bigint; newPeriod: boolean };

/** A UUID as the contract represents it: two big-endian halves. */
export interface Uuid {
  high: bigint;
  low: bigint;
}

/** The usage of one batch of requests. */
export interface Activity {
  workspace: Uuid;
  owner: Uuid;
  allowed: bigint;
  denied: bigint;
}

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;

/** Parsed UUIDs, because most requests have the ids of earlier ones, and parsing is most of the time of a `track`. */
const parsed = new Map<string, Uuid>();

/** The largest number of parsed UUIDs that are kept. */
const PARSED_MAX = 8_192;

/** Parses a UUID and refuses nil. `name` is for the message. A caller in JavaScript can pass any value. */
export function parseUuid(text: string, name: string): Uuid {
  const known = parsed.get(text);
  if (known !== undefined) {
    return known;
  }
  if (typeof text !== "string" || !UUID.test(text)) {
    const hint = "write it as xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx";
    throw new BoundaryUsageError("configuration", `the ${name} ${display(text)} is not a UUID; ${hint}`);
  }
  const digits = text.replaceAll("-", "");
  const uuid = { high: BigInt(`0x${digits.slice(0, 16)}`), low: BigInt(`0x${digits.slice(16)}`) };
  if (uuid.high === 0n && uuid.low === 0n) {
    throw new BoundaryUsageError("configuration", `the ${name} is the nil UUID, which names no id; use another one`);
  }
  if (parsed.size >= PARSED_MAX) {
    parsed.clear();
  }
  // A copy, because a part of a header would keep the whole header in memory.
  parsed.set(Buffer.from(text).toString(), uuid);
  return uuid;
}

/** Formats a UUID with hyphens. */
export function formatUuid({ high, low }: Uuid): string {
  const digits = high.toString(16).padStart(16, "0") + low.toString(16).padStart(16, "0");
  return digits.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}

/** Converts a count of requests: a whole number that is not negative. The result saturates at 2^63 - 1. */
export function parseRequests(count: number | bigint, name: string): bigint {
  const isCount = typeof count === "bigint" || (typeof count === "number" && Number.isSafeInteger(count));
  if (!isCount || count < 0) {
    const rule = "a count is a whole number and never negative; pass a bigint beyond 2^53";
    throw new BoundaryUsageError("configuration", `the ${name} ${display(count)} is not a count of requests; ${rule}`);
  }
  return minimum(BigInt(count), REQUESTS_MAX);
}

/** Adds two counts of requests. The sum saturates at 2^63 - 1. */
export function addRequests(left: bigint, right: bigint): bigint {
  return minimum(left + right, REQUESTS_MAX);
}

function minimum(left: bigint, right: bigint): bigint {
  return left < right ? left : right;
}

/** Formats a value for a message: a short text in quotes, a number, or only the type. */
function display(value: unknown): string {
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
