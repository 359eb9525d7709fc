/**
 * Activity that is collected for a flush: two sets of ids and two counts.
 */

import { CompactThetaSketch, RETAINED_MAX } from "./sketch.ts";
import { type Activity, addRequests, type Sketch, type Uniques, type Uuid } from "./usage.ts";

/** The activity of one flush, as the contract represents it. */
export interface Snapshot {
  uniques: Uniques;
  allowed: bigint;
  denied: bigint;
}

/** A growing set of ids. Ids are hashed in batches without duplicates, because most ids are repeated. */
class ThetaSketch {
  #sketch = CompactThetaSketch.EMPTY;
  #unhashed = new Set<bigint>();

  add({ high, low }: Uuid, key: Uint8Array): void {
    this.#unhashed.add((high << 64n) | low);
    if (this.#unhashed.size >= RETAINED_MAX) {
      this.compact(key);
    }
  }

  merge(other: ThetaSketch, key: Uint8Array): void {
    this.#sketch = this.compact(key).union(other.compact(key));
  }

  /** Hashes the remaining ids, and returns the set. */
  compact(key: Uint8Array): CompactThetaSketch {
    if (this.#unhashed.size > 0) {
      this.#sketch = this.#sketch.union(CompactThetaSketch.of(this.#unhashed, key));
      this.#unhashed.clear();
    }
    return this.#sketch;
  }
}

/** Activity that may be missing in the database. `key` is the key of the id hashes. */
export class Recording {
  isEmpty = true;
  readonly workspaces = new ThetaSketch();
  readonly users = new ThetaSketch();
  allowed = 0n;
  denied = 0n;

  add({ workspace, owner, allowed, denied }: Activity, key: Uint8Array): void {
    this.isEmpty = false;
    this.workspaces.add(workspace, key);
    this.users.add(owner, key);
    this.allowed = addRequests(this.allowed, allowed);
    this.denied = addRequests(this.denied, denied);
  }

  merge(other: Recording, key: Uint8Array): void {
    this.isEmpty &&= other.isEmpty;
    this.workspaces.merge(other.workspaces, key);
    this.users.merge(other.users, key);
    this.allowed = addRequests(this.allowed, other.allowed);
    this.denied = addRequests(this.denied, other.denied);
  }

  snapshot(key: Uint8Array): Snapshot {
    const workspaces = serialize(this.workspaces.compact(key));
    const users = serialize(this.users.compact(key));
    return { uniques: { workspaces, users }, allowed: this.allowed, denied: this.denied };
  }
}

/** Serializes a set of ids for the contract. */
export function serialize(sketch: CompactThetaSketch): Sketch {
  return { count: sketch.count, bytes: sketch.toBytes() };
}
