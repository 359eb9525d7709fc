/**
 * The capabilities of the component: a transaction for the usage of its own replica, and two locks.
 *
 * The host does not trust the component, so each call is checked before it does its work. The module `component`
 * converts between these functions and the component runtime.
 */

import type { Database, Transaction } from "./database/database.ts";
import { BoundaryUsageError, isContractError } from "./errors.ts";
import type { Ledger } from "./ledger.ts";
import type { StoredUsage, Update } from "./usage.ts";
import { differenceOf, validateStored } from "./validation.ts";

/** An open transaction, and the state of its calls. */
interface OpenTransaction {
  readonly transaction: Transaction;
  readonly locks: Set<string>;
  stored?: StoredUsage;
  isWritten: boolean;
}

/**
 * The functions that one instance of the component may call.
 *
 * At most one transaction is open. Database calls run one after the other, and each one completes, even if the
 * component crashes meanwhile.
 */
export class Capabilities {
  readonly #replica: string;
  readonly #database: Database;
  readonly #ledger: Ledger;
  #isFlushing = false;
  #awaitsSnapshot = false;
  /** Resolves when all earlier database calls are complete. */
  #queue: Promise<unknown> = Promise.resolve();
  #open: OpenTransaction | undefined;
  #hasSentCommit = false;
  #isCommitted = false;
  #violation: string | undefined;

  constructor(replica: string, database: Database, ledger: Ledger) {
    this.#replica = replica;
    this.#database = database;
    this.#ledger = ledger;
  }

  /** Allows one transaction and one commit. The host calls it before each flush. */
  beginFlush(): void {
    this.#isFlushing = true;
    this.#awaitsSnapshot = true;
    this.#hasSentCommit = false;
    this.#isCommitted = false;
  }

  /**
   * Whether a flush was called and has not taken its snapshot yet. A flush takes its snapshot before it calls `begin`.
   */
  get awaitsSnapshot(): boolean {
    return this.#awaitsSnapshot;
  }

  /** Whether the database has confirmed the commit of this flush. */
  get isCommitted(): boolean {
    return this.#isCommitted;
  }

  /**
   * Waits for a running database call, rolls back an open transaction, and refuses new ones until the next flush.
   *
   * Returns the component's violation of its contract, if any.
   */
  async endFlush(): Promise<string | undefined> {
    this.#isFlushing = false;
    this.#awaitsSnapshot = false;
    const wasOpen = await this.#enqueue(() => this.#rollBack());
    this.#ledger.endFlush();
    const violation = this.#violation ?? (wasOpen ? "it ended its flush and left its transaction open" : undefined);
    this.#violation = undefined;
    return violation;
  }

  /** Begins the transaction of a flush. */
  async begin(replica: string): Promise<void> {
    // The component has taken its snapshot. Later activity belongs to the next flush, even if this call has to wait.
    const isDue = this.#isFlushing && this.#ledger.takeSnapshot();
    this.#awaitsSnapshot = false;
    await this.#enqueue(async () => {
      if (replica !== this.#replica) {
        throw refused(`replica ${replica} is not the component's own`);
      }
      if (!this.#isFlushing) {
        throw refused("no flush is running");
      }
      if (this.#open !== undefined) {
        throw refused("another transaction is open");
      }
      if (this.#hasSentCommit) {
        throw refused("this flush has sent its commit");
      }
      if (!isDue) {
        throw refused("there is nothing to flush");
      }
      this.#open = { transaction: await this.#database.begin(), locks: new Set(), isWritten: false };
    });
  }

  /** Acquires a lock for the transaction. */
  acquire(lock: string, mode: string): Promise<void> {
    return this.#enqueue(async () => {
      const { transaction, locks } = this.#opened();
      if (lock === "cutover" && mode === "shared") {
        await transaction.acquireCutover();
      } else if (lock === "replica" && mode === "exclusive") {
        await transaction.acquireReplica(this.#replica);
      } else if (lock === "cutover") {
        throw refused("only a collection acquires the cutover lock in exclusive mode");
      } else {
        throw refused("the lock of a replica is exclusive");
      }
      locks.add(lock);
    });
  }

  /** Reads the stored usage of the replica. */
  read(): Promise<StoredUsage> {
    return this.#enqueue(async () => {
      const open = this.#opened();
      if (!open.locks.has("replica")) {
        throw refused("a read needs the lock of the replica");
      }
      open.stored = validateStored(await open.transaction.read(this.#replica));
      this.#ledger.resolve(this.#replica, open.stored.lastFlush);
      return open.stored;
    });
  }

  /** Writes the replica's row, and returns whether it is new in the open period. */
  upsert(update: Update): Promise<boolean> {
    return this.#enqueue(async () => {
      const open = this.#opened();
      if (!open.locks.has("cutover") || !open.locks.has("replica") || open.stored === undefined) {
        throw refused("an upsert needs the cutover lock, the lock of the replica, and a read");
      }
      if (open.isWritten) {
        throw refused("the transaction has written an update");
      }
      const expected = this.#ledger.updateOf(open.stored);
      if (expected === undefined) {
        throw refused("a stored sketch of this replica is damaged; repair the row");
      }
      const difference = differenceOf(update, expected);
      if (difference !== undefined) {
        this.#violation = difference;
        throw refused(difference);
      }
      await open.transaction.upsert(this.#replica, update);
      open.isWritten = true;
      return update.uniques.tag === "delta";
    });
  }

  /** Commits the transaction. */
  commit(): Promise<void> {
    return this.#enqueue(async () => {
      const { transaction, isWritten } = this.#opened();
      if (!isWritten) {
        await this.#rollBack();
        throw refused("there is nothing to commit");
      }
      this.#open = undefined;
      this.#hasSentCommit = true;
      this.#ledger.sendCommit();
      try {
        await transaction.commit();
      } catch (error) {
        // Any other error leaves the outcome unknown.
        if (isContractError(error) && error.kind !== "commit-unknown") {
          this.#ledger.receiveReply("rolled-back");
        }
        throw error;
      }
      this.#ledger.receiveReply("committed");
      this.#isCommitted = true;
    });
  }

  /** Rolls back the transaction, if one is open. Never fails. */
  async drop(): Promise<void> {
    await this.#enqueue(() => this.#rollBack());
  }

  /** Returns whether a transaction was open. */
  async #rollBack(): Promise<boolean> {
    const open = this.#open;
    this.#open = undefined;
    await open?.transaction.rollback();
    return open !== undefined;
  }

  #opened(): OpenTransaction {
    if (this.#open === undefined) {
      throw refused("no transaction is open");
    }
    return this.#open;
  }

  /** Calls a function after all earlier calls are complete. */
  #enqueue<T>(call: () => Promise<T>): Promise<T> {
    const result = this.#queue.then(call);
    this.#queue = result.catch(() => undefined);
    return result;
  }
}

function refused(message: string): BoundaryUsageError {
  return new BoundaryUsageError("refused", message);
}
