/**
 * A database that fails on request, in front of a real one.
 */

import { BoundaryUsageError, type Database, type ErrorKind, type Transaction, type Update } from "boundary-usage";

/** A database with a queue of faults. */
export class Faults implements Database {
  /** The next faults: `begin`, `acquire`, `read`, `upsert`, `commit`, `commit-lost` or `commit-reply-lost`. */
  readonly queue: string[] = [];
  /** The number of begun transactions. */
  begun = 0;
  /** Each upsert waits for this promise. */
  upsertGate: Promise<unknown> = Promise.resolve();
  /** Each reply to a commit waits for this promise. */
  replyGate: Promise<unknown> = Promise.resolve();
  /** Called when an upsert reaches its gate. */
  onUpsert: () => void = () => {};
  /** Called when the reply to a commit reaches its gate. */
  onReply: () => void = () => {};
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  /** Removes the next fault from the queue if it belongs to this step. Returns whether it does. */
  take(step: string): boolean {
    const isNext = this.queue[0] === step;
    if (isNext) {
      this.queue.shift();
    }
    return isNext;
  }

  hashingKey(): Promise<Uint8Array> {
    return this.#database.hashingKey();
  }

  async begin(): Promise<Transaction> {
    this.begun += 1;
    if (this.take("begin")) {
      throw injected("unavailable");
    }
    return faultyTransaction(this, await this.#database.begin());
  }

  close(): Promise<void> {
    return this.#database.close();
  }
}

function injected(kind: ErrorKind): BoundaryUsageError {
  return new BoundaryUsageError(kind, "injected by the test");
}

function faultyTransaction(faults: Faults, inner: Transaction): Transaction {
  return {
    async acquireCutover() {
      if (faults.take("acquire")) {
        throw injected("conflict");
      }
      await inner.acquireCutover();
    },
    acquireReplica: (replica) => inner.acquireReplica(replica),
    async read(replica) {
      if (faults.take("read")) {
        throw injected("unavailable");
      }
      return inner.read(replica);
    },
    async upsert(replica: string, update: Update) {
      faults.onUpsert();
      await faults.upsertGate;
      if (faults.take("upsert")) {
        throw injected("unavailable");
      }
      return inner.upsert(replica, update);
    },
    async commit() {
      for (const [step, kind] of [
        ["commit", "unavailable"],
        ["commit-lost", "commit-unknown"],
      ] as const) {
        if (faults.take(step)) {
          await inner.rollback();
          throw injected(kind);
        }
      }
      await inner.commit();
      faults.onReply();
      await faults.replyGate;
      if (faults.take("commit-reply-lost")) {
        throw injected("commit-unknown");
      }
    },
    rollback: () => inner.rollback(),
  };
}
