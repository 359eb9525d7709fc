/**
 * The options of a tracker.
 */

import { BoundaryUsageError, messageOf, printable } from "./errors.ts";

/** The options of a tracker. */
export interface TrackerOptions {
  /** Time between flushes in milliseconds. With `Infinity`, only the caller flushes. Default: 60,000. */
  flushInterval?: number;
  /** Random variation of each wait, as a fraction of it. Default: 0.1. */
  flushJitter?: number;
  /** Time limit of `shutdown` in milliseconds. Default: 10,000. */
  shutdownTimeout?: number;
  /**
   * Called with each failed flush and each failure of the component. Default: `process.emitWarning`, at most once a
   * minute.
   */
  onError?: (error: BoundaryUsageError) => void;
}

/** The type of this package's process warnings. */
export const WARNING = "BoundaryUsageWarning";

/** The longest wait of a timer of Node.js, in milliseconds: about 24 days. */
export const TIMER_MAX = 2 ** 31 - 1;

/** Completes options with their defaults, and refuses invalid ones. A caller in JavaScript can pass any value. */
export function completeOptions(options: TrackerOptions): Required<TrackerOptions> {
  const { flushInterval = 60_000, flushJitter = 0.1, shutdownTimeout = 10_000, onError = rareWarnings() } = options;
  if (flushInterval !== Number.POSITIVE_INFINITY) {
    checkRange("flushInterval", flushInterval, 1, TIMER_MAX);
  }
  checkRange("flushJitter", flushJitter, 0, 1);
  checkRange("shutdownTimeout", shutdownTimeout, 0, TIMER_MAX);
  checkOnError(onError);
  return { flushInterval, flushJitter, shutdownTimeout, onError };
}

/** Refuses an `onError` that is no function. */
export function checkOnError(onError: unknown): void {
  if (typeof onError !== "function") {
    throw new BoundaryUsageError("configuration", `onError is ${display(onError)}, but must be a function`);
  }
}

/** Calls `onError`. Neither an exception nor a rejected promise of `onError` ends the flush loop or the process. */
export function report(onError: (error: BoundaryUsageError) => void, error: BoundaryUsageError): void {
  const warnAbout = (thrown: unknown) => {
    const message = `onError failed: ${messageOf(thrown)}; it was called with: ${error.message}`;
    process.emitWarning(printable(message), WARNING);
  };
  try {
    const returned: unknown = onError(error);
    Promise.resolve(returned).catch(warnAbout);
  } catch (thrown) {
    warnAbout(thrown);
  }
}

function checkRange(name: string, value: unknown, least: number, most: number): void {
  if (typeof value !== "number" || !(value >= least && value <= most)) {
    const range = `must be a number from ${least} to ${most}`;
    throw new BoundaryUsageError("configuration", `${name} is ${display(value)}, but ${range}`);
  }
}

function display(value: unknown): string {
  return printable(messageOf(value));
}

/** Emits a process warning. */
export function warn(error: BoundaryUsageError): void {
  process.emitWarning(error.message, WARNING);
}

/** The time between two warnings of repeated failures, in milliseconds. */
const WARNING_INTERVAL = 60_000;

/** Returns a function that warns at most once a minute, with the number of the other failures. */
export function rareWarnings(emit = warn, now = () => performance.now()): (error: BoundaryUsageError) => void {
  let [warned, others] = [Number.NEGATIVE_INFINITY, 0];
  return (error) => {
    if (now() - warned < WARNING_INTERVAL) {
      others += 1;
      return;
    }
    const text = others > 0 ? `${error.message} (and ${others} failures before it)` : error.message;
    [warned, others] = [now(), 0];
    emit(new BoundaryUsageError(error.kind, text, { cause: error }));
  };
}
