/**
 * The handle that a proxy holds: hands activity to the component, and flushes it.
 */

import { setTimeout as sleep } from "node:timers/promises";

import { Account } from "./account.ts";
import { Instance } from "./component.ts";
import type { Database } from "./database/index.ts";
import { BoundaryUsageError, messageOf, printable } from "./errors.ts";
import { Schedule } from "./schedule.ts";
import { type Activity, type Flushed, halves, requests } from "./usage.ts";

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

/** The type of this package's process warnings. */
const WARNING = "BoundaryUsageWarning";

/** How many activities are handed over in one call, at most. */
const BATCH = 256;

/** How many activities wait while a component that broke is being replaced, at most. */
const WAITING_MAX = 65_536;

/** The longest wait that a timer of Node.js can do, in milliseconds: about 24 days. */
const TIMER_MAX = 2 ** 31 - 1;

/** The first wait between two attempts of the last flush, in milliseconds; it doubles up to the longest. */
const SHUTDOWN_RETRY_MIN = 50;
const SHUTDOWN_RETRY_MAX = 1_000;

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
  readonly #account: Account;
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
    this.#account = new Account(key, (error) => this.#tell(error));
  }

  /** Starts a tracker for this replica, which is a UUID, on this database. */
  static async start(replica: string, database: Database, options: TrackerOptions = {}): Promise<Tracker> {
    const settings = checked(options);
    halves(replica, "replica id");
    const tracker = new Tracker(replica, database, await database.hashingKey(), settings);
    await tracker.#running();
    tracker.#flushIn(tracker.#schedule.afterSuccess(Math.random()));
    return tracker;
  }

  /**
   * Records activity: both ids, which are UUIDs, as active, and both counts added; counts of 0 still record the ids.
   * Waits for nothing.
   */
  track(workspace: string, owner: string, allowed: number | bigint = 0, denied: number | bigint = 0): void {
    this.#mustRun();
    if (this.#batch.length >= WAITING_MAX) {
      throw new BoundaryUsageError("component", "no component runs to take the activity; it was not accepted");
    }
    this.#batch.push({
      workspace: halves(workspace, "workspace"),
      owner: halves(owner, "owner"),
      allowed: requests(allowed, "number of allowed requests"),
      denied: requests(denied, "number of denied requests"),
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
   * Accepts nothing more, writes what is left and stops.
   *
   * A flush that fails is tried again until `shutdownTimeout`, unless trying again cannot help. Throws the last error
   * then, or one of the kind `timed-out`: what was tracked since the last flush that succeeded is lost, or its fate is
   * unknown.
   */
  async shutdown(): Promise<Flushed> {
    this.#mustRun();
    this.#stopped = true;
    clearTimeout(this.#timer);
    const limit = this.#options.shutdownTimeout;
    const ends = performance.now() + limit;
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => (timer = setTimeout(() => reject(tooLate(limit)), limit)));
    late.catch(() => undefined);
    try {
      for (let wait = SHUTDOWN_RETRY_MIN; ; wait = Math.min(2 * wait, SHUTDOWN_RETRY_MAX)) {
        try {
          return await Promise.race([this.#flushNext(), late]);
        } catch (error) {
          const left = ends - performance.now();
          const { kind } = error as BoundaryUsageError;
          if (left < SHUTDOWN_RETRY_MIN || kind === "refused" || kind === "timed-out") {
            throw kind === "commit-unknown" ? tooLate(limit, error) : error;
          }
          // Nearer and nearer to the end, so that the last attempt comes shortly before it.
          await sleep(Math.min(wait, left / 2));
        }
      }
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
    let instance: Instance | undefined;
    try {
      this.#handOver();
      instance = await this.#running();
      const flushed = await instance.flush();
      this.#flushIn(this.#schedule.afterSuccess(Math.random()));
      return flushed;
    } catch (error) {
      this.#failed(error as BoundaryUsageError, instance);
      this.#flushIn(this.#schedule.afterFailure(Math.random()));
      throw error;
    }
  }

  /** Hands the batch to the component, if one runs. */
  #handOver(): void {
    const instance = this.#instance;
    if (instance?.takesActivities && this.#batch.length > 0) {
      const batch = this.#batch;
      this.#batch = [];
      try {
        instance.track(batch);
      } catch (error) {
        this.#failed(error as BoundaryUsageError, instance);
      }
    }
  }

  /**
   * A component that broke cannot be called again. An error of one that was replaced says nothing about its successor.
   */
  #failed(error: BoundaryUsageError, instance: Instance | undefined): void {
    if (error.kind === "component" && instance !== undefined && this.#instance === instance) {
      this.#instance = undefined;
      // The next flush tries again, and reports it if that fails.
      void this.#running(instance).catch(() => undefined);
    }
    this.#tell(error);
  }

  /**
   * Calls `onError`. What that throws, or a promise of it that is rejected, must not end the flush loop or the process.
   */
  #tell(error: BoundaryUsageError): void {
    const warn = (thrown: unknown) => {
      process.emitWarning(
        printable(`onError failed: ${messageOf(thrown)}; it was called with: ${error.message}`),
        WARNING,
      );
    };
    try {
      const returned: unknown = this.#options.onError(error);
      Promise.resolve(returned).catch(warn);
    } catch (thrown) {
      warn(thrown);
    }
  }

  /** The component that runs; a new one is started if none does. */
  async #running(previous?: Instance): Promise<Instance> {
    if (this.#instance !== undefined) {
      return this.#instance;
    }
    this.#starting ??= this.#start(previous).finally(() => {
      this.#starting = undefined;
    });
    return this.#starting;
  }

  async #start(previous: Instance | undefined): Promise<Instance> {
    // What a flush of the one that broke carried is back in the account when that has ended.
    await previous?.settled();
    const instance = await Instance.start(this.#replica, this.#database, this.#key, this.#account);
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

/** The error of a shutdown that does not know what became of its last flush. */
function tooLate(limit: number, cause?: unknown): BoundaryUsageError {
  const what = `the last flush has not ended within ${limit} ms, and it is unknown whether it was applied`;
  const hint = "`boundary-usage status` shows the time and number of each replica's last flush";
  const kind = cause === undefined ? "timed-out" : "commit-unknown";
  return new BoundaryUsageError(kind, `${what}; ${hint}`, { cause });
}

/** The default of `onError`. */
function warn(error: BoundaryUsageError): void {
  process.emitWarning(error.message, WARNING);
}

/** Fills in what is not set, and refuses what makes no sense. Callers in JavaScript can pass any value. */
function checked(options: TrackerOptions): Required<TrackerOptions> {
  const { flushInterval = 60_000, flushJitter = 0.1, shutdownTimeout = 10_000, onError = warn } = options;
  const between = (name: string, value: unknown, least: number, most: number) => {
    if (typeof value !== "number" || !(value >= least && value <= most)) {
      const range = `must be a number from ${least} to ${most}`;
      throw new BoundaryUsageError("configuration", `${name} is ${printable(messageOf(value))}, ${range}`);
    }
  };
  if (flushInterval !== Number.POSITIVE_INFINITY) {
    between("flushInterval", flushInterval, 1, TIMER_MAX);
  }
  between("flushJitter", flushJitter, 0, 1);
  between("shutdownTimeout", shutdownTimeout, 0, TIMER_MAX);
  if (typeof onError !== "function") {
    throw new BoundaryUsageError("configuration", "onError is not a function");
  }
  return { flushInterval, flushJitter, shutdownTimeout, onError };
}
