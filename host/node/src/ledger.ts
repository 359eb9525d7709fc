/**
 * The host's own record of a replica's unflushed activity.
 *
 * The ledger outlives the instances of the component, and follows the same rules as the component
 * (`guest/src/flush.rs`). A new instance starts from the ledger after the failure of another one. The host compares
 * each update of the component with the ledger. The ledger's memory is bounded, because it holds at most three
 * recordings.
 */

import { BoundaryUsageError } from "./errors.ts";
import { Recording, type Snapshot, serialize } from "./recording.ts";
import { CompactThetaSketch } from "./sketch.ts";
import type { Activity, Sketch, StoredUsage, Update } from "./usage.ts";

/** The unflushed activity that a new instance starts from. */
export interface Unflushed {
  /** The activity that the next flush carries. */
  delta?: Snapshot;
  /** The flush whose commit had no reply. The next flush determines whether it was applied. */
  inDoubt?: { flush: bigint; snapshot: Snapshot };
}

/** The outcome of a commit. */
type Outcome = "committed" | "rolled-back" | "unknown";

/** The ledger of one replica. */
export class Ledger {
  readonly #key: Uint8Array;
  readonly #onLost: (error: BoundaryUsageError) => void;
  /** The number of the last flush that the database has confirmed. */
  #confirmed = 0n;
  /** The activity that the next flush carries. */
  #delta = new Recording();
  /** The activity that the running flush carries. */
  #inFlight: Recording | undefined;
  /** The number of the running flush. */
  #flush = 0n;
  #outcome: Outcome = "rolled-back";
  /** The flush whose commit had no reply. */
  #inDoubt: { flush: bigint; recording: Recording } | undefined;

  /** `key` is the key of the id hashes. The ledger calls `onLost` if the database has lost confirmed flushes. */
  constructor(key: Uint8Array, onLost: (error: BoundaryUsageError) => void) {
    this.#key = key;
    this.#onLost = onLost;
  }

  /** Records activities. The host must call this method before the component gets the activities. */
  record(activities: readonly Activity[]): void {
    for (const activity of activities) {
      this.#delta.add(activity, this.#key);
    }
  }

  /** Whether a flush would have anything to write or to resolve. */
  get isDue(): boolean {
    return !this.#delta.isEmpty || this.#inDoubt !== undefined;
  }

  /**
   * Takes the snapshot of the running flush, unless it was taken before.
   *
   * Returns whether there is anything to flush.
   */
  takeSnapshot(): boolean {
    if (this.#inFlight === undefined) {
      if (!this.isDue) {
        return false;
      }
      this.#inFlight = this.#delta;
      this.#delta = new Recording();
      this.#outcome = "rolled-back";
    }
    return true;
  }

  /** Resolves a flush in doubt by the replica's last flush, which was read under the replica's lock. */
  resolve(replica: string, lastFlush: bigint): void {
    this.#flush = lastFlush + 1n;
    if (this.#inDoubt !== undefined && lastFlush < this.#inDoubt.flush) {
      this.#inFlight?.merge(this.#inDoubt.recording, this.#key);
    }
    this.#inDoubt = undefined;
    const confirmed = this.#confirmed;
    this.#confirmed = lastFlush;
    if (lastFlush < confirmed) {
      const what = `the last flush of replica ${replica} is ${lastFlush}, but the database had confirmed ${confirmed}`;
      const why = "a failover to a lagging standby or a restored backup has lost the flushes between them";
      this.#onLost(new BoundaryUsageError("lost", `${what}: ${why}`));
    }
  }

  /** Returns the update of the running flush, or `undefined` if the stored sketches are damaged. */
  updateOf({ uniques }: StoredUsage): Update | undefined {
    const recording = this.#inFlight ?? new Recording();
    const { uniques: delta, allowed, denied } = recording.snapshot(this.#key);
    const update = { flush: this.#flush, allowed, denied };
    if (uniques === undefined) {
      return { ...update, uniques: { tag: "delta", val: delta } };
    }
    const stored = {
      workspaces: CompactThetaSketch.fromBytes(uniques.workspaces.bytes),
      users: CompactThetaSketch.fromBytes(uniques.users.bytes),
    };
    if (stored.workspaces === undefined || stored.users === undefined) {
      return undefined;
    }
    const val = {
      workspaces: serialize(stored.workspaces.union(recording.workspaces.compact(this.#key))),
      users: serialize(stored.users.union(recording.users.compact(this.#key))),
    };
    const isUnchanged = hasSameBytes(val.workspaces, uniques.workspaces) && hasSameBytes(val.users, uniques.users);
    return { ...update, uniques: isUnchanged ? { tag: "unchanged" } : { tag: "cumulative", val } };
  }

  /** Records that the host sends the commit of the running flush. */
  sendCommit(): void {
    this.#outcome = "unknown";
  }

  /** Records the reply to the commit of the running flush. */
  receiveReply(outcome: "committed" | "rolled-back"): void {
    this.#outcome = outcome;
    if (outcome === "committed") {
      this.#confirmed = this.#flush;
    }
  }

  /** Ends the running flush, and keeps its activity if the outcome requires that. */
  endFlush(): void {
    const recording = this.#inFlight;
    this.#inFlight = undefined;
    if (recording === undefined || recording.isEmpty || this.#outcome === "committed") {
      return;
    }
    if (this.#outcome === "unknown") {
      this.#inDoubt = { flush: this.#flush, recording };
    } else {
      recording.merge(this.#delta, this.#key);
      this.#delta = recording;
    }
  }

  /** Returns the unflushed activity. No flush may be running. */
  unflushed(): Unflushed {
    const { flush, recording } = this.#inDoubt ?? {};
    return {
      ...(this.#delta.isEmpty ? {} : { delta: this.#delta.snapshot(this.#key) }),
      ...(flush && recording ? { inDoubt: { flush, snapshot: recording.snapshot(this.#key) } } : {}),
    };
  }
}

function hasSameBytes(left: Sketch, right: Sketch): boolean {
  return Buffer.from(left.bytes).equals(right.bytes);
}
