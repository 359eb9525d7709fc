/**
 * The times between flushes: an interval with jitter, and shorter waits after a failed flush.
 */

/** The first wait after a failure, in milliseconds. The wait doubles with each further failure, up to the interval. */
const RETRY_MIN = 1_000;

/** The waits of one flush loop, in milliseconds. `random` is between 0 and 1 and selects the point in the jitter. */
export class Schedule {
  #retry = RETRY_MIN;
  readonly #interval: number;
  readonly #jitter: number;

  constructor(interval: number, jitter: number) {
    this.#interval = interval;
    this.#jitter = jitter;
  }

  /** Returns the wait at the start, and after a successful flush. */
  afterSuccess(random: number): number {
    this.#retry = RETRY_MIN;
    return this.#jittered(this.#interval, random);
  }

  /** Returns the wait after a failed flush, which is at most the interval. */
  afterFailure(random: number): number {
    const wait = Math.min(this.#retry, this.#interval);
    this.#retry = wait * 2;
    return Math.min(this.#jittered(wait, random), this.#interval);
  }

  #jittered(wait: number, random: number): number {
    return wait * (1 + this.#jitter * (2 * random - 1));
  }
}
