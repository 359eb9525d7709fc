/** The host's implementation of the contract's sketch. */

import assert from "node:assert/strict";
import test from "node:test";

import { CompactThetaSketch } from "../src/sketch.ts";

test("a serialized sketch is parsed to equal bytes, and damage is refused", () => {
  const key = new Uint8Array(16);
  for (const ids of [0, 1, 2, 16_384, 16_385, 40_000]) {
    const bytes = CompactThetaSketch.of(
      Array.from({ length: ids }, (_, id) => BigInt(id)),
      key,
    ).toBytes();
    assert.deepEqual(CompactThetaSketch.fromBytes(bytes)?.toBytes(), bytes, `${ids}`);
    assert.equal(CompactThetaSketch.fromBytes(Buffer.concat([bytes, new Uint8Array(1)])), undefined);
    assert.equal(CompactThetaSketch.fromBytes(bytes.subarray(0, -8)), undefined);
    for (let position = 0; ids > 1 && position < 3; position += 1) {
      const damaged = Uint8Array.from(bytes);
      damaged[position] = 9;
      assert.equal(CompactThetaSketch.fromBytes(damaged), undefined, `${ids} ids, byte ${position}`);
    }
  }
});
