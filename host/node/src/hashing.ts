/**
 * The keyed hashes of ids.
 *
 * An id is first hashed with the key of the database, so that a sketch does not reveal whether it contains a given id.
 * The result is hashed again as Apache DataSketches hashes the items of a Theta sketch.
 */

/** The default seed of DataSketches. */
const SEED = 9001n;

/** Returns a function that hashes an id to 63 bits. `key` has 16 bytes. */
export function hasherOf(key: Uint8Array): (id: bigint) => bigint {
  const sipHash = new SipHash(key);
  return (id) => murmur3(...sipHash.hash(id)) >> 1n;
}

/**
 * SipHash-2-4 with 128 bits of output, over the 16 big-endian bytes of an id.
 *
 * The class calculates with numbers of 32 bits, which is 20 times faster than with bigints.
 */
class SipHash {
  readonly #start: Uint32Array;
  /** Four numbers of 64 bits, each as its low and its high half. */
  readonly #state = new Uint32Array(8);

  /** `key` consists of two big-endian numbers of 64 bits. */
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

  /** Returns the two halves of the hash. */
  hash(id: bigint): [bigint, bigint] {
    const state = this.#state;
    state.set(this.#start);
    const word = (shift: bigint) => reverseBytes(Number((id >> shift) & 0xffff_ffffn));
    this.#block(word(96n), word(64n));
    this.#block(word(32n), word(0n));
    // The last block has the length in its highest byte.
    this.#block(0, 16 << 24);
    state[4] = state[4] ^ 0xee;
    this.#rounds(4);
    const first = this.#fold();
    state[2] = state[2] ^ 0xdd;
    this.#rounds(4);
    return [first, this.#fold()];
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
      this.#swapHalves(0);
      this.#mix(4, 6, 16);
      this.#mix(0, 6, 21);
      this.#mix(4, 2, 17);
      this.#swapHalves(4);
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

  /** Rotates a number by 32 bits. */
  #swapHalves(a: number): void {
    const state = this.#state;
    [state[a], state[a + 1]] = [state[a + 1], state[a]];
  }

  #fold(): bigint {
    const [a = 0, b = 0, c = 0, d = 0, e = 0, f = 0, g = 0, h = 0] = this.#state;
    return (BigInt((b ^ d ^ f ^ h) >>> 0) << 32n) | BigInt((a ^ c ^ e ^ g) >>> 0);
  }
}

/** Reverses the four bytes of a number. */
function reverseBytes(word: number): number {
  return ((word << 24) | ((word << 8) & 0xff0000) | ((word >>> 8) & 0xff00) | (word >>> 24)) >>> 0;
}

const u64 = (number: bigint) => BigInt.asUintN(64, number);
const rotate = (number: bigint, bits: bigint) => u64((number << bits) | (number >> (64n - bits)));

/** Returns the first half of MurmurHash3_x64_128 of one block of 16 bytes, with the seed of DataSketches. */
function murmur3(first: bigint, second: bigint): bigint {
  const [c1, c2] = [0x87c37b91114253d5n, 0x4cf5ad432745937fn];
  let h1 = SEED ^ u64(rotate(u64(first * c1), 31n) * c2);
  h1 = u64(u64(rotate(h1, 27n) + SEED) * 5n + 0x52dce729n);
  let h2 = SEED ^ u64(rotate(u64(second * c2), 33n) * c1);
  h2 = u64(u64(rotate(h2, 31n) + h1) * 5n + 0x38495ab5n);
  h1 = u64((h1 ^ 16n) + (h2 ^ 16n));
  h2 = u64((h2 ^ 16n) + h1);
  return u64(finalMix(h1) + finalMix(h2));
}

function finalMix(hash: bigint): bigint {
  const once = u64((hash ^ (hash >> 33n)) * 0xff51afd7ed558ccdn);
  const twice = u64((once ^ (once >> 33n)) * 0xc4ceb9fe1a85ec53n);
  return twice ^ (twice >> 33n);
}
