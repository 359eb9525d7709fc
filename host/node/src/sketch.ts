/**
 * The sketch of the contract: a compact Theta sketch of Apache DataSketches with lg_k = 14 and the default seed.
 *
 * The component has its own implementation, and this one is the host's. Both implementations serialize equal sets to
 * equal bytes, so the host can compare an update of the component with its own.
 */

import { hasherOf } from "./hashing.ts";

/** The largest number of hashes in a sketch. Up to this number of ids, the count is exact. */
export const RETAINED_MAX = 16_384;

/** The theta of an exact sketch, which is greater than every hash. */
const THETA_MAX = 2n ** 63n - 1n;

/** The hash of the default seed, as a serialized sketch contains it. */
const SEED_HASH = 0x93cc;

// Constants of the serialized form.
const SERIAL_VERSION = 3;
const FAMILY = 3;
const READ_ONLY = 2;
const EMPTY = 4;
const COMPACT = 8;
const ORDERED = 16;

/** An immutable set of ids: at most 16,384 hashes in ascending order, above 0 and below theta. */
export class CompactThetaSketch {
  readonly #hashes: BigUint64Array;
  readonly #theta: bigint;

  private constructor(hashes: BigUint64Array, theta: bigint) {
    this.#hashes = hashes.subarray(0, RETAINED_MAX);
    this.#theta = hashes[RETAINED_MAX] ?? theta;
  }

  /** The empty set. */
  static readonly EMPTY = new CompactThetaSketch(new BigUint64Array(), THETA_MAX);

  /** Returns the set of these ids, hashed with `key`. */
  static of(ids: Iterable<bigint>, key: Uint8Array): CompactThetaSketch {
    const hashes = BigUint64Array.from(ids, hasherOf(key));
    hashes.sort();
    return new CompactThetaSketch(merged(hashes, new BigUint64Array(), THETA_MAX), THETA_MAX);
  }

  /** Parses a serialized sketch. Returns `undefined` if it is damaged. */
  static fromBytes(bytes: Uint8Array): CompactThetaSketch | undefined {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const [preamble = 0, version, family, , , flags = 0] = bytes;
    if (bytes.length < 8 || bytes.length % 8 !== 0 || version !== SERIAL_VERSION || family !== FAMILY) {
      return undefined;
    }
    if ((flags & EMPTY) !== 0) {
      return CompactThetaSketch.EMPTY;
    }
    const isCompact = (flags & COMPACT) !== 0 && view.getUint16(6, true) === SEED_HASH;
    if (!isCompact || preamble < 1 || preamble > 3 || bytes.length < 8 * preamble) {
      return undefined;
    }
    const theta = preamble === 3 ? view.getBigUint64(16, true) : THETA_MAX;
    const hashes = new BigUint64Array(bytes.length / 8 - preamble);
    let [last, isAscending] = [0n, true];
    for (let index = 0; index < hashes.length; index += 1) {
      const hash = view.getBigUint64(8 * (preamble + index), true);
      isAscending &&= hash > last;
      hashes[index] = last = hash;
    }
    const count = preamble === 1 ? 1 : view.getUint32(8, true);
    return count === hashes.length && count <= RETAINED_MAX && isAscending && last < theta
      ? new CompactThetaSketch(hashes, theta)
      : undefined;
  }

  /** The number of ids: exact up to 16,384, an estimate beyond. */
  get count(): bigint {
    return BigInt(Math.trunc(this.#hashes.length / (Number(this.#theta) / Number(THETA_MAX)) + 0.5));
  }

  /** Returns the union of both sets. */
  union(other: CompactThetaSketch): CompactThetaSketch {
    const theta = this.#theta < other.#theta ? this.#theta : other.#theta;
    return new CompactThetaSketch(merged(this.#hashes, other.#hashes, theta), theta);
  }

  /** Serializes the set. */
  toBytes(): Uint8Array {
    const isExact = this.#theta === THETA_MAX;
    const isEmpty = isExact && this.#hashes.length === 0;
    const preamble = !isExact ? 3 : this.#hashes.length <= 1 ? 1 : 2;
    const words = [...(preamble > 1 ? [BigInt(this.#hashes.length)] : []), ...(preamble > 2 ? [this.#theta] : [])];
    const view = new DataView(new ArrayBuffer(8 * (preamble + this.#hashes.length)));
    const flags = READ_ONLY | COMPACT | ORDERED | (isEmpty ? EMPTY : 0);
    [preamble, SERIAL_VERSION, FAMILY, 0, 0, flags].forEach((byte, index) => view.setUint8(index, byte));
    view.setUint16(6, isEmpty ? 0 : SEED_HASH, true);
    words.forEach((word, index) => view.setBigUint64(8 * (1 + index), word, true));
    for (let index = 0; index < this.#hashes.length; index += 1) {
      view.setBigUint64(8 * (preamble + index), this.#hashes[index] as bigint, true);
    }
    return new Uint8Array(view.buffer);
  }
}

/** Merges two lists of hashes in ascending order, and drops duplicates and hashes that are not between 0 and theta. */
function merged(left: BigUint64Array, right: BigUint64Array, theta: bigint): BigUint64Array {
  const hashes = new BigUint64Array(left.length + right.length);
  let [length, last] = [0, 0n];
  for (let [first, second] = [0, 0]; first < left.length || second < right.length; ) {
    const isLeft = second === right.length || (first < left.length && left[first]! < right[second]!);
    const hash = isLeft ? left[first++]! : right[second++]!;
    if (hash > last && hash < theta) {
      hashes[length++] = last = hash;
    }
  }
  return hashes.slice(0, length);
}
