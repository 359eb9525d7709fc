/** A database in memory, so that a measurement contains only this package and the component. */

import { setTimeout as sleep } from "node:timers/promises";

import type { Database, StoredUsage, Transaction, Update } from "boundary-usage";

/** A database of one replica. Each call takes the same time, and the database adds up the times of its calls. */
export class MemoryDatabase implements Database {
  /** The time of all calls so far, in milliseconds. */
  elapsed = 0;
  readonly #wait: number;
  #stored: StoredUsage = { lastFlush: 0n };

  /** `wait` is the time of each call in milliseconds. */
  constructor(wait = 0) {
    this.#wait = wait;
  }

  async hashingKey(): Promise<Uint8Array> {
    return new Uint8Array(16).fill(7);
  }

  async begin(): Promise<Transaction> {
    let written: Update | undefined;
    await this.#call();
    return {
      acquireCutover: () => this.#call(),
      acquireReplica: () => this.#call(),
      read: async () => {
        await this.#call();
        return this.#stored;
      },
      upsert: async (_, update) => {
        await this.#call();
        written = update;
      },
      commit: async () => {
        await this.#call();
        if (written !== undefined) {
          const { flush, uniques } = written;
          const sets = uniques.tag === "unchanged" ? this.#stored.uniques : uniques.val;
          this.#stored = { lastFlush: flush, ...(sets && { uniques: sets }) };
        }
      },
      rollback: () => this.#call(),
    };
  }

  async close(): Promise<void> {}

  async #call(): Promise<void> {
    const start = performance.now();
    if (this.#wait > 0) {
      await sleep(this.#wait);
    }
    this.elapsed += performance.now() - start;
  }
}
