/**
 * PostgreSQL: for several replicas, on any number of machines.
 *
 * A flush shares the cutover lock with other flushes and holds a lock of its replica's own. Both are advisory locks of the
 * transaction, under the keys of the Rust host, so they end with it and hold against its collections. Times are the
 * server's.
 */

import { isIPv4 } from "node:net";

import type { ClientBase, Pool, PoolClient, PoolConfig } from "pg";

import { BoundaryUsageError, messageOf } from "../errors.ts";
import type { Stored, Update } from "../usage.ts";
import type { Database, Transaction } from "./index.ts";
import { oldFlush, SELECT_APPLIED, SELECT_KEY, stored, type StoredRow } from "./rows.ts";
import { type Applied, checkedKey, migrations, missing, randomKey } from "./schema.ts";

/** How many connections are open at once, at most: one for each tracker that flushes. */
const CONNECTIONS_MAX = 10;

/** How long to wait for a connection, in milliseconds. */
const CONNECT_LIMIT = 5_000;

/** How long to wait for any reply, in milliseconds: longer than the server's own limits, for when it is silent. */
const REPLY_LIMIT = 15_000;

const BEGIN =
  "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SET LOCAL lock_timeout = '5s'; " +
  "SET LOCAL statement_timeout = '10s'; SET LOCAL idle_in_transaction_session_timeout = '15s'";

/** The cutover lock, alone: one process makes the schema, and no flush runs meanwhile. */
const LOCK_SCHEMA = "BEGIN; SET LOCAL lock_timeout = '10s'; SELECT pg_advisory_xact_lock(9)";

const CREATE_MIGRATIONS = `
  CREATE TABLE IF NOT EXISTS boundary_usage_migrations (
    version BIGINT PRIMARY KEY,
    description TEXT NOT NULL,
    installed_on TIMESTAMPTZ NOT NULL DEFAULT now(),
    success BOOLEAN NOT NULL,
    checksum BYTEA NOT NULL,
    execution_time BIGINT NOT NULL
  )`;

const INSERT_APPLIED = `
  INSERT INTO boundary_usage_migrations (version, description, success, checksum, execution_time)
  VALUES ($1, $2, TRUE, $3, -1)`;

const INSERT_KEY = "INSERT INTO boundary_usage_deployment (hashing_key) VALUES ($1) ON CONFLICT DO NOTHING";

const TABLE_EXISTS = "SELECT to_regclass('boundary_usage_migrations') IS NOT NULL AS present";

const READ = `
  SELECT r.last_flush, s.unique_workspaces_count, s.unique_users_count, s.workspaces_sketch, s.users_sketch
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

  private constructor(pool: Pool) {
    this.#pool = pool;
  }

  /** Connects, and brings the schema up to date. */
  static async connect(url: string): Promise<Postgres> {
    const configuration = configured(url);
    const driver = await import("pg").catch((cause: unknown) => {
      throw new BoundaryUsageError("configuration", "PostgreSQL needs the package pg; npm install pg", { cause });
    });
    const pool = new driver.default.Pool(configuration);
    // A connection that dies while it is idle is no failure: the pool lets go of it.
    pool.on("error", () => {});
    const database = new Postgres(pool);
    try {
      await bringUpToDate(pool);
    } catch (error) {
      await pool.end();
      throw failure("bringing the database's schema up to date", error);
    }
    return database;
  }

  async hashingKey(): Promise<Uint8Array> {
    const { rows } = await this.#pool.query(SELECT_KEY).catch((error: unknown) => {
      throw failure("reading the hashing key", error);
    });
    return checkedKey(rows[0]?.hashing_key);
  }

  /** An idle connection may have died unnoticed: then the next one is tried, at last a new one. */
  async begin(): Promise<Transaction> {
    for (let idle = this.#pool.idleCount; ; idle -= 1) {
      let client: PoolClient | undefined;
      try {
        client = await this.#pool.connect();
        await client.query(BEGIN);
        return new PostgresTransaction(client);
      } catch (error) {
        client?.release(true);
        if (client === undefined || idle <= 0) {
          throw failure("opening a transaction", error);
        }
      }
    }
  }

  async close(): Promise<void> {
    await this.#pool.end();
  }
}

/** What the URL says, and what it leaves open. Nothing of it is shown: a mistyped URL can hold a password anywhere. */
function configured(url: string): PoolConfig {
  const expected = "expected `postgres://USER:PASSWORD@HOST:PORT/DATABASE`";
  if (!URL.canParse(url) || !/^\w+:\/\//.test(url)) {
    throw new BoundaryUsageError("configuration", `the PostgreSQL URL is not valid; ${expected}`);
  }
  const { hostname, searchParams } = new URL(url);
  const configuration: PoolConfig = {
    application_name: "boundary-usage",
    connectionString: url,
    connectionTimeoutMillis: CONNECT_LIMIT,
    max: CONNECTIONS_MAX,
    query_timeout: REPLY_LIMIT,
  };
  if (!isThisMachine(searchParams.get("host") ?? hostname) && !searchParams.has("sslmode")) {
    // A remote host is verified unless the URL says otherwise, as in the Rust host.
    configuration.ssl = { rejectUnauthorized: true };
  }
  return configuration;
}

function isThisMachine(host: string): boolean {
  const isLoopback = isIPv4(host) ? host.startsWith("127.") : ["[::1]", "::1", "localhost", ""].includes(host);
  return isLoopback || host.startsWith("/");
}

async function bringUpToDate(pool: Pool): Promise<void> {
  const known = await migrations("postgres");
  const client = await pool.connect();
  try {
    if (missing(known, await applied(client)).length > 0) {
      await client.query(LOCK_SCHEMA);
      await client.query(CREATE_MIGRATIONS);
      // Looked up again: another process may have migrated since.
      for (const { version, name, checksum, sql } of missing(known, await applied(client))) {
        await client.query(sql);
        await client.query(INSERT_APPLIED, [version, name, checksum]);
      }
      await client.query(INSERT_KEY, [randomKey()]);
      await client.query("COMMIT");
    }
    client.release();
  } catch (error) {
    client.release(true);
    throw error;
  }
}

async function applied(client: ClientBase): Promise<Applied[]> {
  const { rows: found } = await client.query(TABLE_EXISTS);
  if (found[0]?.present !== true) {
    return [];
  }
  const { rows } = await client.query(SELECT_APPLIED);
  return rows.map(({ version, checksum }) => ({ version: Number(version), checksum }));
}

/** An open transaction, and the connection that it runs on. */
class PostgresTransaction implements Transaction {
  readonly #client: PoolClient;

  constructor(client: PoolClient) {
    this.#client = client;
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
    return stored((await this.#row("reading the stored usage", READ, [replica])) as StoredRow);
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
    try {
      await this.#client.query("COMMIT");
    } catch (error) {
      this.#client.release(true);
      const { code, severity } = replyOf(error);
      // A session that ends or is cancelled, and a pooler that lost the server, may say so after the commit was done.
      const isCertain = severity === "ERROR" && !/^(08|57|40003)/.test(code);
      throw isCertain ? failure("committing", error) : new BoundaryUsageError("commit-unknown", messageOf(error));
    }
    this.#client.release();
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

/** What the server replied; nothing when the error is the driver's. */
function replyOf(error: unknown): { code: string; severity: string } {
  const { code, severity } = error as { code?: unknown; severity?: unknown };
  const isReply = typeof code === "string" && typeof severity === "string";
  return isReply ? { code, severity } : { code: "", severity: "" };
}

/** The error of a statement: nothing is applied. Classes are those of the manual's appendix of error codes. */
function failure(action: string, error: unknown): BoundaryUsageError {
  if (error instanceof BoundaryUsageError) {
    return error;
  }
  const { code } = replyOf(error);
  const what = `${action} failed: ${messageOf(error)}`;
  const answer = { cause: error };
  if (["55P03", "40P01", "40001"].includes(code)) {
    return new BoundaryUsageError("conflict", `${what}: another transaction was in the way; it is tried again`, answer);
  }
  if (code === "42501") {
    return new BoundaryUsageError("refused", `${what}; grant the role boundary_usage_replica`, answer);
  }
  // A statement's time limit, a standby, a session ended because it was idle: these pass.
  const passes = ["57014", "25006", "25P03", "25P04"].includes(code);
  const isRefusal = !passes && /^(22|23|25|42)/.test(code);
  return new BoundaryUsageError(isRefusal ? "refused" : "unavailable", isRefusal ? `${what} (${code})` : what, answer);
}
