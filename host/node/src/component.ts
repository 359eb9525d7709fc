/**
 * The component: compiled once for each process, and instantiated for each tracker.
 *
 * This is the only module that depends on the output of jco. `npm run build` writes that output to `dist/component`.
 */

import { readFile } from "node:fs/promises";

import { instantiate, type Root } from "../dist/component/tracker.js";

import { Capabilities } from "./capabilities.ts";
import type { Database } from "./database/database.ts";
import {
  BoundaryUsageError,
  type ErrorKind,
  isContractError,
  isContractKind,
  messageOf,
  printable,
} from "./errors.ts";
import type { Ledger, Unflushed } from "./ledger.ts";
import { endWaits } from "./timers.ts";
import { formatUuid, parseUuid } from "./usage.ts";
import type { Activity, Flushed, StoredUsage, Update, Uuid } from "./usage.ts";

/** The property with which a host numbers its resources. */
const NUMBER: unique symbol = Symbol.for("cabiRep");

const modules = new Map<string, Promise<WebAssembly.Module>>();

/** Compiles a core module of the component, or returns it if it was compiled before. */
function coreModule(name: string): Promise<WebAssembly.Module> {
  let module = modules.get(name);
  if (module === undefined) {
    const file = new URL(`../dist/component/${name}`, import.meta.url);
    module = readFile(file).then((bytes) => WebAssembly.compile(bytes));
    modules.set(name, module);
  }
  return module;
}

/**
 * A running instance of the component.
 *
 * After an error of the kind `component`, the instance is unusable. The instance that replaces it starts from the
 * ledger.
 */
export class Instance {
  readonly #replica: Uuid;
  readonly #capabilities: Capabilities;
  readonly #ledger: Ledger;
  readonly #root: Root;
  /** Fails the running flush. */
  #failFlush: (error: BoundaryUsageError) => void = () => {};
  /** Resolves when no flush runs. */
  #flushEnd: Promise<unknown> = Promise.resolve();

  private constructor(replica: Uuid, capabilities: Capabilities, ledger: Ledger, root: Root) {
    this.#replica = replica;
    this.#capabilities = capabilities;
    this.#ledger = ledger;
    this.#root = root;
  }

  /** Instantiates the component for a replica, with the unflushed activity of the ledger. */
  static async start(replica: string, database: Database, key: Uint8Array, ledger: Ledger): Promise<Instance> {
    const uuid = parseUuid(replica, "replica id");
    const capabilities = new Capabilities(formatUuid(uuid), database, ledger);
    try {
      const root = await instantiate(coreModule, imports(capabilities, key, ledger.unflushed()));
      return new Instance(uuid, capabilities, ledger, root);
    } catch (error) {
      throw new BoundaryUsageError("component", `cannot load the component: ${messageOf(error)}`, { cause: error });
    }
  }

  /** Whether `track` may be called. It may not be called between the call of a flush and that flush's snapshot. */
  get acceptsActivities(): boolean {
    return !this.#capabilities.awaitsSnapshot;
  }

  /** Waits until no flush of this instance runs. */
  async waitForFlush(): Promise<void> {
    await this.#flushEnd;
  }

  /** Records activities in the ledger and in the component. */
  track(activities: Activity[]): void {
    this.#ledger.record(activities);
    try {
      this.#root.track(activities);
    } catch (error) {
      const failure = componentFailure(error);
      this.#failFlush(failure);
      throw failure;
    }
  }

  /** Writes the activity since the last flush. Throws the error that the component returned. */
  flush(): Promise<Flushed> {
    const flushed = this.#flush();
    this.#flushEnd = flushed.catch(() => undefined);
    return flushed;
  }

  async #flush(): Promise<Flushed> {
    const isDue = this.#ledger.isDue;
    this.#capabilities.beginFlush();
    let flushed: Flushed | undefined;
    let failure: BoundaryUsageError | undefined;
    try {
      flushed = await this.#callFlush();
    } catch (error) {
      failure = error as BoundaryUsageError;
    }
    const violation = await this.#capabilities.endFlush();
    if (failure?.kind !== "component" && violation !== undefined) {
      throw componentFailure(violation);
    }
    if (flushed === undefined) {
      throw failure;
    }
    const { outcome } = flushed;
    if ((outcome === "idle" && isDue) || (outcome === "written" && !this.#capabilities.isCommitted)) {
      throw componentFailure(`it falsely reports a flush as ${outcome}`);
    }
    return flushed;
  }

  /** Calls the component's `flush`. If the component crashes in `track` meanwhile, the call may never return. */
  #callFlush(): Promise<Flushed> {
    const { promise, resolve, reject } = Promise.withResolvers<Flushed>();
    this.#failFlush = reject;
    this.#root.flush(this.#replica).then(
      (flushed) => resolve(convertFlushed(flushed)),
      (error: unknown) => reject(returnedError(error) ?? componentFailure(error)),
    );
    return promise;
  }
}

function convertFlushed(flushed: Awaited<ReturnType<Root["flush"]>>): Flushed {
  switch (flushed.tag) {
    case "idle":
      return { outcome: "idle" };
    case "confirmed":
      return { outcome: "confirmed", flush: flushed.val };
    case "written":
      return { outcome: "written", ...flushed.val };
  }
}

/**
 * Returns the imports of the component. jco's types name the interfaces with their versions, but its code names them
 * without versions.
 */
function imports(capabilities: Capabilities, key: Uint8Array, unflushed: Unflushed): any {
  const view = new DataView(key.buffer, key.byteOffset, key.byteLength);

  class Transaction {
    /** jco never forgets a number that it has given to a transaction, so all of them have the same number. */
    readonly [NUMBER] = 1;

    static async begin(replica: Uuid): Promise<Transaction> {
      await withContractErrors(capabilities.begin(formatUuid(replica)));
      return new Transaction();
    }
    static commit(_transaction: Transaction): Promise<void> {
      return withContractErrors(capabilities.commit(), "commit-unknown");
    }
    read(): Promise<StoredUsage> {
      return withContractErrors(capabilities.read());
    }
    upsert(update: Update): Promise<boolean> {
      return withContractErrors(capabilities.upsert(update));
    }
    [Symbol.dispose](): void {
      void capabilities.drop();
    }
  }

  return {
    "boundary:usage/locks": {
      acquire: (_transaction: Transaction, lock: string, mode: string) => {
        return withContractErrors(capabilities.acquire(lock, mode));
      },
    },
    "boundary:usage/transactions": {
      hashingKey: () => [view.getBigUint64(0), view.getBigUint64(8)],
      restore: () => unflushed,
      Transaction,
    },
  };
}

/** Converts the errors of a call to errors of the contract. Other errors become the kind `otherwise`. */
async function withContractErrors<T>(call: Promise<T>, otherwise: ErrorKind = "refused"): Promise<T> {
  try {
    return await call;
  } catch (error) {
    // An error without a payload would crash the component.
    throw { payload: { tag: isContractError(error) ? error.kind : otherwise, val: printable(messageOf(error)) } };
  } finally {
    endWaits();
  }
}

/** Converts an error that the component returned. Returns `undefined` for any other error. */
function returnedError(error: unknown): BoundaryUsageError | undefined {
  const { tag, val } = (error ?? {}) as { tag?: unknown; val?: unknown };
  return isContractKind(tag) ? new BoundaryUsageError(tag, String(val ?? "")) : undefined;
}

function componentFailure(error: unknown): BoundaryUsageError {
  return new BoundaryUsageError("component", `the component broke: ${messageOf(error)}`, { cause: error });
}
