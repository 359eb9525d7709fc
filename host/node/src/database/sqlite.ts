/**
 * SQLite, as Node.js has it: embedded, for the processes of one machine. A transaction has the file to itself from its
 * beginning.
 *
 * The driver blocks the thread, so nothing waits inside it: another writer's lock is asked for again until it is
 * granted.
 */

import { realpathSync, statSync } from "node:fs";
import { resolve } from "node:path";
import { DatabaseSync, type SQLInputValue } from "node:sqlite";
import { setTimeout as sleep } from "node:timers/promises";
import { pathToFileURL } from "node:url";

import { BoundaryUsageError, type ErrorKind, messageOf } from "../errors.ts";
import type { Stored, Uniques, Update } from "../usage.ts";
import type { Database, Transaction } from "./index.ts";
import { commitUnknown, oldFlush, otherKey, SELECT_APPLIED, SELECT_KEY, stored, type StoredRow } from "./rows.ts";
import { type Applied, checkedKey, migrations, missing, randomKey } from "./schema.ts";
import { type SqliteFile, sqliteFile } from "./url.ts";

/** How long to wait for another writer, and how often to ask, in milliseconds. */
const BUSY_LIMIT = 5_000;
const BUSY_RETRY = 10;

// Primary result codes.
const BUSY = 5;
const LOCKED = 6;
const INTERRUPTED = 9;
const IO = 10;
const FULL = 13;
const CANNOT_OPEN = 14;

const CREATE_MIGRATIONS = `
  CREATE TABLE IF NOT EXISTS boundary_usage_migrations (
    version BIGINT PRIMARY KEY,
    description TEXT NOT NULL,
    installed_on TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
    success BOOLEAN NOT NULL,
    checksum BLOB NOT NULL,
    execution_time BIGINT NOT NULL
  )`;

const INSERT_APPLIED = `
  INSERT INTO boundary_usage_migrations (version, description, success, checksum, execution_time)
  VALUES (:version, :name, TRUE, :checksum, -1)`;

const INSERT_KEY = "INSERT INTO boundary_usage_deployment (hashing_key) VALUES (:key) ON CONFLICT DO NOTHING";

const TABLE_EXISTS = "SELECT name FROM sqlite_master WHERE name = 'boundary_usage_migrations'";

const READ = `
  SELECT r.last_flush, s.unique_workspaces_count, s.unique_users_count, s.workspaces_sketch, s.users_sketch
  FROM (SELECT :replica AS replica_id) AS asked
  LEFT JOIN boundary_usage_replicas AS r ON r.replica_id = asked.replica_id
  LEFT JOIN boundary_usage_stats AS s ON s.replica_id = asked.replica_id`;

function updating(sets: string): string {
  return `
    UPDATE boundary_usage_stats SET
      allowed_requests = allowed_requests + min(:allowed, 9223372036854775807 - allowed_requests),
      denied_requests = denied_requests + min(:denied, 9223372036854775807 - denied_requests),
      ${sets}
      updated_at = strftime('%Y-%m-%dT%H:%M:%f000Z', 'now')
    WHERE replica_id = :replica
      AND (SELECT last_flush FROM boundary_usage_replicas WHERE replica_id = :replica) < :flush`;
}

/** Writes the row. */
const WRITE = {
  delta: `
    INSERT INTO boundary_usage_stats (
      replica_id, allowed_requests, denied_requests, unique_workspaces_count, unique_users_count,
      workspaces_sketch, users_sketch
    )
    SELECT :replica, :allowed, :denied, :workspaces, :users, :workspaces_sketch, :users_sketch
    WHERE NOT EXISTS (SELECT 1 FROM boundary_usage_replicas WHERE replica_id = :replica AND last_flush >= :flush)
    ON CONFLICT (replica_id) DO NOTHING`,
  cumulative: updating(`
      unique_workspaces_count = :workspaces,
      unique_users_count = :users,
      workspaces_sketch = :workspaces_sketch,
      users_sketch = :users_sketch,`),
  unchanged: updating(""),
};

/** Comes after one of those, and answers a row if that has changed one. */
const RECORD_FLUSH = `
  INSERT INTO boundary_usage_replicas (replica_id, last_flush, flushed_at)
  SELECT :replica, :flush, strftime('%Y-%m-%dT%H:%M:%f000Z', 'now') WHERE changes() > 0
  ON CONFLICT (replica_id) DO UPDATE SET last_flush = excluded.last_flush, flushed_at = excluded.flushed_at
  RETURNING replica_id`;

type Arguments = Record<string, SQLInputValue>;

/** One connection: at most one transaction uses it at a time. */
class Connection {
  readonly path: string;
  readonly #driver: DatabaseSync;
  readonly #file: string | undefined;
  readonly #log: string;
  #logFile: string | undefined;

  constructor(path: string, create: boolean) {
    this.path = path;
    const action = "opening the database file";
    const before = identity(path);
    if (before === undefined && !create) {
      throw new BoundaryUsageError("unavailable", `there is no database file \`${path}\`, and mode=rw creates none`);
    }
    const file = pathToFileURL(path);
    file.search = create ? "mode=rwc" : "mode=rw";
    this.#driver = guarded(action, path, () => new DatabaseSync(file, { timeout: 0 }));
    this.#file = identity(path);
    if (this.#file === undefined || (before !== undefined && before !== this.#file)) {
      this.close();
      throw replaced(path);
    }
    this.#log = `${realpathSync(path)}-wal`;
  }

  /**
   * Fails if the file or its write-ahead log is no longer the one that is open: whatever is written to a deleted file
   * is lost. To be called while a transaction holds the file, because only then the log is sure to exist.
   */
  checkFile(): void {
    this.#logFile ??= identity(this.#log);
    if (identity(this.path) !== this.#file || identity(this.#log) !== this.#logFile) {
      throw replaced(this.path);
    }
  }

  execute(action: string, sql: string): void {
    guarded(action, this.path, () => this.#driver.exec(sql));
  }

  /** Runs a statement that answers at most one row. */
  row(action: string, sql: string, values: Arguments = {}): Record<string, unknown> | undefined {
    return this.rows(action, sql, values)[0];
  }

  rows(action: string, sql: string, values: Arguments = {}): Record<string, unknown>[] {
    return guarded(action, this.path, () => {
      const statement = this.#driver.prepare(sql);
      statement.setReadBigInts(true);
      return statement.all(values);
    });
  }

  /** Asks again while another writer has the file. */
  async whenFree(action: string, sql: string): Promise<void> {
    for (const ends = performance.now() + BUSY_LIMIT; ;) {
      try {
        this.execute(action, sql);
        return;
      } catch (error) {
        if (!(error instanceof BoundaryUsageError) || error.kind !== "conflict" || performance.now() >= ends) {
          throw error;
        }
        await sleep(BUSY_RETRY);
      }
    }
  }

  close(): void {
    this.#driver.close();
  }
}

/** A SQLite file. */
export class Sqlite implements Database {
  readonly #path: string;
  readonly #create: boolean;
  readonly #idle: Connection[] = [];
  #key: Uint8Array | undefined;

  private constructor({ path, create }: SqliteFile) {
    this.#path = resolve(path);
    this.#create = create;
  }

  /** Opens the file or creates it, and brings the schema up to date. */
  static async connect(url: string): Promise<Sqlite> {
    const database = new Sqlite(sqliteFile(url));
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
      await connection.whenFree("opening a transaction", "BEGIN IMMEDIATE");
      connection.checkFile();
    } catch (error) {
      connection.close();
      // The others may have the same fault.
      await this.close();
      throw error;
    }
    return new SqliteTransaction(connection, this.#idle);
  }

  async close(): Promise<void> {
    this.#idle.splice(0).forEach((connection) => connection.close());
  }

  async #readKey(): Promise<Uint8Array> {
    const connection = this.#idle.pop() ?? (await this.#open());
    const key = keyOf(connection);
    this.#idle.push(connection);
    return key;
  }

  /**
   * Opens the file. One that has come in the place of another must have the same hashing key, and one that is missing
   * is created with it: so no activity is lost that comes after.
   */
  async #open(): Promise<Connection> {
    const connection = new Connection(this.#path, this.#create);
    try {
      // To turn the write-ahead log on takes the file for oneself, too.
      await connection.whenFree("opening the database file", "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL");
      await bringUpToDate(connection, this.#key);
      if (this.#key !== undefined && !Buffer.from(keyOf(connection)).equals(this.#key)) {
        throw otherKey();
      }
    } catch (error) {
      connection.close();
      throw error;
    }
    return connection;
  }
}

function keyOf(connection: Connection): Uint8Array {
  return checkedKey(connection.row("reading the hashing key", SELECT_KEY)?.["hashing_key"] as Uint8Array | undefined);
}

/** What tells a file from another one of the same name; none if there is no file. */
function identity(path: string): string | undefined {
  const found = statSync(path, { bigint: true, throwIfNoEntry: false });
  return found && `${found.dev}:${found.ino}`;
}

function replaced(path: string): BoundaryUsageError {
  const hint = "the next flush opens what is there; to restore a backup, stop all processes that use the file first";
  const message = `the database file \`${path}\` or its log was deleted or replaced while it was open; ${hint}`;
  return new BoundaryUsageError("unavailable", message);
}

async function bringUpToDate(connection: Connection, key = randomKey()): Promise<void> {
  const action = "bringing the schema up to date";
  const known = await migrations("sqlite");
  if (missing(known, applied(connection)).length === 0) {
    return;
  }
  await connection.whenFree(action, "BEGIN IMMEDIATE");
  connection.execute(action, CREATE_MIGRATIONS);
  // Looked up again: another process may have migrated since.
  for (const { version, name, checksum, sql } of missing(known, applied(connection))) {
    connection.execute(action, sql);
    connection.row(action, INSERT_APPLIED, { version, name, checksum });
  }
  connection.row(action, INSERT_KEY, { key });
  connection.execute(action, "COMMIT");
}

function applied(connection: Connection): Applied[] {
  const action = "reading the schema's version";
  if (connection.row(action, TABLE_EXISTS) === undefined) {
    return [];
  }
  const rows = connection.rows(action, SELECT_APPLIED);
  return rows.map((row) => ({ version: Number(row["version"]), checksum: row["checksum"] as Uint8Array }));
}

/** An open transaction, and the connection that it runs on. */
class SqliteTransaction implements Transaction {
  readonly #connection: Connection;
  readonly #idle: Connection[];

  constructor(connection: Connection, idle: Connection[]) {
    this.#connection = connection;
    this.#idle = idle;
  }

  /** The transaction holds everything since it began. */
  async acquireCutover(): Promise<void> {}

  /** The transaction holds everything since it began. */
  async acquireReplica(): Promise<void> {}

  async read(replica: string): Promise<Stored> {
    const row = this.#connection.row("reading the stored usage", READ, { replica });
    return stored(row as unknown as StoredRow);
  }

  async upsert(replica: string, update: Update): Promise<void> {
    const { flush, uniques, allowed, denied } = update;
    const sets = uniques.tag === "unchanged" ? {} : cells(uniques.val);
    this.#connection.row("writing usage", WRITE[uniques.tag], { replica, flush, allowed, denied, ...sets });
    if (this.#connection.row("writing usage", RECORD_FLUSH, { replica, flush }) === undefined) {
      throw oldFlush(replica, flush);
    }
  }

  async commit(): Promise<void> {
    try {
      this.#connection.checkFile();
    } catch (error) {
      // This rolls back.
      this.#connection.close();
      throw error;
    }
    try {
      this.#connection.execute("committing", "COMMIT");
    } catch (error) {
      this.#connection.close();
      // A write that failed may have reached the log all the same, for the next process to find.
      const code = codeOf((error as Error).cause);
      throw code === undefined || code === IO ? commitUnknown(error) : error;
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

function cells({ workspaces, users }: Uniques): Arguments {
  const sketches = { workspaces_sketch: workspaces.sketch, users_sketch: users.sketch };
  return { workspaces: workspaces.count, users: users.count, ...sketches };
}

/** The primary result code; none when the driver itself has failed. */
function codeOf(error: unknown): number | undefined {
  const code = (error as { errcode?: unknown } | undefined)?.errcode;
  return typeof code === "number" ? code & 0xff : undefined;
}

/** Runs a call of the driver; its errors become ours. Nothing was applied then, unless it was a commit. */
function guarded<T>(action: string, path: string, call: () => T): T {
  try {
    return call();
  } catch (error) {
    const code = codeOf(error);
    const kinds: Record<number, ErrorKind> = {
      [BUSY]: "conflict",
      [LOCKED]: "conflict",
      [INTERRUPTED]: "unavailable",
      [IO]: "unavailable",
      [FULL]: "unavailable",
      [CANNOT_OPEN]: "unavailable",
    };
    const kind = (code !== undefined && kinds[code]) || "refused";
    const hints: Record<string, string> = {
      conflict: "; another transaction has the file",
      unavailable: "; see that this user may write the file and its directory, and that the disk has room",
    };
    const message = `${action} failed: \`${path}\`: ${messageOf(error)}${hints[kind] ?? ""}`;
    throw new BoundaryUsageError(kind, message, { cause: error });
  }
}
