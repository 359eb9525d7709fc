/**
 * SQLite, embedded, for the processes of one machine.
 *
 * A flush begins by acquiring SQLite's only write lock, which excludes collections and other flushes. So its
 * transaction has the effect of both locks of the contract from the start.
 */

import { resolve } from "node:path";

import type { StoredUsage, Update } from "../usage.ts";
import type { Database, Transaction } from "./database.ts";
import { type AppliedMigration, missingMigrations, randomKey, readMigrations, validateKey } from "./migrations.ts";
import { commitUnknown, staleFlush, storedUsage, type UsageRow, writeOf } from "./rows.ts";
import { mayHaveCommitted, SqliteConnection } from "./sqlite_connection.ts";
import { parseSqliteUrl, type SqliteFile } from "./sqlite_url.ts";
import { readStatements } from "./statements.ts";

const SQL = readStatements("sqlite", [
  "begin_flush",
  "begin_migration",
  "create_migrations_table",
  "find_migrations_table",
  "insert_hashing_key",
  "insert_usage",
  "read_hashing_key",
  "read_migrations",
  "read_usage",
  "record_flush",
  "record_migration",
  "update_requests",
  "update_usage",
]);

/** A SQLite file. */
export class Sqlite implements Database {
  readonly #path: string;
  readonly #create: boolean;
  readonly #idle: SqliteConnection[] = [];
  #key: Uint8Array | undefined;

  private constructor({ path, create }: SqliteFile) {
    // The working directory may change before the file is opened again.
    this.#path = resolve(path);
    this.#create = create;
  }

  /** Opens the file, and creates or updates its tables. */
  static async connect(url: string): Promise<Sqlite> {
    const database = new Sqlite(parseSqliteUrl(url));
    database.#idle.push(await database.#open());
    return database;
  }

  async hashingKey(): Promise<Uint8Array> {
    this.#key ??= await this.#readKey();
    return this.#key;
  }

  async begin(): Promise<Transaction> {
    const connection = this.#idle.pop() ?? (await this.#open());
    try {
      await connection.executeWhenFree("beginning a transaction", SQL.begin_flush);
      connection.checkFile();
    } catch (error) {
      connection.close();
      // The other connections may have the same fault, so all are closed.
      await this.close();
      throw error;
    }
    return new SqliteTransaction(connection, this.#idle, this.#key);
  }

  async close(): Promise<void> {
    this.#idle.splice(0).forEach((connection) => connection.close());
  }

  async #readKey(): Promise<Uint8Array> {
    const connection = this.#idle.pop() ?? (await this.#open());
    try {
      const row = connection.row("reading the hashing key", SQL.read_hashing_key);
      const key = validateKey(row?.["hashing_key"] as Uint8Array | undefined);
      this.#idle.push(connection);
      return key;
    } catch (error) {
      connection.close();
      throw error;
    }
  }

  async #open(): Promise<SqliteConnection> {
    const connection = new SqliteConnection(this.#path, this.#create);
    try {
      // Enabling the write-ahead log needs a lock of the whole file.
      const pragmas = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL";
      await connection.executeWhenFree("opening the database file", pragmas);
      // If the file was deleted, it is created again with its old hashing key.
      await migrate(connection, this.#key ?? randomKey());
    } catch (error) {
      connection.close();
      throw error;
    }
    return connection;
  }
}

/** Creates or updates the tables, if necessary. A new database gets `key` as its hashing key. */
async function migrate(connection: SqliteConnection, key: Uint8Array): Promise<void> {
  const action = "updating the database schema";
  const known = await readMigrations("sqlite");
  if (missingMigrations(known, appliedMigrations(connection)).length === 0) {
    return;
  }
  await connection.executeWhenFree(action, SQL.begin_migration);
  connection.execute(action, SQL.create_migrations_table);
  // Another process may have migrated before the transaction began.
  for (const { version, name, checksum, sql } of missingMigrations(known, appliedMigrations(connection))) {
    connection.execute(action, sql);
    connection.row(action, SQL.record_migration, [version, name, checksum]);
  }
  connection.row(action, SQL.insert_hashing_key, [key]);
  connection.execute(action, "COMMIT");
}

function appliedMigrations(connection: SqliteConnection): AppliedMigration[] {
  const action = "reading the version of the database schema";
  if (connection.row(action, SQL.find_migrations_table) === undefined) {
    return [];
  }
  const rows = connection.rows(action, SQL.read_migrations);
  return rows.map((row) => ({ version: Number(row["version"]), checksum: row["checksum"] as Uint8Array }));
}

/** An open transaction and its connection. */
class SqliteTransaction implements Transaction {
  readonly #connection: SqliteConnection;
  readonly #idle: SqliteConnection[];
  readonly #key: Uint8Array | undefined;

  constructor(connection: SqliteConnection, idle: SqliteConnection[], key: Uint8Array | undefined) {
    this.#connection = connection;
    this.#idle = idle;
    this.#key = key;
  }

  /** Does nothing: the transaction has excluded collections since it began. */
  async acquireCutover(): Promise<void> {}

  /** Does nothing: the transaction has excluded other flushes since it began. */
  async acquireReplica(): Promise<void> {}

  async read(replica: string): Promise<StoredUsage> {
    const row = this.#connection.row("reading the stored usage", SQL.read_usage, [replica]);
    return storedUsage(row as unknown as UsageRow, this.#key);
  }

  async upsert(replica: string, update: Update): Promise<void> {
    const action = "writing usage";
    const [statement, values] = writeOf(replica, update);
    this.#connection.row(action, SQL[statement], values);
    if (this.#connection.row(action, SQL.record_flush, [replica, update.flush]) === undefined) {
      throw staleFlush(replica, update.flush);
    }
  }

  async commit(): Promise<void> {
    try {
      this.#connection.checkFile();
    } catch (error) {
      this.#connection.close();
      throw error;
    }
    try {
      this.#connection.execute("committing", "COMMIT");
    } catch (error) {
      this.#connection.close();
      throw mayHaveCommitted(error) ? commitUnknown(error) : error;
    }
    this.#idle.push(this.#connection);
  }

  async rollback(): Promise<void> {
    try {
      this.#connection.execute("rolling back", "ROLLBACK");
      this.#idle.push(this.#connection);
    } catch {
      this.#connection.close();
    }
  }
}
