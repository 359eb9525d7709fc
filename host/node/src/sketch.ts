/**
 * The unique set of the contract: a compact Theta sketch of Apache DataSketches, lg_k = 14, default seed, of keyed
 * hashes.
 *
 * The component has its own; this one is the host's, byte for byte the same. With it the host accounts for what the
 * component was given, and compares what the component writes.
 */

/** The most hashes that a sketch keeps; up to as many ids, its count is exact. */
export const RETAINED_MAX = 16_384;

/** The theta of a sketch that has dropped nothing. All hashes are below. */
const THETA_MAX = 2n ** 63n - 1n;

/** The seed of DataSketches, and its hash as it stands in a serialized sketch. */
const SEED = 9001n;
const SEED_HASH = 0x93cc;

// Parts of the serialized form.
const SERIAL_VERSION = 3;
const FAMILY = 3;
const READ_ONLY = 2;
const EMPTY = 4;
const COMPACT = 8;
const ORDERED = 16;

/** A set of ids: at most 16,384 hashes in ascending order, above 0 and below theta. */
export class Sketch {
  readonly #hashes: BigUint64Array;
  readonly #theta: bigint;

  private constructor(hashes: BigUint64Array, theta: bigint) {
    this.#hashes = hashes.subarray(0, RETAINED_MAX);
    this.#theta = hashes[RETAINED_MAX] ?? theta;
  }

  /** The set without ids. */
  static readonly EMPTY = new Sketch(new BigUint64Array(), THETA_MAX);

  /** The set of these ids, hashed under this key. */
  static of(ids: Iterable<bigint>, key: Uint8Array): Sketch {
    const pseudonyms = new Pseudonyms(key);
    const hashes = BigUint64Array.from(ids, (id) => murmur3(...pseudonyms.of(id)) >> 1n);
    return new Sketch(distinct(hashes, THETA_MAX), THETA_MAX);
  }

  /** Reads a serialized sketch; none if it is damaged. */
  static fromBytes(bytes: Uint8Array): Sketch | undefined {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const [preamble = 0, version, family, , , flags = 0] = bytes;
    if (bytes.length < 8 || bytes.length % 8 !== 0 || version !== SERIAL_VERSION || family !== FAMILY) {
      return undefined;
    }
    if ((flags & EMPTY) !== 0) {
      return Sketch.EMPTY;
    }
    const isForm = (flags & COMPACT) !== 0 && view.getUint16(6, true) === SEED_HASH && preamble >= 1 && preamble <= 3;
    if (!isForm || bytes.length < 8 * preamble) {
      return undefined;
    }
    const theta = preamble === 3 ? view.getBigUint64(16, true) : THETA_MAX;
    const hashes = new BigUint64Array(bytes.length / 8 - preamble);
    let [last, inOrder] = [0n, true];
    for (let index = 0; index < hashes.length; index += 1) {
      const hash = view.getBigUint64(8 * (preamble + index), true);
      inOrder &&= hash > last;
      hashes[index] = last = hash;
    }
    const count = preamble === 1 ? 1 : view.getUint32(8, true);
    return count === hashes.length && count <= RETAINED_MAX && inOrder && last < theta
      ? new Sketch(hashes, theta)
      : undefined;
  }

  /** How many ids: exact up to 16,384, an estimate beyond. */
  get count(): bigint {
    return BigInt(Math.trunc(this.#hashes.length / (Number(this.#theta) / Number(THETA_MAX)) + 0.5));
  }

  /** The ids of both sets. */
  union(other: Sketch): Sketch {
    const theta = this.#theta < other.#theta ? this.#theta : other.#theta;
    const hashes = new BigUint64Array(this.#hashes.length + other.#hashes.length);
    hashes.set(this.#hashes);
    hashes.set(other.#hashes, this.#hashes.length);
    return new Sketch(distinct(hashes, theta), theta);
  }

  /** The compact form. */
  toBytes(): Uint8Array {
    const isExact = this.#theta === THETA_MAX;
    const isEmpty = isExact && this.#hashes.length === 0;
    const preamble = !isExact ? 3 : this.#hashes.length <= 1 ? 1 : 2;
    const words = [...(preamble > 1 ? [BigInt(this.#hashes.length)] : []), ...(preamble > 2 ? [this.#theta] : [])];
    const view = new DataView(new ArrayBuffer(8 * (preamble + this.#hashes.length)));
    const flags = READ_ONLY | COMPACT | ORDERED | (isEmpty ? EMPTY : 0);
    if (isEmpty) {
      [1, SERIAL_VERSION, FAMILY, 0, 0, flags].forEach((byte, index) => view.setUint8(index, byte));
      return new Uint8Array(view.buffer);
    }
    [preamble, SERIAL_VERSION, FAMILY, 0, 0, flags].forEach((byte, index) => view.setUint8(index, byte));
    view.setUint16(6, SEED_HASH, true);
    words.forEach((word, index) => view.setBigUint64(8 * (1 + index), word, true));
    this.#hashes.forEach((hash, index) => view.setBigUint64(8 * (preamble + index), hash, true));
    return new Uint8Array(view.buffer);
  }
}

/** Sorts hashes, and drops repeated ones and those that are out of range. */
function distinct(hashes: BigUint64Array, theta: bigint): BigUint64Array {
  hashes.sort();
  return hashes.filter((hash, index) => hash > (hashes[index - 1] ?? 0n) && hash < theta);
}

/**
 * SipHash-2-4 with 128 bits of output, over the 16 big-endian bytes of an id. In halves of 32 bits: 20 times faster.
 */
class Pseudonyms {
  readonly #start: Uint32Array;
  /** Four numbers of 64 bits, each as its low and its high half. */
  readonly #state = new Uint32Array(8);

  /** `key` has 16 bytes: two numbers, big-endian. */
  constructor(key: Uint8Array) {
    const view = new DataView(key.buffer, key.byteOffset, 16);
    const [high0, low0, high1, low1] = [view.getUint32(0), view.getUint32(4), view.getUint32(8), view.getUint32(12)];
    this.#start = Uint32Array.of(
      0x70736575 ^ low0,
      0x736f6d65 ^ high0,
      0x6e646f6d ^ low1 ^ 0xee,
      0x646f7261 ^ high1,
      0x6e657261 ^ low0,
      0x6c796765 ^ high0,
      0x79746573 ^ low1,
      0x74656462 ^ high1,
    );
  }

  /** The two halves of the hash. */
  of(id: bigint): [bigint, bigint] {
    const state = this.#state;
    state.set(this.#start);
    const word = (shift: bigint) => swapped(Number((id >> shift) & 0xffff_ffffn));
    this.#block(word(96n), word(64n));
    this.#block(word(32n), word(0n));
    // The length, in the highest byte.
    this.#block(0, 16 << 24);
    state[4] = state[4] ^ 0xee;
    this.#rounds(4);
    const first = this.#folded();
    state[2] = state[2] ^ 0xdd;
    this.#rounds(4);
    return [first, this.#folded()];
  }

  #block(low: number, high: number): void {
    const state = this.#state;
    state[6] = state[6] ^ low;
    state[7] = state[7] ^ high;
    this.#rounds(2);
    state[0] = state[0] ^ low;
    state[1] = state[1] ^ high;
  }

  #rounds(count: number): void {
    for (let round = 0; round < count; round += 1) {
      this.#mix(0, 2, 13);
      this.#turn(0);
      this.#mix(4, 6, 16);
      this.#mix(0, 6, 21);
      this.#mix(4, 2, 17);
      this.#turn(4);
    }
  }

  /** Adds b to a, rotates b to the left, and mixes a into b. */
  #mix(a: number, b: number, bits: number): void {
    const state = this.#state;
    const [lowB, highB] = [state[b], state[b + 1]];
    const low = state[a] + lowB;
    state[a] = low;
    state[a + 1] = state[a + 1] + highB + (low > 0xffff_ffff ? 1 : 0);
    state[b] = ((lowB << bits) | (highB >>> (32 - bits))) ^ state[a];
    state[b + 1] = ((highB << bits) | (lowB >>> (32 - bits))) ^ state[a + 1];
  }

  /** Rotates by 32 bits. */
  #turn(a: number): void {
    const state = this.#state;
    [state[a], state[a + 1]] = [state[a + 1], state[a]];
  }

  #folded(): bigint {
    const [a = 0, b = 0, c = 0, d = 0, e = 0, f = 0, g = 0, h = 0] = this.#state;
    return (BigInt((b ^ d ^ f ^ h) >>> 0) << 32n) | BigInt((a ^ c ^ e ^ g) >>> 0);
  }
}

/** The four bytes in the opposite order. */
function swapped(word: number): number {
  return ((word << 24) | ((word << 8) & 0xff0000) | ((word >>> 8) & 0xff00) | (word >>> 24)) >>> 0;
}

const u64 = (number: bigint) => BigInt.asUintN(64, number);
const rotated = (number: bigint, bits: bigint) => u64((number << bits) | (number >> (64n - bits)));

/** The first half of MurmurHash3_x64_128 of one block of 16 bytes, under the seed of DataSketches. */
function murmur3(first: bigint, second: bigint): bigint {
  const [c1, c2] = [0x87c37b91114253d5n, 0x4cf5ad432745937fn];
  let h1 = SEED ^ u64(rotated(u64(first * c1), 31n) * c2);
  h1 = u64(u64(rotated(h1, 27n) + SEED) * 5n + 0x52dce729n);
  let h2 = SEED ^ u64(rotated(u64(second * c2), 33n) * c1);
  h2 = u64(u64(rotated(h2, 31n) + h1) * 5n + 0x38495ab5n);
  h1 = u64((h1 ^ 16n) + (h2 ^ 16n));
  h2 = u64((h2 ^ 16n) + h1);
  return u64(mixed(h1) + mixed(h2));
}

function mixed(hash: bigint): bigint {
  const once = u64((hash ^ (hash >> 33n)) * 0xff51afd7ed558ccdn);
  const twice = u64((once ^ (once >> 33n)) * 0xc4ceb9fe1a85ec53n);
  return twice ^ (twice >> 33n);
}
