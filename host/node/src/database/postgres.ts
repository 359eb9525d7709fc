/**
 * PostgreSQL, for several replicas on any number of machines.
 *
 * A flush needs six round trips and no state of its session, so it works through a transaction pooler. All times are
 * the server's.
 */

import type { Pool, PoolClient, PoolConfig } from "pg";

import { BoundaryUsageError } from "../errors.ts";
import type { Database, Transaction } from "./database.ts";
import { validateKey } from "./migrations.ts";
import { cannotConnect, classify, needsOtherEncryption } from "./postgres_errors.ts";
import { migrate, readOnly } from "./postgres_migrations.ts";
import { beginOn } from "./postgres_sql.ts";
import { PostgresTransaction } from "./postgres_transaction.ts";
import { typeParser } from "./postgres_types.ts";
import { parsePostgresUrl, type Target } from "./postgres_url.ts";

/** The largest number of open connections. Each tracker uses one during its flush. */
const CONNECTIONS_MAX = 10;

/** The time limit of a connection attempt, in milliseconds. */
const CONNECT_LIMIT = 5_000;

/**
 * The time limit of a reply, in milliseconds. This limit exceeds the server's own limits, and detects a server that
 * does not reply.
 */
const REPLY_LIMIT = 15_000;

/** A PostgreSQL database. */
export class Postgres implements Database {
  readonly #pool: Pool;
  readonly #address: string;
  #schema = "";
  #key: Uint8Array | undefined;

  private constructor(pool: Pool, address: string) {
    this.#pool = pool;
    this.#address = address;
  }

  /** Connects, and creates or updates the tables. */
  static async connect(url: string): Promise<Postgres> {
    const target = parsePostgresUrl(url);
    const driver = await import("pg").catch((cause: unknown) => {
      throw new BoundaryUsageError("configuration", "PostgreSQL needs the package pg; run `npm install pg`", { cause });
    });
    // Some modes allow a second kind of encryption if the first one fails. The driver supports only one kind per pool.
    for (const [attempt, tls] of target.tls.entries()) {
      const pool = new driver.default.Pool(configurationOf(target, tls));
      // The pool itself discards an idle connection that breaks. Without a listener, the event would end the process.
      pool.on("error", () => {});
      pool.on("connect", (client) => {
        // A connection that breaks fails its statement. Without a listener, the event would end the process.
        client.on("error", () => {});
        // The application may have changed the driver's defaults. This package reads replies as text.
        Object.assign(client, { binary: false });
      });
      const database = new Postgres(pool, target.address);
      try {
        database.#schema = await database.#withClient("updating the database schema", migrate);
        return database;
      } catch (error) {
        await pool.end();
        if (attempt + 1 === target.tls.length || !needsOtherEncryption(error)) {
          throw error;
        }
      }
    }
    throw new Error("a target has at least one kind of encryption");
  }

  async hashingKey(): Promise<Uint8Array> {
    this.#key ??= await this.#withClient("reading the hashing key", async (client) => {
      const [row] = await readOnly(client, this.#schema, "read_hashing_key");
      return validateKey(row?.hashing_key);
    });
    return this.#key;
  }

  /** Begins a transaction. If an idle connection is broken, the next one is tried, and finally a new one. */
  async begin(): Promise<Transaction> {
    for (let idle = this.#pool.idleCount; ; idle -= 1) {
      const client = await this.#client();
      try {
        await client.query(beginOn(this.#schema, "begin_flush"));
        return new PostgresTransaction(client, this.#key);
      } catch (error) {
        client.release(true);
        // A server that does not reply would not reply on the next connection either.
        if (idle <= 0 || /timeout|timed out/.test((error as Error).message)) {
          throw classify("beginning a transaction", error);
        }
      }
    }
  }

  async close(): Promise<void> {
    await this.#pool.end();
  }

  /** Calls a function with a connection, and closes the connection if the function fails. */
  async #withClient<T>(action: string, call: (client: PoolClient) => Promise<T>): Promise<T> {
    const client = await this.#client();
    try {
      const result = await call(client);
      client.release();
      return result;
    } catch (error) {
      client.release(true);
      throw classify(action, error);
    }
  }

  async #client(): Promise<PoolClient> {
    try {
      return await this.#pool.connect();
    } catch (error) {
      throw cannotConnect(this.#address, error);
    }
  }
}

/**
 * Returns the driver's settings. All of them are set, because the driver reads the environment differently from libpq.
 */
function configurationOf(target: Target, tls: Target["tls"][number]): PoolConfig {
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
    types: { getTypeParser: typeParser },
    user: target.user,
  } as PoolConfig;
}
