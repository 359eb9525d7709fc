/**
 * The host's own account of a replica, which outlives the instances of the component.
 */

import { BoundaryUsageError } from "./errors.ts";

/** What the host knows about a replica's flushes. */
export class Account {
  readonly #onLost: (error: BoundaryUsageError) => void;
  #confirmed = 0n;

  /** `onLost` is called if the database has forgotten flushes. */
  constructor(onLost: (error: BoundaryUsageError) => void) {
    this.#onLost = onLost;
  }

  /** A commit was acknowledged. */
  committed(flush: bigint): void {
    this.#confirmed = flush;
  }

  /** The number of the last flush was read under the replica's lock. */
  lastFlushRead(replica: string, lastFlush: bigint): void {
    const confirmed = this.#confirmed;
    this.#confirmed = lastFlush;
    if (lastFlush < confirmed) {
      const what = `the database's last flush of replica ${replica} is ${lastFlush}, and flush ${confirmed} was confirmed`;
      const why =
        "a failover to a standby that lagged behind, or a backup that was restored, has lost the flushes between";
      this.#onLost(new BoundaryUsageError("lost", `${what}: ${why}`));
    }
  }
}
