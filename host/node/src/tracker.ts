/**
 * The tracker: forwards activity to the component, and flushes it.
 */

import { setTimeout as sleep } from "node:timers/promises";

import { Instance } from "./component.ts";
import type { Database } from "./database/database.ts";
import { BoundaryUsageError } from "./errors.ts";
import { Ledger } from "./ledger.ts";
import { completeOptions, report, TIMER_MAX, type TrackerOptions } from "./options.ts";
import { Schedule } from "./schedule.ts";
import { type Activity, type Flushed, parseRequests, parseUuid } from "./usage.ts";

/** The number of activities that are forwarded to the component in one call. */
const BATCH = 256;

/** The largest number of activities that wait while a failed component is replaced. */
const WAITING_MAX = 65_536;

/** The first and the longest wait between two attempts of the last flush, in milliseconds. The wait doubles. */
const SHUTDOWN_RETRY_MIN = 50;
const SHUTDOWN_RETRY_MAX = 1_000;

/**
 * The tracker of one replica.
 *
 * End a tracker with `shutdown`, or the activity since the last flush is lost. Two trackers must not run with the same
 * replica id simultaneously. The flush loop does not keep the process alive.
 */
export class Tracker {
  readonly #replica: string;
  readonly #database: Database;
  readonly #key: Uint8Array;
  readonly #options: Required<TrackerOptions>;
  readonly #schedule: Schedule;
  readonly #ledger: Ledger;
  #instance: Instance | undefined;
  /** The promise of an instance that is being started, if there is one. */
  #start: Promise<Instance> | undefined;
  #batch: Activity[] = [];
  /** Resolves when all earlier flushes have ended. */
  #flushes: Promise<unknown> = Promise.resolve();
  #timer: NodeJS.Timeout | undefined;
  #isStopped = false;

  private constructor(replica: string, database: Database, key: Uint8Array, options: Required<TrackerOptions>) {
    this.#replica = replica;
    this.#database = database;
    this.#key = key;
    this.#options = options;
    this.#schedule = new Schedule(options.flushInterval, options.flushJitter);
    this.#ledger = new Ledger(key, (error) => report(options.onError, error));
  }

  /** Starts the tracker of a replica on a database. The replica id is a UUID. */
  static async start(replica: string, database: Database, options: TrackerOptions = {}): Promise<Tracker> {
    const completed = completeOptions(options);
    parseUuid(replica, "replica id");
    const tracker = new Tracker(replica, database, await database.hashingKey(), completed);
    await tracker.#runningInstance();
    tracker.#scheduleFlush(tracker.#schedule.afterSuccess(Math.random()));
    return tracker;
  }

  /**
   * Records activity: marks both ids as active and adds both counts.
   *
   * The ids are UUIDs. Counts of 0 still record the ids. The call never waits. If it throws, it has accepted nothing.
   */
  track(workspace: string, owner: string, allowed: number | bigint = 0, denied: number | bigint = 0): void {
    this.#assertRunning();
    if (this.#batch.length >= WAITING_MAX) {
      const what = `${WAITING_MAX} activities wait for the component, which has failed or is starting`;
      throw new BoundaryUsageError("component", `${what}; this activity was not accepted, so try again later`);
    }
    this.#batch.push({
      workspace: parseUuid(workspace, "workspace"),
      owner: parseUuid(owner, "owner"),
      allowed: parseRequests(allowed, "number of allowed requests"),
      denied: parseRequests(denied, "number of denied requests"),
    });
    if (this.#batch.length >= BATCH) {
      this.#forwardBatch();
    }
  }

  /**
   * Writes the activity that was recorded before this call. The flush loop does the same at each interval.
   *
   * If it throws, the activity is kept, and the next flush carries it.
   */
  flush(): Promise<Flushed> {
    this.#assertRunning();
    return this.#enqueueFlush();
  }

  /**
   * Accepts no more activity, flushes once more, and stops.
   *
   * A failed flush is repeated until `shutdownTimeout`, unless a repetition cannot help. After that, the method throws
   * the last error, or `timed-out`. The activity since the last successful flush is lost, unless a commit without a
   * reply was applied.
   */
  async shutdown(): Promise<Flushed> {
    this.#assertRunning();
    this.#isStopped = true;
    clearTimeout(this.#timer);
    const limit = this.#options.shutdownTimeout;
    const deadline = performance.now() + limit;
    let timer: NodeJS.Timeout | undefined;
    const timeout = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(unknownOutcome(limit)), limit);
    });
    timeout.catch(() => undefined);
    try {
      for (let wait = SHUTDOWN_RETRY_MIN; ; wait = Math.min(2 * wait, SHUTDOWN_RETRY_MAX)) {
        try {
          return await Promise.race([this.#enqueueFlush(), timeout]);
        } catch (error) {
          const remaining = deadline - performance.now();
          const { kind } = error as BoundaryUsageError;
          if (remaining < SHUTDOWN_RETRY_MIN || kind === "refused" || kind === "timed-out") {
            throw kind === "commit-unknown" ? unknownOutcome(limit, error) : error;
          }
          // No wait exceeds half of the remaining time, so that the last attempt comes shortly before the deadline.
          await sleep(Math.min(wait, remaining / 2));
        }
      }
    } finally {
      clearTimeout(timer);
    }
  }

  #assertRunning(): void {
    if (this.#isStopped) {
      throw new BoundaryUsageError("stopped", "the tracker is stopped");
    }
  }

  /** Runs a flush after all earlier ones. */
  #enqueueFlush(): Promise<Flushed> {
    const flushed = this.#flushes.then(() => this.#flushOnce());
    this.#flushes = flushed.catch(() => undefined);
    return flushed;
  }

  async #flushOnce(): Promise<Flushed> {
    let instance: Instance | undefined;
    try {
      this.#forwardBatch();
      instance = await this.#runningInstance();
      const flushed = await instance.flush();
      this.#scheduleFlush(this.#schedule.afterSuccess(Math.random()));
      return flushed;
    } catch (error) {
      this.#handleFailure(error as BoundaryUsageError, instance);
      this.#scheduleFlush(this.#schedule.afterFailure(Math.random()));
      throw error;
    }
  }

  /** Forwards the waiting activities to the component, if it accepts them. */
  #forwardBatch(): void {
    const instance = this.#instance;
    if (instance?.acceptsActivities && this.#batch.length > 0) {
      const batch = this.#batch;
      this.#batch = [];
      try {
        instance.track(batch);
      } catch (error) {
        this.#handleFailure(error as BoundaryUsageError, instance);
      }
    }
  }

  /** Reports an error, and replaces the instance that failed, unless it was replaced before. */
  #handleFailure(error: BoundaryUsageError, instance: Instance | undefined): void {
    if (error.kind === "component" && instance !== undefined && this.#instance === instance) {
      this.#instance = undefined;
      // If the start fails, the next flush repeats it and reports the error.
      void this.#runningInstance(instance).catch(() => undefined);
    }
    report(this.#options.onError, error);
  }

  /** Returns the running instance, or starts one that replaces `failed`. */
  async #runningInstance(failed?: Instance): Promise<Instance> {
    if (this.#instance !== undefined) {
      return this.#instance;
    }
    this.#start ??= this.#startInstance(failed).finally(() => {
      this.#start = undefined;
    });
    return this.#start;
  }

  async #startInstance(failed: Instance | undefined): Promise<Instance> {
    // The ledger gets the activity of the failed instance's flush back when that flush has ended.
    await failed?.waitForFlush();
    const instance = await Instance.start(this.#replica, this.#database, this.#key, this.#ledger);
    this.#instance = instance;
    this.#forwardBatch();
    return instance;
  }

  #scheduleFlush(wait: number): void {
    clearTimeout(this.#timer);
    if (!this.#isStopped && this.#options.flushInterval !== Number.POSITIVE_INFINITY) {
      // `#flushOnce` has reported a failure.
      const flush = () => void this.#enqueueFlush().catch(() => undefined);
      this.#timer = setTimeout(flush, Math.min(wait, TIMER_MAX)).unref();
    }
  }
}

/** Returns the error of a shutdown whose last flush has an unknown outcome. */
function unknownOutcome(limit: number, cause?: unknown): BoundaryUsageError {
  const what = `the last flush has not ended within ${limit} ms, and it is unknown whether it was applied`;
  const hint = "`boundary-usage status` shows the time and number of each replica's last flush";
  const kind = cause === undefined ? "timed-out" : "commit-unknown";
  return new BoundaryUsageError(kind, `${what}; ${hint}`, { cause });
}
