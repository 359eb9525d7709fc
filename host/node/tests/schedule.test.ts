/** The times between flushes. */

import assert from "node:assert/strict";
import test from "node:test";

import { Schedule } from "../src/schedule.ts";

test("waits have jitter, and double after each failure up to the interval", () => {
  const schedule = new Schedule(60_000, 0.1);
  const rounded = (waits: number[]) => waits.map(Math.round);
  assert.deepEqual(rounded([0, 0.5, 1].map((random) => schedule.afterSuccess(random))), [54_000, 60_000, 66_000]);
  const retries = Array.from({ length: 8 }, () => schedule.afterFailure(0.5) / 1_000);
  assert.deepEqual(rounded(retries), [1, 2, 4, 8, 16, 32, 60, 60]);
  schedule.afterSuccess(0.5);
  assert.equal(Math.round(schedule.afterFailure(0.5)), 1_000);
});
