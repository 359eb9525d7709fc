/**
 * Usage tracking for egress boundaries: unique workspaces and users, allowed and denied requests.
 *
 * The flow is *track → component → transaction → database*. The tracker is a WebAssembly component, the same for every
 * host. This package loads the component, gives it transactions for its replica's row, and flushes it.
 *
 * @module
 */

export { connect, type Database, type Transaction } from "./database/database.ts";
export { BoundaryUsageError, type ErrorKind } from "./errors.ts";
export { type Decision, type Middleware, middleware, type MiddlewareOptions } from "./middleware.ts";
export type { DeniedBy, IdSource, TrafficCounts } from "./middleware.ts";
export { Tracker } from "./tracker.ts";
export type { TrackerOptions } from "./options.ts";
export type { Flushed, Sketch, StoredUsage, Uniques, UniquesUpdate, Update } from "./usage.ts";
