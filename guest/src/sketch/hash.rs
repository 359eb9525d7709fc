//! The hash of an id, computed in two steps.
//!
//! The first step is a keyed hash, the pseudonym, which only the holder of the key can compute. The second step is the
//! hash that DataSketches applies to every value of a sketch.

use core::fmt;
use core::hash::Hasher;

use siphasher::sip128::{Hasher128, SipHasher24};

/// The default seed of DataSketches. Sketches with different seeds cannot be merged.
const SEED: u64 = 9001;

/// Identifies the seed in a serialized sketch.
///
/// The value is the lower 16 bits of the hash of [`SEED`] with seed 0.
pub(super) const SEED_HASH: u16 = 0x93cc;

/// The key of the id hashes. Each database has its own key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct HashingKey(pub u64, pub u64);

impl HashingKey {
    /// Returns the 63-bit hash of an id.
    pub(super) fn hash(self, id: u128) -> u64 {
        murmur3(self.pseudonym(id)) >> 1
    }

    /// Returns the SipHash-2-4 of the id's 16 big-endian bytes, with 128 bits of output.
    pub(super) fn pseudonym(self, id: u128) -> [u8; 16] {
        let mut hasher = SipHasher24::new_with_keys(self.0, self.1);
        hasher.write(&id.to_be_bytes());
        hasher.finish128().as_bytes()
    }
}

impl fmt::Debug for HashingKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("HashingKey(..)")
    }
}

/// Returns the first half of [MurmurHash3_x64_128] of one 16-byte block.
///
/// [MurmurHash3_x64_128]: https://github.com/aappleby/smhasher/blob/master/src/MurmurHash3.cpp
fn murmur3(pseudonym: [u8; 16]) -> u64 {
    const C1: u64 = 0x87c3_7b91_1142_53d5;
    const C2: u64 = 0x4cf5_ad43_2745_937f;
    let block = u128::from_le_bytes(pseudonym);
    let (first, second) = (block as u64, (block >> 64) as u64);

    let mut h1 = SEED ^ first.wrapping_mul(C1).rotate_left(31).wrapping_mul(C2);
    h1 = h1.rotate_left(27).wrapping_add(SEED).wrapping_mul(5).wrapping_add(0x52dc_e729);
    let mut h2 = SEED ^ second.wrapping_mul(C2).rotate_left(33).wrapping_mul(C1);
    h2 = h2.rotate_left(31).wrapping_add(h1).wrapping_mul(5).wrapping_add(0x3849_5ab5);

    let length = pseudonym.len() as u64;
    h1 ^= length;
    h2 ^= length;
    h1 = h1.wrapping_add(h2);
    h2 = h2.wrapping_add(h1);
    mixed(h1).wrapping_add(mixed(h2))
}

/// Applies Murmur's finalizer. Each input bit changes about half of the output bits.
fn mixed(mut hash: u64) -> u64 {
    hash = (hash ^ hash >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ hash >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ hash >> 33
}
