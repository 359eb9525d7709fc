/**
 * Usage tracking for egress boundaries: unique workspaces and users, requests allowed and denied.
 *
 * The flow is *track → component → transaction → database*. The tracker itself is a WebAssembly component, the same for
 * every host; this package loads it, hands it a database transaction of its own rows, and flushes it.
 *
 * @module
 */

export { connect, type Database, type Transaction } from "./database/index.ts";
export { BoundaryUsageError, type ErrorKind } from "./errors.ts";
export { Tracker, type TrackerOptions } from "./tracker.ts";
export type { Flushed, StoredUsage, Uniques, UniqueSet, UniquesUpdate, Update } from "./usage.ts";
