/**
 * Checks of stored usage and of updates. The host trusts neither the database nor the component.
 */

import { BoundaryUsageError } from "./errors.ts";
import { REQUESTS_MAX, type Sketch, type StoredUsage, type Update } from "./usage.ts";

/** The longest sketch of the contract, in bytes. */
const SKETCH_BYTES_MAX = 131_096;

/** Returns stored usage if it fits the contract, because the component traps on other values. */
export function validateStored({ lastFlush, uniques }: StoredUsage): StoredUsage {
  const isCount = (count: unknown) => typeof count === "bigint" && count >= 0n && count <= REQUESTS_MAX;
  const sketches = uniques === undefined ? [] : [uniques.workspaces, uniques.users];
  const isSketch = ({ count, bytes }: Sketch) => {
    return isCount(count) && bytes instanceof Uint8Array && bytes.length <= SKETCH_BYTES_MAX;
  };
  if (!isCount(lastFlush) || !sketches.every(isSketch)) {
    const what = "the database rows of this replica are damaged: a count or a sketch is out of range";
    throw new BoundaryUsageError("refused", `${what}; repair them`);
  }
  return uniques === undefined ? { lastFlush } : { lastFlush, uniques };
}

/** Returns the difference between an update and the ledger's own, or `undefined` if both are equal. */
export function differenceOf(update: Update, expected: Update): string | undefined {
  const difference = (name: string, actual: unknown, own: unknown) => {
    return `its ${name} is ${actual}, and the host's ledger has ${own}`;
  };
  const numbers = [
    ["flush number", "flush"],
    ["count of allowed requests", "allowed"],
    ["count of denied requests", "denied"],
  ] as const;
  for (const [name, field] of numbers) {
    if (update[field] !== expected[field]) {
      return difference(name, update[field], expected[field]);
    }
  }
  if (update.uniques.tag !== expected.uniques.tag) {
    return difference("update of the unique ids", update.uniques.tag, expected.uniques.tag);
  }
  if (update.uniques.tag === "unchanged" || expected.uniques.tag === "unchanged") {
    return undefined;
  }
  for (const name of ["workspaces", "users"] as const) {
    const [actual, own] = [update.uniques.val[name], expected.uniques.val[name]];
    if (actual.count !== own.count) {
      return difference(`count of unique ${name}`, actual.count, own.count);
    }
    if (!Buffer.from(actual.bytes).equals(own.bytes)) {
      const lengths = [`${actual.bytes.length} bytes`, `${own.bytes.length} different bytes`] as const;
      return difference(`sketch of ${name}`, ...lengths);
    }
  }
  return undefined;
}
