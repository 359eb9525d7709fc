/**
 * The database, in the words of the domain. The SQL is in this folder and nowhere else.
 *
 * Both keep to the schema and to the locks of the Rust host, so that replicas of either can share a database.
 * Collections are not here: they need authority that a proxy does not have.
 */

import { BoundaryUsageError } from "../errors.ts";
import type { Stored, Update } from "../usage.ts";

/** An open transaction. After an error it can only be rolled back. Replicas are UUIDs. */
export interface Transaction {
  /** Waits until no collection runs, and keeps the next one from starting. */
  acquireCutover(): Promise<void>;
  /** Waits until no other flush of this replica runs. */
  acquireReplica(replica: string): Promise<void>;
  /** What is stored of a replica. */
  read(replica: string): Promise<Stored>;
  /**
   * Inserts or updates the replica's row, as the update says, and records the flush as its last. The error `conflict`,
   * and nothing written, when the flush is not newer than the last one, or when a row to insert is there already, or
   * one to update is not.
   */
  upsert(replica: string, update: Update): Promise<void>;
  /** Commits. The error `commit-unknown` when no reply came; after any other error nothing is applied. */
  commit(): Promise<void>;
  /** Rolls back; never fails. */
  rollback(): Promise<void>;
}

/** A database that holds usage. */
export interface Database {
  /** The 16 bytes under which ids are hashed. */
  hashingKey(): Promise<Uint8Array>;
  /** Opens a transaction for a flush. */
  begin(): Promise<Transaction>;
  /** Closes all connections. */
  close(): Promise<void>;
}

/**
 * Connects to a database by its URL, and brings its schema up to date.
 *
 * `sqlite:PATH` is a file, created when missing, which several processes of one machine can share;
 * `postgres://USER:PASSWORD@HOST:PORT/DATABASE` is for several replicas, and needs the package `pg`.
 */
export async function connect(url: string): Promise<Database> {
  switch (url.split(":", 1)[0]) {
    case "sqlite":
      return (await import("./sqlite.ts")).Sqlite.connect(url);
    case "postgres":
    case "postgresql":
      return (await import("./postgres.ts")).Postgres.connect(url);
    default: {
      const expected = "expected `sqlite:PATH` or `postgres://USER:PASSWORD@HOST:PORT/DATABASE`";
      // Not shown: anything else could be a password.
      throw new BoundaryUsageError("configuration", `the database URL names no kind of database; ${expected}`);
    }
  }
}
