/**
 * The host's own account of a replica, which outlives the instances of the component.
 *
 * It holds the activity that the component was given and the database has not confirmed, by the same rules as the
 * component: guest/src/flush.rs has them. A component that replaces a broken one starts from it, and what a component
 * writes is compared with it. In memory it is two sketches, and a snapshot or two.
 */

import { BoundaryUsageError } from "./errors.ts";
import { RETAINED_MAX, Sketch } from "./sketch.ts";
import { type Activity, type Halves, type StoredUsage, sum, type Uniques, type UniqueSet, type Update } from "./usage.ts";

/** Activity of some time, in the words of the contract. */
export interface Snapshot {
  uniques: Uniques;
  allowed: bigint;
  denied: bigint;
}

/** What an instance starts from. */
export interface LeftOver {
  delta?: Snapshot;
  inDoubt?: { flush: bigint; snapshot: Snapshot };
}

type Outcome = "committed" | "rolled-back" | "unknown";

/** A set of ids that grows. Ids are hashed late, because most are repeated. */
class Ids {
  #sketch = Sketch.EMPTY;
  #ids = new Set<bigint>();

  add({ high, low }: Halves, key: Uint8Array): void {
    this.#ids.add((high << 64n) | low);
    if (this.#ids.size >= RETAINED_MAX) {
      this.sketch(key);
    }
  }

  merge(other: Ids, key: Uint8Array): void {
    this.#sketch = this.sketch(key).union(other.sketch(key));
  }

  sketch(key: Uint8Array): Sketch {
    if (this.#ids.size > 0) {
      this.#sketch = this.#sketch.union(Sketch.of(this.#ids, key));
      this.#ids.clear();
    }
    return this.#sketch;
  }
}

/** Activity that is not in the database for certain. */
class Recording {
  isEmpty = true;
  readonly workspaces = new Ids();
  readonly users = new Ids();
  allowed = 0n;
  denied = 0n;

  add({ workspace, owner, allowed, denied }: Activity, key: Uint8Array): void {
    this.isEmpty = false;
    this.workspaces.add(workspace, key);
    this.users.add(owner, key);
    this.allowed = sum(this.allowed, allowed);
    this.denied = sum(this.denied, denied);
  }

  merge(other: Recording, key: Uint8Array): void {
    this.isEmpty &&= other.isEmpty;
    this.workspaces.merge(other.workspaces, key);
    this.users.merge(other.users, key);
    this.allowed = sum(this.allowed, other.allowed);
    this.denied = sum(this.denied, other.denied);
  }

  snapshot(key: Uint8Array): Snapshot {
    const uniques = { workspaces: setOf(this.workspaces.sketch(key)), users: setOf(this.users.sketch(key)) };
    return { uniques, allowed: this.allowed, denied: this.denied };
  }
}

/** The account of one replica. */
export class Account {
  readonly #key: Uint8Array;
  readonly #onLost: (error: BoundaryUsageError) => void;
  #confirmed = 0n;
  /** Goes out with the next flush. */
  #delta = new Recording();
  /** What the running flush carries. */
  #flight: Recording | undefined;
  /** The number of the running flush. */
  #number = 0n;
  #outcome: Outcome = "rolled-back";
  /** What a flush carried whose commit brought no reply. */
  #inDoubt: { flush: bigint; recording: Recording } | undefined;

  /** `key` is the database's hashing key; `onLost` is called if the database has forgotten flushes. */
  constructor(key: Uint8Array, onLost: (error: BoundaryUsageError) => void) {
    this.#key = key;
    this.#onLost = onLost;
  }

  /** The component is about to be given these. */
  record(activities: readonly Activity[]): void {
    for (const activity of activities) {
      this.#delta.add(activity, this.#key);
    }
  }

  /** Whether there is anything to flush, or to find out. */
  get hasToFlush(): boolean {
    return !this.#delta.isEmpty || this.#inDoubt !== undefined;
  }

  /** The component has taken its snapshot, and begins a transaction. Returns whether there is anything to flush. */
  flushBegins(): boolean {
    if (this.#flight === undefined) {
      if (!this.hasToFlush) {
        return false;
      }
      this.#flight = this.#delta;
      this.#delta = new Recording();
      this.#outcome = "rolled-back";
    }
    return true;
  }

  /** The number of the last flush was read under the replica's lock. */
  lastFlushRead(replica: string, lastFlush: bigint): void {
    this.#number = lastFlush + 1n;
    if (this.#inDoubt !== undefined && lastFlush < this.#inDoubt.flush) {
      this.#flight?.merge(this.#inDoubt.recording, this.#key);
    }
    this.#inDoubt = undefined;
    const confirmed = this.#confirmed;
    this.#confirmed = lastFlush;
    if (lastFlush < confirmed) {
      const what = `the database's last flush of replica ${replica} is ${lastFlush}, and ${confirmed} was confirmed`;
      const why = "a failover to a standby that lagged behind, or a restored backup, has lost the flushes between";
      this.#onLost(new BoundaryUsageError("lost", `${what}: ${why}`));
    }
  }

  /** What the running flush has to write, given what is stored; none if the stored sketches are damaged. */
  update({ uniques }: StoredUsage): Update | undefined {
    const flight = this.#flight ?? new Recording();
    const { allowed, denied } = flight;
    const write = { flush: this.#number, allowed, denied };
    const { uniques: delta } = flight.snapshot(this.#key);
    if (uniques === undefined) {
      return { ...write, uniques: { tag: "delta", val: delta } };
    }
    const workspaces = Sketch.fromBytes(uniques.workspaces.sketch)?.union(flight.workspaces.sketch(this.#key));
    const users = Sketch.fromBytes(uniques.users.sketch)?.union(flight.users.sketch(this.#key));
    if (workspaces === undefined || users === undefined) {
      return undefined;
    }
    const val = { workspaces: setOf(workspaces), users: setOf(users) };
    const isKnown = sameBytes(val.workspaces, uniques.workspaces) && sameBytes(val.users, uniques.users);
    return { ...write, uniques: isKnown ? { tag: "unchanged" } : { tag: "cumulative", val } };
  }

  /** The commit is on its way. */
  commitSent(): void {
    this.#outcome = "unknown";
  }

  /** The commit was answered. */
  commitAnswered(outcome: Outcome): void {
    this.#outcome = outcome;
    if (outcome === "committed") {
      this.#confirmed = this.#number;
    }
  }

  /** The component has ended its flush, or has broken. */
  flushEnds(): void {
    const flight = this.#flight;
    this.#flight = undefined;
    if (flight === undefined || flight.isEmpty || this.#outcome === "committed") {
      return;
    }
    if (this.#outcome === "unknown") {
      this.#inDoubt = { flush: this.#number, recording: flight };
    } else {
      flight.merge(this.#delta, this.#key);
      this.#delta = flight;
    }
  }

  /** What a new instance starts from. No flush may be running. */
  leftOver(): LeftOver {
    const { flush, recording } = this.#inDoubt ?? {};
    return {
      ...(this.#delta.isEmpty ? {} : { delta: this.#delta.snapshot(this.#key) }),
      ...(flush && recording ? { inDoubt: { flush, snapshot: recording.snapshot(this.#key) } } : {}),
    };
  }
}

function setOf(sketch: Sketch): UniqueSet {
  return { count: sketch.count, sketch: sketch.toBytes() };
}

function sameBytes(left: UniqueSet, right: UniqueSet): boolean {
  return Buffer.from(left.sketch).equals(right.sketch);
}
