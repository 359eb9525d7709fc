/**
 * A transaction of a flush on PostgreSQL.
 *
 * Both locks are advisory locks of the transaction with the keys of the Rust host, so they end with the transaction and
 * exclude the Rust host's collections.
 */

import type { PoolClient, QueryResult } from "pg";

import { BoundaryUsageError } from "../errors.ts";
import type { StoredUsage, Update } from "../usage.ts";
import type { Transaction } from "./database.ts";
import { classify, replyOf } from "./postgres_errors.ts";
import { SQL } from "./postgres_sql.ts";
import { type Argument, commitUnknown, staleFlush, storedUsage, type UsageRow, writeOf } from "./rows.ts";

/** An open transaction and its connection. */
export class PostgresTransaction implements Transaction {
  readonly #client: PoolClient;
  readonly #key: Uint8Array | undefined;

  /** Takes a connection on which a transaction has begun, and the hashing key that the database must have. */
  constructor(client: PoolClient, key: Uint8Array | undefined) {
    this.#client = client;
    this.#key = key;
  }

  async acquireCutover(): Promise<void> {
    const hint = "if this persists, find the session in pg_locks (locktype advisory, objid 9)";
    const conflict = `a collection has held the cutover lock for more than 5 s; ${hint}`;
    await this.#acquire(conflict, SQL.acquire_shared_cutover_lock);
  }

  async acquireReplica(replica: string): Promise<void> {
    const hint = "make sure that no second process uses this replica id";
    const conflict = `another flush of replica ${replica} has run for more than 5 s; ${hint}`;
    await this.#acquire(conflict, SQL.acquire_replica_lock, [replica]);
  }

  async read(replica: string): Promise<StoredUsage> {
    const row = await this.#row("reading the stored usage", SQL.read_usage, [replica]);
    return storedUsage(row as UsageRow, this.#key);
  }

  async upsert(replica: string, update: Update): Promise<void> {
    const [statement, values] = writeOf(replica, update);
    if ((await this.#row("writing usage", SQL[statement], values)) === undefined) {
      throw staleFlush(replica, update.flush);
    }
  }

  async commit(): Promise<void> {
    let reply: QueryResult;
    try {
      reply = await this.#client.query("COMMIT");
    } catch (error) {
      this.#client.release(true);
      const { code, severity } = replyOf(error);
      // Only an ordinary error reply proves that nothing was applied. A session that ends or is cancelled, and a pooler
      // that lost its server, may report an error after the commit was applied.
      const isCertain = severity === "ERROR" && !/^(08|57|40003)/.test(code);
      throw isCertain ? classify("committing", error) : commitUnknown(error);
    }
    this.#client.release();
    if (reply.command !== "COMMIT") {
      const what = "committing failed: one of the statements had failed, so the server rolled the transaction back";
      throw new BoundaryUsageError("unavailable", `${what}; the next flush tries again`);
    }
  }

  async rollback(): Promise<void> {
    try {
      await this.#client.query("ROLLBACK");
      this.#client.release();
    } catch {
      this.#client.release(true);
    }
  }

  async #acquire(conflict: string, statement: string, values: Argument[] = []): Promise<void> {
    try {
      await this.#client.query(statement, values);
    } catch (error) {
      const isTimeout = replyOf(error).code === "55P03";
      const cause = { cause: error };
      throw isTimeout ? new BoundaryUsageError("conflict", conflict, cause) : classify("acquiring a lock", error);
    }
  }

  async #row(action: string, statement: string, values: Argument[]): Promise<unknown> {
    try {
      return (await this.#client.query(statement, values)).rows[0];
    } catch (error) {
      throw classify(action, error);
    }
  }
}
