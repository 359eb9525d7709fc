//! The fingerprint of a hashing key.

use std::fmt::{self, Display};

use boundary_usage_tracker::HashingKey;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::Database;
use crate::error::Error;

/// The number of bytes of the digest that are shown.
const SHOWN_BYTES: usize = 8;

/// Identifies a hashing key without revealing it: the first 16 hexadecimal digits of its SHA-256.
///
/// Databases with the same hashing key can be merged, because they store the same hash for an id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct KeyFingerprint(String);

impl KeyFingerprint {
    /// Returns the fingerprint of a key.
    pub fn of(HashingKey(high, low): HashingKey) -> Self {
        let digest = Sha256::new().chain_update(high.to_be_bytes()).chain_update(low.to_be_bytes()).finalize();
        Self(digest.iter().take(SHOWN_BYTES).map(|byte| format!("{byte:02x}")).collect())
    }

    /// Wraps a fingerprint that the database has computed.
    pub(super) fn computed(text: String) -> Self {
        Self(text)
    }
}

impl Display for KeyFingerprint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl Database {
    /// Reads the fingerprint of the hashing key. The collector's role may read the fingerprint.
    ///
    /// # Errors
    ///
    /// - [`Error::Refused`] if the database has no hashing key, or if the role may not read the fingerprint.
    /// - Any other error of the backend if the database cannot be read.
    pub async fn key_fingerprint(&self) -> Result<KeyFingerprint, Error> {
        self.backend().key_fingerprint().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_the_start_of_the_sha_256_of_the_key() {
        // printf '00000000000000010000000000000002' | xxd -r -p | sha256sum
        assert_eq!(KeyFingerprint::of(HashingKey(1, 2)).to_string(), "8c7654ecfd7b0b62");
    }
}
