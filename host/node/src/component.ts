/**
 * The component: loaded and compiled once, instantiated for each tracker.
 *
 * This is the only module that knows what jco makes of the component, which is the file that `boundary-usage component`
 * writes. The folder `dist/component` is made by `npm run build`.
 */

import { readFile } from "node:fs/promises";

import { instantiate, type Root } from "../dist/component/tracker.js";

import { Capabilities } from "./capabilities.ts";
import type { Database } from "./database/index.ts";
import { BoundaryUsageError, type ErrorKind, messageOf } from "./errors.ts";
import { type Flushed, type Halves, halves, hyphenated, type Stored, type Update } from "./usage.ts";

/** What one batch of requests adds. */
export interface Activity {
  workspace: Halves;
  owner: Halves;
  allowed: bigint;
  denied: bigint;
}

/** The errors that cross the border, with one text each. */
const ANSWERS: readonly string[] = ["unavailable", "conflict", "commit-unknown", "refused"];

const modules = new Map<string, Promise<WebAssembly.Module>>();

function compiled(name: string): Promise<WebAssembly.Module> {
  let module = modules.get(name);
  if (module === undefined) {
    module = readFile(new URL(`../dist/component/${name}`, import.meta.url)).then((bytes) => WebAssembly.compile(bytes));
    modules.set(name, module);
  }
  return module;
}

/** A running component. `track` may be called while `flush` waits. */
export class Instance {
  readonly #replica: Halves;
  readonly #capabilities: Capabilities;
  readonly #root: Root;

  private constructor(replica: Halves, capabilities: Capabilities, root: Root) {
    this.#replica = replica;
    this.#capabilities = capabilities;
    this.#root = root;
  }

  /** Instantiates the component for this replica on this database. */
  static async start(replica: string, database: Database, key: Uint8Array): Promise<Instance> {
    const capabilities = new Capabilities(hyphenated(halves(replica, "replica id")), database);
    try {
      const root = await instantiate(compiled, imports(capabilities, key));
      return new Instance(halves(replica, "replica id"), capabilities, root);
    } catch (error) {
      throw new BoundaryUsageError("component", `cannot load the component: ${messageOf(error)}`, { cause: error });
    }
  }

  /** Hands activities to the component. After an error of the kind `component` the instance is of no use. */
  track(activities: Activity[]): void {
    try {
      this.#root.track(activities);
    } catch (error) {
      throw broke(error);
    }
  }

  /** Writes what was tracked since the last flush; throws what the component answered. */
  async flush(): Promise<Flushed> {
    this.#capabilities.flushBegins();
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
    } finally {
      // A component that dropped its transaction has not waited for its end; one that broke has not dropped it.
      await this.#capabilities.rollBack();
    }
  }
}

function imports(capabilities: Capabilities, key: Uint8Array): any {
  const view = new DataView(key.buffer, key.byteOffset, key.byteLength);

  class Transaction {
    static async begin(replica: Halves): Promise<Transaction> {
      await answering(capabilities.begin(hyphenated(replica)));
      return new Transaction();
    }
    static commit(_transaction: Transaction): Promise<void> {
      return answering(capabilities.commit());
    }
    read(): Promise<Stored> {
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
      restore: () => ({}),
      Transaction,
    },
  };
}

/** Turns a failure into the answer of the contract. One that is none of ours is a refusal: nothing was applied. */
async function answering<T>(call: Promise<T>): Promise<T> {
  try {
    return await call;
  } catch (error) {
    const isAnswer = error instanceof BoundaryUsageError && ANSWERS.includes(error.kind);
    // What is thrown without a payload would break the component.
    throw { payload: { tag: isAnswer ? error.kind : "refused", val: messageOf(error) } };
  }
}

/** The error that the component answered, if it did. */
function answered(error: unknown): BoundaryUsageError | undefined {
  const { tag = "", val = "" } = error as { tag?: string; val?: string };
  return ANSWERS.includes(tag) ? new BoundaryUsageError(tag as ErrorKind, val) : undefined;
}

function broke(error: unknown): BoundaryUsageError {
  return new BoundaryUsageError("component", `the component broke: ${messageOf(error)}`, { cause: error });
}
