/**
 * The part of a database that flushes use.
 *
 * Both kinds of database use the schema, the statements and the locks of the Rust host, so replicas of all hosts can
 * share a database. Collections are not here, because they need authority that a proxy does not have.
 */

import { BoundaryUsageError } from "../errors.ts";
import type { StoredUsage, Update } from "../usage.ts";

/** An open transaction. After an error it can only be rolled back. Replica ids are UUIDs. */
export interface Transaction {
  /** Waits until no collection runs. No collection can start until the transaction ends. */
  acquireCutover(): Promise<void>;
  /** Waits until no other flush of this replica runs. */
  acquireReplica(replica: string): Promise<void>;
  /** Reads the stored usage of a replica. */
  read(replica: string): Promise<StoredUsage>;
  /**
   * Inserts or updates the replica's row, and records the flush as its last one.
   *
   * Throws `conflict` and writes nothing if the flush is not newer than the last one, if a row to insert exists, or if
   * a row to update is missing.
   */
  upsert(replica: string, update: Update): Promise<void>;
  /**
   * Commits.
   *
   * Throws `commit-unknown` if no reply arrived. Every other error means that nothing was applied.
   */
  commit(): Promise<void>;
  /** Rolls back; never fails. */
  rollback(): Promise<void>;
}

/** A database that stores usage. */
export interface Database {
  /** Reads the 16 bytes of the key of the id hashes. */
  hashingKey(): Promise<Uint8Array>;
  /** Begins a transaction for a flush. */
  begin(): Promise<Transaction>;
  /** Closes all connections. */
  close(): Promise<void>;
}

/**
 * Connects to a database by its URL, and creates or updates its tables.
 *
 * `sqlite:PATH` names a file that several processes of one machine can share. A missing file is created.
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
      // The text may be a password, so the message does not contain it.
      const what = "the database URL names no supported kind of database";
      const expected = "expected `sqlite:PATH` or `postgres://USER:PASSWORD@HOST:PORT/DATABASE`";
      throw new BoundaryUsageError("configuration", `${what}; ${expected}`);
    }
  }
}
