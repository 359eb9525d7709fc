/**
 * What the component can do: the imports of its world, each with the checks that keep it to its own replica.
 *
 * A component is not trusted. Nothing here knows the component's runtime; `component` translates.
 */

import type { Account } from "./account.ts";
import type { Database, Transaction } from "./database/index.ts";
import { BoundaryUsageError, isAnswer } from "./errors.ts";
import { REQUESTS_MAX, type StoredUsage, type UniqueSet, type Update } from "./usage.ts";

/** The longest sketch of the contract, in bytes. */
const SKETCH_BYTES_MAX = 131_096;

/** The functions behind one instance of the component. At most one transaction is open. */
export class Capabilities {
  readonly #replica: string;
  readonly #database: Database;
  readonly #account: Account;
  #flushing = false;
  #awaitsSnapshot = false;
  #opening: Promise<Transaction> | undefined;
  #transaction: Transaction | undefined;
  #ending: Promise<void> = Promise.resolve();
  #granted = new Set<string>();
  #stored: StoredUsage | undefined;
  #commitSent = false;
  #isCommitted = false;
  #breach: string | undefined;

  constructor(replica: string, database: Database, account: Account) {
    this.#replica = replica;
    this.#database = database;
    this.#account = account;
  }

  /** One commit for each flush that the host asks for. */
  flushBegins(): void {
    this.#flushing = true;
    this.#awaitsSnapshot = true;
    this.#commitSent = false;
    this.#isCommitted = false;
  }

  /** Whether a flush has been called and has not taken its snapshot: that it has when it begins a transaction. */
  get awaitsSnapshot(): boolean {
    return this.#awaitsSnapshot;
  }

  /**
   * Rolls back what the component has left open, and refuses transactions until the next flush. Returns how the component
   * has broken the contract, if it has.
   */
  async flushEnds(): Promise<string | undefined> {
    this.#flushing = false;
    this.#awaitsSnapshot = false;
    const isOpen = this.#opening !== undefined || this.#transaction !== undefined;
    // One that is being opened must not stay open when it is.
    await this.#opening?.catch(() => undefined);
    await this.rollBack();
    this.#account.flushEnds();
    const breach = this.#breach;
    this.#breach = undefined;
    return breach ?? (isOpen ? "it ended its flush and left its transaction open" : undefined);
  }

  /** Whether the commit of this flush was acknowledged. */
  get isCommitted(): boolean {
    return this.#isCommitted;
  }

  /** Opens the transaction. */
  async begin(replica: string): Promise<void> {
    if (replica !== this.#replica) {
      throw refused(`replica ${replica} is not the component's own`);
    }
    if (!this.#flushing) {
      throw refused("no flush is running");
    }
    if (this.#opening !== undefined || this.#transaction !== undefined) {
      throw refused("the component has a transaction open");
    }
    if (this.#commitSent) {
      throw refused("this flush has sent its commit");
    }
    if (!this.#account.flushBegins()) {
      throw refused("there is nothing to flush");
    }
    this.#awaitsSnapshot = false;
    this.#granted = new Set();
    this.#stored = undefined;
    this.#opening = this.#ending.then(() => this.#database.begin());
    try {
      this.#transaction = await this.#opening;
    } finally {
      this.#opening = undefined;
    }
  }

  /** Takes a lock for the transaction. */
  async acquire(lock: string, mode: string): Promise<void> {
    const transaction = this.#open();
    if (lock === "cutover" && mode === "shared") {
      await transaction.acquireCutover();
    } else if (lock === "replica" && mode === "exclusive") {
      await transaction.acquireReplica(this.#replica);
    } else {
      const rule =
        lock === "cutover" ? "only a collection holds the cutover lock alone" : "a replica's lock is exclusive";
      throw refused(rule);
    }
    this.#granted.add(lock);
  }

  /** Reads what is stored of the replica. */
  async read(): Promise<StoredUsage> {
    const transaction = this.#open();
    if (!this.#granted.has("replica")) {
      throw refused("to read needs the replica's lock");
    }
    const stored = checkStored(await transaction.read(this.#replica));
    this.#granted.add("read");
    this.#stored = stored;
    this.#account.lastFlushRead(this.#replica, stored.lastFlush);
    return stored;
  }

  /** Writes the replica's row; answers whether it is new. */
  async upsert(update: Update): Promise<boolean> {
    const transaction = this.#open();
    if (!["cutover", "replica", "read"].every((needed) => this.#granted.has(needed))) {
      throw refused("to upsert needs the cutover lock, the replica's lock, and a read");
    }
    if (this.#granted.has("upserted")) {
      throw refused("the transaction has an upsert already");
    }
    if (this.#stored === undefined) {
      throw refused("to upsert needs a read");
    }
    const expected = this.#account.update(this.#stored);
    if (expected === undefined) {
      throw refused("the stored sketch of this replica is damaged");
    }
    const difference = differenceOf(update, expected);
    if (difference !== undefined) {
      this.#breach = difference;
      throw refused(difference);
    }
    const newPeriod = update.uniques.tag === "delta";
    await transaction.upsert(this.#replica, update);
    this.#granted.add("upserted");
    return newPeriod;
  }

  /** Ends the transaction and makes its update last. */
  async commit(): Promise<void> {
    const transaction = this.#open();
    if (!this.#granted.has("upserted")) {
      await this.rollBack();
      throw refused("there is nothing to commit");
    }
    this.#transaction = undefined;
    this.#commitSent = true;
    this.#account.commitSent();
    try {
      await transaction.commit();
    } catch (error) {
      if (isAnswer(error) && error.kind !== "commit-unknown") {
        this.#account.commitAnswered("rolled-back");
      }
      throw error;
    }
    this.#account.commitAnswered("committed");
    this.#isCommitted = true;
  }

  /** Ends the transaction, if one is open, without its update. */
  rollBack(): Promise<void> {
    const transaction = this.#transaction;
    this.#transaction = undefined;
    if (transaction !== undefined) {
      this.#ending = transaction.rollback();
    }
    return this.#ending;
  }

  #open(): Transaction {
    if (this.#transaction === undefined) {
      throw refused("the component has no transaction open");
    }
    return this.#transaction;
  }
}

function refused(message: string): BoundaryUsageError {
  return new BoundaryUsageError("refused", message);
}

/** What a database returns must fit the contract: a value that does not would break the component. */
function checkStored({ lastFlush, uniques }: StoredUsage): StoredUsage {
  const isCount = (count: unknown) => typeof count === "bigint" && count >= 0n && count <= REQUESTS_MAX;
  const sets = uniques === undefined ? [] : [uniques.workspaces, uniques.users];
  const isSet = ({ count, sketch }: UniqueSet) => {
    return isCount(count) && sketch instanceof Uint8Array && sketch.length <= SKETCH_BYTES_MAX;
  };
  if (!isCount(lastFlush) || !sets.every(isSet)) {
    throw refused("the database's rows of this replica are damaged: a count or a sketch is out of range; repair them");
  }
  return uniques === undefined ? { lastFlush } : { lastFlush, uniques };
}

/** A component is not trusted: what it writes must be what the host's own account says. Sketches are merged by all. */
function differenceOf(update: Update, expected: Update): string | undefined {
  const differs = (what: string, its: unknown, own: unknown) => {
    return `its ${what} is ${its}, and the host's own account says ${own}`;
  };
  const numbers = [
    ["flush number", "flush"],
    ["count of allowed requests", "allowed"],
    ["count of denied requests", "denied"],
  ] as const;
  for (const [what, name] of numbers) {
    if (update[name] !== expected[name]) {
      return differs(what, update[name], expected[name]);
    }
  }
  if (update.uniques.tag !== expected.uniques.tag) {
    return differs("update of the unique ids", update.uniques.tag, expected.uniques.tag);
  }
  if (update.uniques.tag === "unchanged" || expected.uniques.tag === "unchanged") {
    return undefined;
  }
  for (const name of ["workspaces", "users"] as const) {
    const [its, own] = [update.uniques.val[name], expected.uniques.val[name]];
    if (its.count !== own.count) {
      return differs(`count of unique ${name}`, its.count, own.count);
    }
    if (!Buffer.from(its.sketch).equals(own.sketch)) {
      return differs(`sketch of ${name}`, `${its.sketch.length} bytes`, `${own.sketch.length} other bytes`);
    }
  }
  return undefined;
}
