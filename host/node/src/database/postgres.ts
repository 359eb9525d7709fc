/**
 * PostgreSQL: for several replicas, on any number of machines.
 *
 * A flush shares the cutover lock with other flushes and holds a lock of its replica's own. Both are advisory locks of
 * the transaction, under the keys of the Rust host, so they end with it and hold against its collections. Times are the
 * server's.
 */

import type { Pool, PoolClient, PoolConfig, QueryResult } from "pg";

import { BoundaryUsageError } from "../errors.ts";
import type { Stored, Update } from "../usage.ts";
import type { Database, Transaction } from "./index.ts";
import { cannotConnect, failure, needsOtherEncryption, replyOf } from "./postgres_errors.ts";
import { begin, bringUpToDate, readOnly } from "./postgres_schema.ts";
import { type Target, targetOf } from "./postgres_url.ts";
import { commitUnknown, oldFlush, otherKey, SELECT_KEY, stored, type StoredRow } from "./rows.ts";
import { checkedKey } from "./schema.ts";

/** How many connections are open at once, at most: one for each tracker that flushes. */
const CONNECTIONS_MAX = 10;

/** How long to wait for a connection, in milliseconds. */
const CONNECT_LIMIT = 5_000;

/** How long to wait for any reply, in milliseconds: longer than the server's own limits, for when it is silent. */
const REPLY_LIMIT = 15_000;

const READ = `
  SELECT r.last_flush, s.unique_workspaces_count, s.unique_users_count, s.workspaces_sketch, s.users_sketch,
    (SELECT hashing_key FROM boundary_usage_deployment) AS hashing_key
  FROM (SELECT $1::uuid AS replica_id) AS asked
  LEFT JOIN boundary_usage_replicas AS r ON r.replica_id = asked.replica_id
  LEFT JOIN boundary_usage_stats AS s ON s.replica_id = asked.replica_id`;

/** Writes the row, and records the flush if that has changed one; answers a row if it has. */
function writing(stats: string): string {
  return `
    WITH written AS (
      ${stats}
      RETURNING s.replica_id
    )
    INSERT INTO boundary_usage_replicas (replica_id, last_flush, flushed_at)
    SELECT replica_id, $2::bigint, statement_timestamp() FROM written
    ON CONFLICT (replica_id) DO UPDATE SET last_flush = excluded.last_flush, flushed_at = excluded.flushed_at
    RETURNING replica_id`;
}

function updating(sets: string): string {
  return writing(`
    UPDATE boundary_usage_stats AS s SET
      allowed_requests = s.allowed_requests + least($3::bigint, 9223372036854775807 - s.allowed_requests),
      denied_requests = s.denied_requests + least($4::bigint, 9223372036854775807 - s.denied_requests),
      ${sets}
      updated_at = statement_timestamp()
    FROM boundary_usage_replicas AS r
    WHERE s.replica_id = $1::uuid AND r.replica_id = $1::uuid AND r.last_flush < $2::bigint`);
}

const WRITE = {
  delta: writing(`
    INSERT INTO boundary_usage_stats AS s (
      replica_id, allowed_requests, denied_requests, unique_workspaces_count, unique_users_count,
      workspaces_sketch, users_sketch, window_start, updated_at
    )
    SELECT $1::uuid, $3::bigint, $4::bigint, $5::bigint, $6::bigint, $7::bytea, $8::bytea,
      statement_timestamp(), statement_timestamp()
    WHERE NOT EXISTS (SELECT FROM boundary_usage_replicas WHERE replica_id = $1::uuid AND last_flush >= $2::bigint)
    ON CONFLICT (replica_id) DO NOTHING`),
  cumulative: updating(`
      unique_workspaces_count = $5,
      unique_users_count = $6,
      workspaces_sketch = $7,
      users_sketch = $8,`),
  unchanged: updating(""),
};

/** A PostgreSQL database. */
export class Postgres implements Database {
  readonly #pool: Pool;
  readonly #target: Target;
  #schema = "";
  #key: Uint8Array | undefined;

  private constructor(pool: Pool, target: Target) {
    this.#pool = pool;
    this.#target = target;
  }

  /** Connects, and brings the schema up to date. */
  static async connect(url: string): Promise<Postgres> {
    const target = targetOf(url);
    const driver = await import("pg").catch((cause: unknown) => {
      throw new BoundaryUsageError("configuration", "PostgreSQL needs the package pg; npm install pg", { cause });
    });
    // Which kinds of encryption to try, one after the other.
    for (const [attempt, tls] of target.tls.entries()) {
      const pool = new driver.default.Pool(configured(target, tls));
      // A connection that breaks while it is idle is no failure: the pool lets go of it.
      pool.on("error", () => {});
      // One that breaks while it is in use fails the statement that waits for it; without a listener it ends the
      // process.
      // The driver's defaults are the application's: replies are in text here, whatever those say.
      pool.on("connect", (client) =>
        Object.assign(
          client.on("error", () => {}),
          { binary: false },
        ),
      );
      const database = new Postgres(pool, target);
      try {
        await database.#bringUpToDate();
        return database;
      } catch (error) {
        await pool.end();
        if (attempt + 1 === target.tls.length || !needsOtherEncryption(error)) {
          throw error;
        }
      }
    }
    throw new Error("there is at least one kind of encryption to try");
  }

  async hashingKey(): Promise<Uint8Array> {
    this.#key ??= await this.#using("reading the hashing key", async (client) => {
      const [row] = await readOnly(client, this.#schema, SELECT_KEY);
      return checkedKey(row?.hashing_key);
    });
    return this.#key;
  }

  /** An idle connection may have died unnoticed: then the next one is tried, at last a new one. */
  async begin(): Promise<Transaction> {
    for (let idle = this.#pool.idleCount; ; idle -= 1) {
      const client = await this.#client();
      try {
        await client.query(begin("READ WRITE", this.#schema));
        return new PostgresTransaction(client, this.#key);
      } catch (error) {
        client.release(true);
        // A server that is silent is as silent on the next connection.
        if (idle <= 0 || /timeout|timed out/.test((error as Error).message)) {
          throw failure("opening a transaction", error);
        }
      }
    }
  }

  async close(): Promise<void> {
    await this.#pool.end();
  }

  async #bringUpToDate(): Promise<void> {
    this.#schema = await this.#using("bringing the database's schema up to date", bringUpToDate);
  }

  /** Does something with a connection, which is closed if that fails. */
  async #using<T>(action: string, act: (client: PoolClient) => Promise<T>): Promise<T> {
    const client = await this.#client();
    try {
      const result = await act(client);
      client.release();
      return result;
    } catch (error) {
      client.release(true);
      throw failure(action, error);
    }
  }

  async #client(): Promise<PoolClient> {
    try {
      return await this.#pool.connect();
    } catch (error) {
      throw cannotConnect(this.#target.address, error);
    }
  }
}

/** The settings of the driver. Each is given, because what it takes from the environment itself differs from libpq. */
function configured(target: Target, tls: Target["tls"][number]): PoolConfig {
  return {
    application_name: target.applicationName,
    connectionTimeoutMillis: target.connectLimit ?? CONNECT_LIMIT,
    database: target.database,
    host: target.host,
    max: CONNECTIONS_MAX,
    options: target.options,
    password: target.password,
    port: target.port,
    query_timeout: REPLY_LIMIT,
    ssl: tls,
    // The application may have changed what the driver makes of a type.
    types: { getTypeParser: (type: number) => (type === BYTEA ? bytea : (text: string) => text) },
    user: target.user,
  } as PoolConfig;
}

/** The number of the type `bytea`. */
const BYTEA = 17;

/** Reads bytes in either of the forms that `bytea_output` can ask for. */
function bytea(text: string): Buffer {
  if (text.startsWith("\\x")) {
    return Buffer.from(text.slice(2), "hex");
  }
  const byte = (_: string, escaped: string) => (escaped === "\\" ? escaped : String.fromCharCode(parseInt(escaped, 8)));
  return Buffer.from(text.replace(/\\(\\|[0-7]{3})/g, byte), "latin1");
}

/** An open transaction, and the connection that it runs on. */
class PostgresTransaction implements Transaction {
  readonly #client: PoolClient;
  readonly #key: Uint8Array | undefined;

  constructor(client: PoolClient, key: Uint8Array | undefined) {
    this.#client = client;
    this.#key = key;
  }

  async acquireCutover(): Promise<void> {
    const hint = "if that does not pass, look for it in pg_locks (locktype advisory, objid 9)";
    const conflict = `a collection has held the cutover lock for more than 5 s; ${hint}`;
    await this.#lock(conflict, "SELECT pg_advisory_xact_lock_shared(9)");
  }

  async acquireReplica(replica: string): Promise<void> {
    const hint = "make sure that no second process runs under this id";
    const conflict = `another flush of replica ${replica} has not ended within 5 s; ${hint}`;
    await this.#lock(conflict, "SELECT pg_advisory_xact_lock(9, $1)", [lockKey(replica)]);
  }

  async read(replica: string): Promise<Stored> {
    const row = (await this.#row("reading the stored usage", READ, [replica])) as StoredRow & { hashing_key: Buffer };
    if (this.#key !== undefined && !row.hashing_key?.equals(this.#key)) {
      throw otherKey();
    }
    return stored(row);
  }

  async upsert(replica: string, update: Update): Promise<void> {
    const { flush, uniques, allowed, denied } = update;
    const values: unknown[] = [replica, flush, allowed, denied];
    if (uniques.tag !== "unchanged") {
      const { workspaces, users } = uniques.val;
      values.push(workspaces.count, users.count, Buffer.from(workspaces.sketch), Buffer.from(users.sketch));
    }
    if ((await this.#row("writing usage", WRITE[uniques.tag], values)) === undefined) {
      throw oldFlush(replica, flush);
    }
  }

  /** Only an ordinary error reply says for certain that nothing was applied. */
  async commit(): Promise<void> {
    let reply: QueryResult;
    try {
      reply = await this.#client.query("COMMIT");
    } catch (error) {
      this.#client.release(true);
      const { code, severity } = replyOf(error);
      // A session that ends or is cancelled, and a pooler that lost the server, may say so after the commit was done.
      const isCertain = severity === "ERROR" && !/^(08|57|40003)/.test(code);
      throw isCertain ? failure("committing", error) : commitUnknown(error);
    }
    this.#client.release();
    if (reply.command !== "COMMIT") {
      const message = "committing failed: a statement of the transaction had failed, and the server rolled it back";
      throw new BoundaryUsageError("unavailable", message);
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

  async #row(action: string, statement: string, values: unknown[]): Promise<unknown> {
    try {
      return (await this.#client.query(statement, values)).rows[0];
    } catch (error) {
      throw failure(action, error);
    }
  }

  async #lock(conflict: string, statement: string, values: unknown[] = []): Promise<void> {
    try {
      await this.#client.query(statement, values);
    } catch (error) {
      const isLate = replyOf(error).code === "55P03";
      throw isLate ? new BoundaryUsageError("conflict", conflict, { cause: error }) : failure("taking a lock", error);
    }
  }
}

/** A replica's lock has two integers for a key, 9 and this one, as in the Rust host. */
export function lockKey(replica: string): number {
  const words = replica.replaceAll("-", "").match(/.{8}/g) ?? [];
  return words.reduce((key, word) => key ^ Number.parseInt(word, 16), 0);
}
