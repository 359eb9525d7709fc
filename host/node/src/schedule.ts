/**
 * When to flush next: every interval, give or take a jitter, and sooner after a flush that failed. Pure.
 */

/** The first wait after a failure, in milliseconds; it doubles with every further one, up to the interval. */
const RETRY_MIN = 1_000;

/** The waits of one flush loop, in milliseconds. `random` is from 0 to 1 and picks the point within the jitter. */
export class Schedule {
  #retry = RETRY_MIN;
  readonly #interval: number;
  readonly #jitter: number;

  constructor(interval: number, jitter: number) {
    this.#interval = interval;
    this.#jitter = jitter;
  }

  /** How long to wait at the start, and after a flush that did not fail. */
  afterSuccess(random: number): number {
    this.#retry = RETRY_MIN;
    return this.#jittered(this.#interval, random);
  }

  /** How long to wait after a flush that failed: never longer than the interval. */
  afterFailure(random: number): number {
    const wait = Math.min(this.#retry, this.#interval);
    this.#retry = wait * 2;
    return Math.min(this.#jittered(wait, random), this.#interval);
  }

  #jittered(wait: number, random: number): number {
    return wait * (1 + this.#jitter * (2 * random - 1));
  }
}
