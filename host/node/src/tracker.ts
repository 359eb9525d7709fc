/**
 * The handle that a proxy holds: hands activity to the component, and flushes it.
 */

import { type Activity, Instance } from "./component.ts";
import type { Database } from "./database/index.ts";
import { BoundaryUsageError } from "./errors.ts";
import { Schedule } from "./schedule.ts";
import { type Flushed, halves, REQUESTS_MAX } from "./usage.ts";

/** Settings of a tracker. */
export interface TrackerOptions {
  /** Milliseconds from one flush to the next; `Infinity` flushes only when asked to. Default 60,000. */
  flushInterval?: number;
  /** How far each wait may deviate, as a fraction of it. Default 0.1. */
  flushJitter?: number;
  /** Milliseconds that `shutdown` waits for the last flush. Default 10,000. */
  shutdownTimeout?: number;
  /** Is told of flushes that failed, and of a component that broke. Default: `process.emitWarning`. */
  onError?: (error: BoundaryUsageError) => void;
}

/** How many activities are handed over in one call, at most. */
const BATCH = 256;

/** How many activities wait while a component that broke is being replaced, at most. */
const WAITING_MAX = 65_536;

/** The longest wait that a timer knows. */
const TIMER_MAX = 2 ** 31 - 1;

/**
 * A running tracker of one replica.
 *
 * End it with `shutdown`; what was tracked since the last flush is lost otherwise. No two trackers that run at the same
 * time may have the same replica id. Its flush loop does not keep the process alive.
 */
export class Tracker {
  readonly #replica: string;
  readonly #database: Database;
  readonly #key: Uint8Array;
  readonly #options: Required<TrackerOptions>;
  readonly #schedule: Schedule;
  #instance: Instance | undefined;
  #starting: Promise<Instance> | undefined;
  #batch: Activity[] = [];
  #flushing: Promise<unknown> = Promise.resolve();
  #timer: NodeJS.Timeout | undefined;
  #stopped = false;

  private constructor(replica: string, database: Database, key: Uint8Array, options: Required<TrackerOptions>) {
    this.#replica = replica;
    this.#database = database;
    this.#key = key;
    this.#options = options;
    this.#schedule = new Schedule(options.flushInterval, options.flushJitter);
  }

  /** Starts a tracker for this replica, which is a UUID, on this database. */
  static async start(replica: string, database: Database, options: TrackerOptions = {}): Promise<Tracker> {
    const onError = (error: BoundaryUsageError) => process.emitWarning(error.message, "BoundaryUsageWarning");
    const settings = { flushInterval: 60_000, flushJitter: 0.1, shutdownTimeout: 10_000, onError, ...options };
    if (!(settings.flushInterval >= 1)) {
      throw new BoundaryUsageError("configuration", `flushInterval is ${settings.flushInterval}, must be at least 1`);
    }
    if (!(settings.flushJitter >= 0 && settings.flushJitter <= 1)) {
      throw new BoundaryUsageError("configuration", `flushJitter is ${settings.flushJitter}, must be from 0 to 1`);
    }
    halves(replica, "replica id");
    const tracker = new Tracker(replica, database, await database.hashingKey(), settings);
    await tracker.#running();
    tracker.#flushIn(tracker.#schedule.afterSuccess(Math.random()));
    return tracker;
  }

  /**
   * Records activity: both ids, which are UUIDs, as active, and both counts added; counts of 0 still record the ids. Waits
   * for nothing.
   */
  track(workspace: string, owner: string, allowed: number | bigint = 0, denied: number | bigint = 0): void {
    this.#mustRun();
    if (this.#batch.length >= WAITING_MAX) {
      throw new BoundaryUsageError("component", "no component runs to take the activity; it was not accepted");
    }
    this.#batch.push({
      workspace: halves(workspace, "workspace"),
      owner: halves(owner, "owner"),
      allowed: count(allowed),
      denied: count(denied),
    });
    if (this.#batch.length >= BATCH) {
      this.#handOver();
    }
  }

  /**
   * Writes what was tracked before this call, and says what that did. The tracker does so by itself, too.
   *
   * When the database does not take it, this throws; the activity is kept and goes out with the next flush.
   */
  flush(): Promise<Flushed> {
    this.#mustRun();
    return this.#flushNext();
  }

  /**
   * Accepts nothing more, flushes once more and stops.
   *
   * Throws when that flush failed, or took longer than `shutdownTimeout`: what was tracked since the last flush that
   * succeeded is lost then.
   */
  async shutdown(): Promise<Flushed> {
    this.#mustRun();
    this.#stopped = true;
    clearTimeout(this.#timer);
    const limit = this.#options.shutdownTimeout;
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      const error = new BoundaryUsageError("timed-out", `the last flush took longer than ${limit} ms`);
      timer = setTimeout(reject, limit, error);
    });
    try {
      return await Promise.race([this.#flushNext(), late]);
    } finally {
      clearTimeout(timer);
    }
  }

  #mustRun(): void {
    if (this.#stopped) {
      throw new BoundaryUsageError("stopped", "the tracker is stopped");
    }
  }

  /** One flush at a time: this one comes after those that were asked for before. */
  #flushNext(): Promise<Flushed> {
    const flushed = this.#flushing.then(() => this.#flushOnce());
    this.#flushing = flushed.catch(() => undefined);
    return flushed;
  }

  async #flushOnce(): Promise<Flushed> {
    try {
      this.#handOver();
      const instance = await this.#running();
      const flushed = await instance.flush();
      this.#flushIn(this.#schedule.afterSuccess(Math.random()));
      return flushed;
    } catch (error) {
      this.#failed(error as BoundaryUsageError);
      this.#flushIn(this.#schedule.afterFailure(Math.random()));
      throw error;
    }
  }

  /** Hands the batch to the component, if one runs. What goes to one that breaks is lost. */
  #handOver(): void {
    if (this.#instance !== undefined && this.#batch.length > 0) {
      const batch = this.#batch;
      this.#batch = [];
      try {
        this.#instance.track(batch);
      } catch (error) {
        this.#failed(error as BoundaryUsageError);
      }
    }
  }

  /** A component that broke cannot be called again, and what it held is gone with it. */
  #failed(error: BoundaryUsageError): void {
    if (error.kind === "component") {
      this.#instance = undefined;
      // The next flush tries again, and says so when that fails.
      void this.#running().catch(() => undefined);
    }
    this.#options.onError(error);
  }

  /** The component that runs; a new one is started if none does. */
  async #running(): Promise<Instance> {
    if (this.#instance !== undefined) {
      return this.#instance;
    }
    this.#starting ??= Instance.start(this.#replica, this.#database, this.#key).finally(() => {
      this.#starting = undefined;
    });
    const instance = await this.#starting;
    this.#instance = instance;
    this.#handOver();
    return instance;
  }

  #flushIn(wait: number): void {
    clearTimeout(this.#timer);
    if (!this.#stopped && this.#options.flushInterval !== Number.POSITIVE_INFINITY) {
      // Failures are told to `onError`.
      const flush = () => void this.#flushNext().catch(() => undefined);
      this.#timer = setTimeout(flush, Math.min(wait, TIMER_MAX)).unref();
    }
  }
}

function count(requests: number | bigint): bigint {
  if (requests < 0 || (typeof requests === "number" && !Number.isSafeInteger(requests))) {
    throw new BoundaryUsageError("configuration", `${requests} requests: a count is a whole number, and never negative`);
  }
  const whole = BigInt(requests);
  return whole < REQUESTS_MAX ? whole : REQUESTS_MAX;
}
