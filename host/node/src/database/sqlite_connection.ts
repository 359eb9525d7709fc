/**
 * One connection to a SQLite file, and the identity of that file.
 *
 * The driver blocks the thread, so it never waits for a lock itself. Instead, a statement is repeated until the lock is
 * free, and other work runs between the attempts.
 */

import { realpathSync, statSync } from "node:fs";
import { DatabaseSync } from "node:sqlite";
import { setTimeout as sleep } from "node:timers/promises";
import { pathToFileURL } from "node:url";

import { BoundaryUsageError, type ErrorKind, messageOf } from "../errors.ts";
import type { Argument } from "./rows.ts";

/** The longest wait for another writer, and the time between two attempts, in milliseconds. */
const BUSY_LIMIT = 5_000;
const BUSY_RETRY = 10;

// Primary result codes of SQLite.
const BUSY = 5;
const LOCKED = 6;
const INTERRUPTED = 9;
const IO = 10;
const FULL = 13;
const CANNOT_OPEN = 14;

const KINDS: Readonly<Record<number, ErrorKind>> = {
  [BUSY]: "conflict",
  [LOCKED]: "conflict",
  [INTERRUPTED]: "unavailable",
  [IO]: "unavailable",
  [FULL]: "unavailable",
  [CANNOT_OPEN]: "unavailable",
};

const HINTS: Readonly<Record<string, string>> = {
  conflict: "; another transaction holds the file, and the next flush tries again",
  unavailable: "; make sure that this user may write the file and its directory, and that the disk has room",
};

/** A connection, which at most one transaction uses at a time. */
export class SqliteConnection {
  readonly #path: string;
  readonly #driver: DatabaseSync;
  readonly #file: string | undefined;
  readonly #log: string;
  #logFile: string | undefined;

  /** Opens the file. With `create`, a missing file is created. */
  constructor(path: string, create: boolean) {
    this.#path = path;
    const before = identityOf(path);
    if (before === undefined && !create) {
      const message = `there is no database file \`${path}\`, and mode=rw does not create one`;
      throw new BoundaryUsageError("unavailable", message);
    }
    const file = pathToFileURL(path);
    file.search = create ? "mode=rwc" : "mode=rw";
    this.#driver = this.#guard("opening the database file", () => new DatabaseSync(file, { timeout: 0 }));
    this.#file = identityOf(path);
    if (this.#file === undefined || (before !== undefined && before !== this.#file)) {
      this.close();
      throw replaced(path);
    }
    this.#log = `${realpathSync(path)}-wal`;
  }

  /**
   * Throws `unavailable` if the path leads to another file or log than the open one, because writes would be lost.
   *
   * Call it inside a transaction: otherwise the log may not exist yet.
   */
  checkFile(): void {
    this.#logFile ??= identityOf(this.#log);
    if (identityOf(this.#path) !== this.#file || identityOf(this.#log) !== this.#logFile) {
      throw replaced(this.#path);
    }
  }

  /** Runs statements without arguments and results. */
  execute(action: string, sql: string): void {
    this.#guard(action, () => this.#driver.exec(sql));
  }

  /** Runs a statement that returns at most one row, and returns that row. */
  row(action: string, sql: string, values: Argument[] = []): Record<string, unknown> | undefined {
    return this.rows(action, sql, values)[0];
  }

  /** Runs a statement and returns its rows. The values belong to its parameters `?1`, `?2` and so on. */
  rows(action: string, sql: string, values: Argument[] = []): Record<string, unknown>[] {
    const named = Object.fromEntries(values.map((value, index) => [`?${index + 1}`, value]));
    return this.#guard(action, () => {
      const statement = this.#driver.prepare(sql);
      statement.setReadBigInts(true);
      return statement.all(named);
    });
  }

  /** Runs statements, and repeats them while another writer holds the file, up to a limit. */
  async executeWhenFree(action: string, sql: string): Promise<void> {
    for (const deadline = performance.now() + BUSY_LIMIT; ;) {
      try {
        this.execute(action, sql);
        return;
      } catch (error) {
        const isBusy = error instanceof BoundaryUsageError && error.kind === "conflict";
        if (!isBusy || performance.now() >= deadline) {
          throw error;
        }
        await sleep(BUSY_RETRY);
      }
    }
  }

  /** Closes the connection, and rolls back its transaction. */
  close(): void {
    this.#driver.close();
  }

  /** Calls the driver and converts its errors. */
  #guard<T>(action: string, call: () => T): T {
    try {
      return call();
    } catch (error) {
      const code = resultCodeOf(error);
      const kind = (code !== undefined && KINDS[code]) || "refused";
      const message = `${action} failed: \`${this.#path}\`: ${messageOf(error)}${HINTS[kind] ?? ""}`;
      throw new BoundaryUsageError(kind, message, { cause: error });
    }
  }
}

/** Whether a commit that failed with this error may have been applied. */
export function mayHaveCommitted(error: unknown): boolean {
  const code = resultCodeOf((error as Error).cause);
  // A failed write may have reached the log, where the next process applies it.
  return code === undefined || code === IO;
}

/** Returns the primary result code, or `undefined` if the driver itself failed. */
function resultCodeOf(error: unknown): number | undefined {
  const code = (error as { errcode?: unknown } | undefined)?.errcode;
  return typeof code === "number" ? code & 0xff : undefined;
}

/** Returns the device and inode of a file, or `undefined` if there is no file. */
function identityOf(path: string): string | undefined {
  const found = statSync(path, { bigint: true, throwIfNoEntry: false });
  return found && `${found.dev}:${found.ino}`;
}

function replaced(path: string): BoundaryUsageError {
  const what = `the database file \`${path}\` or its log was deleted or replaced while it was open`;
  const hint = "the next flush opens the file that is there then; before you restore a backup, stop all its users";
  return new BoundaryUsageError("unavailable", `${what}; ${hint}`);
}
