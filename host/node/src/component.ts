/**
 * The component: loaded and compiled once, instantiated for each tracker.
 *
 * This is the only module that knows what jco makes of the component, which is the file that `boundary-usage component`
 * writes. The folder `dist/component` is made by `npm run build`.
 */

import { readFile } from "node:fs/promises";

import { instantiate, type Root } from "../dist/component/tracker.js";

import type { Account, LeftOver } from "./account.ts";
import { Capabilities } from "./capabilities.ts";
import type { Database } from "./database/index.ts";
import { BoundaryUsageError, type ErrorKind, isAnswer, isAnswerKind, messageOf, printable } from "./errors.ts";
import { type Activity, type Flushed, type Halves, halves, hyphenated, type StoredUsage, type Update } from "./usage.ts";

const modules = new Map<string, Promise<WebAssembly.Module>>();

function compiled(name: string): Promise<WebAssembly.Module> {
  let module = modules.get(name);
  if (module === undefined) {
    module = readFile(new URL(`../dist/component/${name}`, import.meta.url)).then((bytes) =>
      WebAssembly.compile(bytes),
    );
    modules.set(name, module);
  }
  return module;
}

/** A running component. `track` may be called while `flush` waits, but not before it has taken its snapshot. */
export class Instance {
  readonly #replica: Halves;
  readonly #capabilities: Capabilities;
  readonly #account: Account;
  readonly #root: Root;
  /** Ends the flush that runs. */
  #breakFlush: (broken: BoundaryUsageError) => void = () => {};
  #settled: Promise<unknown> = Promise.resolve();

  private constructor(replica: Halves, capabilities: Capabilities, account: Account, root: Root) {
    this.#replica = replica;
    this.#capabilities = capabilities;
    this.#account = account;
    this.#root = root;
  }

  /** Instantiates the component for this replica on this database. It starts from what the account holds. */
  static async start(replica: string, database: Database, key: Uint8Array, account: Account): Promise<Instance> {
    const own = halves(replica, "replica id");
    const capabilities = new Capabilities(hyphenated(own), database, account);
    try {
      const root = await instantiate(compiled, imports(capabilities, key, account.leftOver()));
      return new Instance(own, capabilities, account, root);
    } catch (error) {
      throw new BoundaryUsageError("component", `cannot load the component: ${messageOf(error)}`, { cause: error });
    }
  }

  /** Whether activities can be handed over: not while a flush has been called and has not taken its snapshot. */
  get takesActivities(): boolean {
    return !this.#capabilities.awaitsSnapshot;
  }

  /** Resolves when no flush of this instance runs. */
  settled(): Promise<unknown> {
    return this.#settled;
  }

  /**
   * Hands activities to the component, and to the account first. After an error of the kind `component` the instance is
   * of no use, and its successor has the activities from the account.
   */
  track(activities: Activity[]): void {
    this.#account.record(activities);
    try {
      this.#root.track(activities);
    } catch (error) {
      const broken = broke(error);
      this.#breakFlush(broken);
      throw broken;
    }
  }

  /** Writes what was tracked since the last flush; throws the error that the component returned. */
  flush(): Promise<Flushed> {
    const flushed = this.#flushed();
    this.#settled = flushed.catch(() => undefined);
    return flushed;
  }

  async #flushed(): Promise<Flushed> {
    const hasToFlush = this.#account.hasToFlush;
    this.#capabilities.flushBegins();
    // A call of an instance that breaks meanwhile may never return.
    const { promise, resolve, reject } = Promise.withResolvers<Flushed>();
    this.#breakFlush = reject;
    this.#flush().then(resolve, reject);
    const error = await promise.then(
      () => undefined,
      (error: BoundaryUsageError) => error,
    );
    const breach = await this.#capabilities.flushEnds();
    if (error?.kind === "component") {
      throw error;
    }
    if (breach !== undefined) {
      throw broke(breach);
    }
    const { outcome } = await promise;
    if ((outcome === "idle" && hasToFlush) || (outcome === "written" && !this.#capabilities.isCommitted)) {
      throw broke(`it reports a flush as ${outcome}, which is not true`);
    }
    return promise;
  }

  async #flush(): Promise<Flushed> {
    try {
      const flushed = await this.#root.flush(this.#replica);
      switch (flushed.tag) {
        case "idle":
          return { outcome: "idle" };
        case "confirmed":
          return { outcome: "confirmed", flush: flushed.val };
        case "written":
          return { outcome: "written", ...flushed.val };
      }
    } catch (error) {
      throw answered(error) ?? broke(error);
    }
  }
}

function imports(capabilities: Capabilities, key: Uint8Array, leftOver: LeftOver): any {
  const view = new DataView(key.buffer, key.byteOffset, key.byteLength);

  class Transaction {
    static async begin(replica: Halves): Promise<Transaction> {
      await answering(capabilities.begin(hyphenated(replica)));
      return new Transaction();
    }
    static commit(_transaction: Transaction): Promise<void> {
      return answering(capabilities.commit(), "commit-unknown");
    }
    read(): Promise<StoredUsage> {
      return answering(capabilities.read());
    }
    upsert(update: Update): Promise<boolean> {
      return answering(capabilities.upsert(update));
    }
    [Symbol.dispose](): void {
      void capabilities.rollBack();
    }
  }

  // jco's types name the interfaces with their version, its code without.
  return {
    "boundary:usage/locks": {
      acquire: (_transaction: Transaction, lock: string, mode: string) => answering(capabilities.acquire(lock, mode)),
    },
    "boundary:usage/transactions": {
      hashingKey: () => [view.getBigUint64(0), view.getBigUint64(8)],
      restore: () => leftOver,
      Transaction,
    },
  };
}

/**
 * Turns a failure into an error of the contract. One of another kind has applied nothing and counts as `otherwise`; if
 * the commit may have been sent, the outcome is unknown.
 */
async function answering<T>(call: Promise<T>, otherwise: ErrorKind = "refused"): Promise<T> {
  try {
    return await call;
  } catch (error) {
    // What is thrown without a payload would break the component.
    throw { payload: { tag: isAnswer(error) ? error.kind : otherwise, val: printable(messageOf(error)) } };
  }
}

/** The error that the component returned, if it did. */
function answered(error: unknown): BoundaryUsageError | undefined {
  const { tag, val } = (error ?? {}) as { tag?: unknown; val?: unknown };
  return isAnswerKind(tag) ? new BoundaryUsageError(tag, String(val ?? "")) : undefined;
}

function broke(error: unknown): BoundaryUsageError {
  return new BoundaryUsageError("component", `the component broke: ${messageOf(error)}`, { cause: error });
}
