/**
 * A database that fails where it is told to, in front of one that does not.
 */

import { BoundaryUsageError, type Database, type ErrorKind, type Transaction, type Update } from "boundary-usage";

/** The faults to come: `begin`, `acquire`, `read`, `upsert`, `commit`, `commit-lost`, `commit-reply-lost`. */
export class Faults implements Database {
  readonly queued: string[] = [];
  /** How many transactions have been begun. */
  begun = 0;
  /** Every upsert waits for it. */
  gate: Promise<unknown> = Promise.resolve();
  /** Is called when an upsert comes to the gate. */
  onUpsert: () => void = () => {};
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  /** Whether the next fault is this one; it has then struck. */
  strikes(step: string): boolean {
    const struck = this.queued[0] === step;
    if (struck) {
      this.queued.shift();
    }
    return struck;
  }

  hashingKey(): Promise<Uint8Array> {
    return this.#database.hashingKey();
  }

  async begin(): Promise<Transaction> {
    this.begun += 1;
    if (this.strikes("begin")) {
      throw injected("unavailable");
    }
    return faulty(this, await this.#database.begin());
  }

  close(): Promise<void> {
    return this.#database.close();
  }
}

function injected(kind: ErrorKind): BoundaryUsageError {
  return new BoundaryUsageError(kind, "injected by the test");
}

function faulty(faults: Faults, inner: Transaction): Transaction {
  return {
    async acquireCutover() {
      if (faults.strikes("acquire")) {
        throw injected("conflict");
      }
      await inner.acquireCutover();
    },
    acquireReplica: (replica) => inner.acquireReplica(replica),
    async read(replica) {
      if (faults.strikes("read")) {
        throw injected("unavailable");
      }
      return inner.read(replica);
    },
    async upsert(replica: string, update: Update) {
      faults.onUpsert();
      await faults.gate;
      if (faults.strikes("upsert")) {
        throw injected("unavailable");
      }
      return inner.upsert(replica, update);
    },
    async commit() {
      for (const [step, kind] of [
        ["commit", "unavailable"],
        ["commit-lost", "commit-unknown"],
      ] as const) {
        if (faults.strikes(step)) {
          await inner.rollback();
          throw injected(kind);
        }
      }
      await inner.commit();
      if (faults.strikes("commit-reply-lost")) {
        throw injected("commit-unknown");
      }
    },
    rollback: () => inner.rollback(),
  };
}
