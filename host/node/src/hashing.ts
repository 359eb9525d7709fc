/**
 * The keyed hashes of ids.
 *
 * An id is first hashed with the key of the database, so that a sketch does not reveal whether it contains a given id.
 * The result is hashed again as Apache DataSketches hashes the items of a Theta sketch.
 *
 * A number of 64 bits is two integers of 32 bits here: its low half and, in capitals, its high half. Bigints are slower
 * by far, and the hashes are most of a flush's time.
 */

/** The default seed of DataSketches. */
const SEED = 9001;

/** Returns a function that hashes an id to 63 bits. `key` has 16 bytes. */
export function hasherOf(key: Uint8Array): (id: bigint) => bigint {
  const hasher = new Hasher(key);
  return (id) => hasher.hash(id);
}

/** Hashes ids one after the other. */
class Hasher {
  /** Two big-endian numbers of 64 bits. */
  readonly #key: DataView;
  /** The id, then its SipHash, then its hash. */
  readonly #bytes = new DataView(new ArrayBuffer(16));

  constructor(key: Uint8Array) {
    this.#key = new DataView(key.buffer, key.byteOffset, 16);
  }

  hash(id: bigint): bigint {
    this.#bytes.setBigUint64(0, id >> 64n);
    this.#bytes.setBigUint64(8, id);
    this.#sipHash();
    this.#murmur3();
    return this.#bytes.getBigUint64(0, true) >> 1n;
  }

  /** Calculates SipHash-2-4 with 128 bits of output. */
  #sipHash(): void {
    const key = this.#key;
    const bytes = this.#bytes;
    const low0 = bytes.getInt32(0, true);
    const high0 = bytes.getInt32(4, true);
    const low1 = bytes.getInt32(8, true);
    const high1 = bytes.getInt32(12, true);
    // The last block has the length in its highest byte.
    const high2 = 16 << 24;
    let a = 0x70736575 ^ key.getInt32(4);
    let A = 0x736f6d65 ^ key.getInt32(0);
    let b = 0x6e646f6d ^ key.getInt32(12) ^ 0xee;
    let B = 0x646f7261 ^ key.getInt32(8);
    let c = 0x6e657261 ^ key.getInt32(4);
    let C = 0x6c796765 ^ key.getInt32(0);
    let d = 0x79746573 ^ key.getInt32(12) ^ low0;
    let D = 0x74656462 ^ key.getInt32(8) ^ high0;
    for (let round = 1; round <= 14; round += 1) {
      // Each step adds one number to another, rotates it to the left, and mixes the sum into it. The sums `a + b` and
      // `c + b` are rotated by 32 bits, which swaps their halves.
      let low = (a + b) | 0;
      A = (A + B + carry(low, b)) | 0;
      let high = ((B << 13) | (b >>> 19)) ^ A;
      b = ((b << 13) | (B >>> 19)) ^ low;
      B = high;
      a = A;
      A = low;

      c = (c + d) | 0;
      C = (C + D + carry(c, d)) | 0;
      high = ((D << 16) | (d >>> 16)) ^ C;
      d = ((d << 16) | (D >>> 16)) ^ c;
      D = high;

      a = (a + d) | 0;
      A = (A + D + carry(a, d)) | 0;
      high = ((D << 21) | (d >>> 11)) ^ A;
      d = ((d << 21) | (D >>> 11)) ^ a;
      D = high;

      low = (c + b) | 0;
      C = (C + B + carry(low, b)) | 0;
      high = ((B << 17) | (b >>> 15)) ^ C;
      b = ((b << 17) | (B >>> 15)) ^ low;
      B = high;
      c = C;
      C = low;

      if (round === 2) {
        a ^= low0;
        A ^= high0;
        d ^= low1;
        D ^= high1;
      } else if (round === 4) {
        a ^= low1;
        A ^= high1;
        D ^= high2;
      } else if (round === 6) {
        A ^= high2;
        c ^= 0xee;
      } else if (round === 10) {
        bytes.setInt32(0, a ^ b ^ c ^ d, true);
        bytes.setInt32(4, A ^ B ^ C ^ D, true);
        b ^= 0xdd;
      }
    }
    bytes.setInt32(8, a ^ b ^ c ^ d, true);
    bytes.setInt32(12, A ^ B ^ C ^ D, true);
  }

  /** Calculates the first half of MurmurHash3_x64_128 of one block of 16 bytes, with the seed of DataSketches. */
  #murmur3(): void {
    const bytes = this.#bytes;
    let low = multiply(bytes.getInt32(0, true), bytes.getInt32(4, true), 0x114253d5, 0x87c37b91);
    let high = product;
    low = multiply((low << 31) | (high >>> 1), (high << 31) | (low >>> 1), 0x2745937f, 0x4cf5ad43);
    high = product;
    let a = low ^ SEED;
    let A = high;
    low = (a << 27) | (A >>> 5);
    high = (A << 27) | (a >>> 5);
    a = (low + SEED) | 0;
    A = (high + carry(a, SEED)) | 0;
    low = multiply(a, A, 5, 0);
    a = (low + 0x52dce729) | 0;
    A = (product + carry(a, 0x52dce729)) | 0;

    low = multiply(bytes.getInt32(8, true), bytes.getInt32(12, true), 0x2745937f, 0x4cf5ad43);
    high = product;
    low = multiply((high << 1) | (low >>> 31), (low << 1) | (high >>> 31), 0x114253d5, 0x87c37b91);
    let b = low ^ SEED;
    let B = product;
    low = (b << 31) | (B >>> 1);
    high = (B << 31) | (b >>> 1);
    b = (low + a) | 0;
    B = (high + A + carry(b, a)) | 0;
    low = multiply(b, B, 5, 0);
    b = (low + 0x38495ab5) | 0;
    B = (product + carry(b, 0x38495ab5)) | 0;

    b ^= 16;
    a = ((a ^ 16) + b) | 0;
    A = (A + B + carry(a, b)) | 0;
    b = (b + a) | 0;
    B = (B + A + carry(b, a)) | 0;
    a = finalMix(a, A);
    A = product;
    b = finalMix(b, B);
    low = (a + b) | 0;
    bytes.setInt32(0, low, true);
    bytes.setInt32(4, A + product + carry(low, b), true);
  }
}

/** The high half of the last result of `multiply` or `finalMix`. */
let product = 0;

/** Multiplies two numbers of 64 bits. Returns the low half. */
function multiply(low: number, high: number, otherLow: number, otherHigh: number): number {
  const [a, b] = [low & 0xffff, low >>> 16];
  const [c, d] = [otherLow & 0xffff, otherLow >>> 16];
  const first = Math.imul(a, c);
  const second = Math.imul(b, c);
  const third = Math.imul(a, d);
  const middle = (first >>> 16) + (second & 0xffff) + (third & 0xffff);
  product =
    (Math.imul(b, d) + (second >>> 16) + (third >>> 16) + (middle >>> 16) +
      Math.imul(low, otherHigh) + Math.imul(high, otherLow)) | 0;
  return (middle << 16) | (first & 0xffff);
}

/** Returns the low half of MurmurHash3's last mix of a number. */
function finalMix(low: number, high: number): number {
  const once = multiply(low ^ (high >>> 1), high, 0xed558ccd, 0xff51afd7);
  const twice = multiply(once ^ (product >>> 1), product, 0x1a85ec53, 0xc4ceb9fe);
  return twice ^ (product >>> 1);
}

/** Returns the carry of an addition: 1 if the sum is less than one of its parts, both taken without sign. */
function carry(sum: number, part: number): number {
  return sum >>> 0 < part >>> 0 ? 1 : 0;
}
