/** The memory that flushes take. The test has a process of its own, because other tests leave memory behind. */

import assert from "node:assert/strict";
import test from "node:test";
import { setImmediate as immediate } from "node:timers/promises";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";

import { Tracker } from "boundary-usage";

import { MemoryDatabase } from "./memory_database.ts";
import { numbered, uuid } from "./scenario.ts";
import { MANUAL } from "./support.ts";

/** The largest growth of the heap for each flush, in bytes. The measurement itself varies by about 5. */
const GROWTH_MAX = 20;

/** The linear memories of all components that this process instantiates. */
const memories: WebAssembly.Memory[] = [];
const { instantiate } = WebAssembly;
WebAssembly.instantiate = async (module: any, imports?: WebAssembly.Imports): Promise<any> => {
  const instance = (await instantiate(module, imports)) as unknown as WebAssembly.Instance;
  memories.push(...Object.values(instance.exports).filter((one) => one instanceof WebAssembly.Memory));
  return instance;
};

setFlagsFromString("--expose-gc");
const collectGarbage: () => void = runInNewContext("gc");

/** Returns the size of the heap without garbage. */
async function heapSize(): Promise<number> {
  // A part of the garbage is free only after the running tasks.
  for (let round = 0; round < 3; round += 1) {
    collectGarbage();
    await immediate();
  }
  return process.memoryUsage().heapUsed;
}

test("neither the heap nor the component's memory grows with the number of flushes", async (context) => {
  const tracker = await Tracker.start(uuid("r1"), new MemoryDatabase(), MANUAL);
  for (let number = 1; number <= 100; number += 1) {
    tracker.track(numbered(number), numbered(number), 1, 0);
  }
  const flushes = async (count: number) => {
    for (let flush = 0; flush < count; flush += 1) {
      tracker.track(uuid("w1"), uuid("u1"), 1, 0);
      await tracker.flush();
    }
    return { heap: await heapSize(), component: memories.reduce((sum, { buffer }) => sum + buffer.byteLength, 0) };
  };
  const before = await flushes(2_000);
  const after = await flushes(3_000);
  await tracker.shutdown();
  const growth = (after.heap - before.heap) / 3_000;
  context.diagnostic(`the heap grows by ${growth.toFixed(1)} bytes for each flush`);
  assert.ok(growth <= GROWTH_MAX, `${growth} bytes`);
  assert.ok(before.component > 0);
  assert.equal(after.component, before.component);
});
