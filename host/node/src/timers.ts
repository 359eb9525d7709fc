/**
 * The timers of the code that jco generates.
 *
 * That code waits for an import with `setTimeout`: 1 ms after each call, and then in steps of 10 ms. A flush has six
 * calls. Here, such a wait ends as soon as a call has returned. `scripts/transpile.js` imports this function into the
 * generated code.
 */

/** The functions of the running waits, by their timer. */
const waits = new Map<NodeJS.Timeout, () => void>();

/** Calls a function after the wait, or earlier if a call returns. */
export function setTimeout(callback: () => void, wait: number): void {
  if (wait === 0) {
    setImmediate(callback);
    return;
  }
  const timer = globalThis.setTimeout(() => {
    waits.delete(timer);
    callback();
  }, wait);
  waits.set(timer, callback);
}

/** Ends all waits. The host calls this when a call of the component returns. */
export function endWaits(): void {
  // The generated code passes the result on in microtasks, which run before.
  setImmediate(() => {
    for (const [timer, callback] of waits) {
      clearTimeout(timer);
      waits.delete(timer);
      callback();
    }
  });
}
