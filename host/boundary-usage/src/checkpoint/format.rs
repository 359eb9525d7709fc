//! The bytes of a checkpoint. All numbers are big-endian.
//!
//! ```text
//! header:     "BUSAGECP"   version u32   length of the body u32
//! body:       replica 16   database 16   last flush u64
//!             has flush in doubt u8 [flush u64, snapshot]
//!             has new activity u8 [snapshot]
//!             in version 2: offline activity (snapshot)
//! snapshot:   allowed u64  denied u64  { length u32, compact sketch } of workspaces, of users
//! checksum:   SHA-256 over header and body
//! ```

use boundary_usage_tracker::{
    CompactThetaSketch, InDoubt, REQUESTS_MAX, SKETCH_BYTES_MAX, SketchError, Snapshot, Unflushed, Uniques,
};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::Fingerprint;
use crate::ledger::LedgerState;

const MAGIC: [u8; 8] = *b"BUSAGECP";

/// The version of a checkpoint without offline activity.
const VERSION: u32 = 1;

/// The version of a checkpoint with offline activity.
const VERSION_OFFLINE: u32 = 2;

const HEADER_BYTES: usize = 8 + 4 + 4;
const CHECKSUM_BYTES: usize = 32;
const SNAPSHOT_BYTES_MAX: usize = 8 + 8 + 2 * (4 + SKETCH_BYTES_MAX);

/// The maximum length of a checkpoint in bytes, about half a megabyte.
pub(super) const BYTES_MAX: usize = HEADER_BYTES
    + (16 + 16 + 8)
    + (1 + 8 + SNAPSHOT_BYTES_MAX)
    + (1 + SNAPSHOT_BYTES_MAX)
    + SNAPSHOT_BYTES_MAX
    + CHECKSUM_BYTES;

/// The content of a checkpoint file: the unflushed activity of one replica.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    pub(super) replica: Uuid,
    pub(super) fingerprint: Fingerprint,
    pub(super) ledger_state: LedgerState,
    /// Activity that was recorded before the first connection to the database.
    ///
    /// No flush has carried this activity.
    pub(super) offline: Option<Snapshot>,
}

/// The reason why a checkpoint cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The file does not begin with the mark of a checkpoint.
    #[error("it is not a checkpoint")]
    NotACheckpoint,
    /// The file has a version that this release does not support.
    #[error("it has version {version}, and this program reads versions {VERSION} and {VERSION_OFFLINE}")]
    Version {
        /// The file's version.
        version: u32,
    },
    /// The file is truncated, or has bytes after the end of the checkpoint.
    #[error("it has {actual} bytes instead of {expected}")]
    Length {
        /// The length according to the header, in bytes.
        expected: usize,
        /// The length of the file, in bytes.
        actual: usize,
    },
    /// The file was changed after it was written.
    #[error("its checksum is wrong")]
    Checksum,
    /// The content is invalid although the checksum is right.
    #[error("its content is invalid")]
    Content,
    /// A sketch in the file is invalid although the checksum is right.
    #[error("a sketch in it is invalid")]
    Sketch(#[source] SketchError),
    /// The file cannot be read.
    #[error("it cannot be read")]
    Io(#[source] std::io::Error),
}

impl Checkpoint {
    /// Parses untrusted bytes as a checkpoint.
    ///
    /// # Errors
    ///
    /// Returns any [`CheckpointError`] except `Io` if the bytes are not a complete, unchanged checkpoint of a known
    /// version.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CheckpointError> {
        let mut header = Reader(bytes);
        let not_ours = |_| CheckpointError::NotACheckpoint;
        if header.array().map_err(not_ours)? != MAGIC {
            return Err(CheckpointError::NotACheckpoint);
        }
        let version = header.u32().map_err(not_ours)?;
        if !matches!(version, VERSION | VERSION_OFFLINE) {
            return Err(CheckpointError::Version { version });
        }
        let expected = HEADER_BYTES.saturating_add(header.length().map_err(not_ours)?).saturating_add(CHECKSUM_BYTES);
        if bytes.len() != expected {
            return Err(CheckpointError::Length { expected, actual: bytes.len() });
        }
        let (covered, checksum) = bytes.split_at(bytes.len() - CHECKSUM_BYTES);
        if Sha256::digest(covered)[..] != *checksum {
            return Err(CheckpointError::Checksum);
        }
        let mut body = Reader(&covered[HEADER_BYTES..]);
        let mut checkpoint = body.checkpoint()?;
        if version == VERSION_OFFLINE {
            checkpoint.offline = Some(body.snapshot()?);
        }
        if body.0.is_empty() { Ok(checkpoint) } else { Err(CheckpointError::Content) }
    }

    /// Returns the bytes of the file.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(MAGIC);
        bytes.extend(if self.offline.is_some() { VERSION_OFFLINE } else { VERSION }.to_be_bytes());
        bytes.extend([0; 4]);
        bytes.extend(self.replica.as_bytes());
        bytes.extend(self.fingerprint);
        bytes.extend(self.ledger_state.last_flush.to_be_bytes());
        let Unflushed { delta, in_doubt } = &self.ledger_state.unflushed;
        bytes.push(in_doubt.is_some().into());
        if let Some(InDoubt { flush, snapshot }) = in_doubt {
            bytes.extend(flush.to_be_bytes());
            write_snapshot(&mut bytes, snapshot);
        }
        bytes.push(delta.is_some().into());
        if let Some(delta) = delta {
            write_snapshot(&mut bytes, delta);
        }
        if let Some(offline) = &self.offline {
            write_snapshot(&mut bytes, offline);
        }
        let length = length(bytes.len() - HEADER_BYTES);
        bytes[HEADER_BYTES - 4..HEADER_BYTES].copy_from_slice(&length);
        let checksum = Sha256::digest(&bytes);
        bytes.extend(checksum);
        bytes
    }

    /// Returns the replica.
    pub fn replica(&self) -> Uuid {
        self.replica
    }

    /// Returns the number of the last confirmed flush.
    pub fn last_flush(&self) -> u64 {
        self.ledger_state.last_flush
    }

    /// Returns the number of the flush in doubt.
    pub fn flush_in_doubt(&self) -> Option<u64> {
        self.ledger_state.unflushed.in_doubt.as_ref().map(|in_doubt| in_doubt.flush)
    }

    /// Returns the allowed and denied requests, including those of the flush in doubt.
    pub fn requests(&self) -> (u64, u64) {
        let Unflushed { delta, in_doubt } = &self.ledger_state.unflushed;
        let snapshots = delta.iter().chain(in_doubt.iter().map(|in_doubt| &in_doubt.snapshot)).chain(&self.offline);
        snapshots.fold((0, 0), |(allowed, denied), snapshot| {
            (allowed.saturating_add(snapshot.allowed), denied.saturating_add(snapshot.denied))
        })
    }

    /// Returns whether the checkpoint contains offline activity and no other activity.
    pub(super) fn is_only_offline(&self) -> bool {
        let Unflushed { delta, in_doubt } = &self.ledger_state.unflushed;
        self.offline.is_some() && delta.is_none() && in_doubt.is_none()
    }

    /// Returns whether there is no unflushed activity.
    pub fn is_empty(&self) -> bool {
        let Unflushed { delta, in_doubt } = &self.ledger_state.unflushed;
        delta.is_none() && in_doubt.is_none() && self.offline.is_none()
    }
}

fn write_snapshot(bytes: &mut Vec<u8>, snapshot: &Snapshot) {
    bytes.extend(snapshot.allowed.to_be_bytes());
    bytes.extend(snapshot.denied.to_be_bytes());
    for sketch in [&snapshot.uniques.workspaces, &snapshot.uniques.users] {
        let sketch = sketch.to_bytes();
        bytes.extend(length(sketch.len()));
        bytes.extend(sketch);
    }
}

fn length(bytes: usize) -> [u8; 4] {
    u32::try_from(bytes).expect("a checkpoint is bounded by BYTES_MAX").to_be_bytes()
}

/// The bytes that are not parsed yet.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn checkpoint(&mut self) -> Result<Checkpoint, CheckpointError> {
        let replica = Uuid::from_bytes(self.array()?);
        let fingerprint = self.array()?;
        let last_flush = self.count()?;
        let in_doubt = match self.present()? {
            true => Some(InDoubt { flush: self.count()?, snapshot: self.snapshot()? }),
            false => None,
        };
        let delta = match self.present()? {
            true => Some(self.snapshot()?),
            false => None,
        };
        let ledger_state = LedgerState { last_flush, unflushed: Unflushed { delta, in_doubt } };
        Ok(Checkpoint { replica, fingerprint, ledger_state, offline: None })
    }

    fn snapshot(&mut self) -> Result<Snapshot, CheckpointError> {
        let (allowed, denied) = (self.count()?, self.count()?);
        let uniques = Uniques { workspaces: self.sketch()?, users: self.sketch()? };
        Ok(Snapshot { uniques, allowed, denied })
    }

    fn sketch(&mut self) -> Result<CompactThetaSketch, CheckpointError> {
        let length = self.length()?;
        CompactThetaSketch::from_bytes(self.take(length)?).map_err(CheckpointError::Sketch)
    }

    fn present(&mut self) -> Result<bool, CheckpointError> {
        match self.array()? {
            [0] => Ok(false),
            [1] => Ok(true),
            _ => Err(CheckpointError::Content),
        }
    }

    /// Reads a number, which must fit into the database's bigint.
    fn count(&mut self) -> Result<u64, CheckpointError> {
        let count = u64::from_be_bytes(self.array()?);
        if count > REQUESTS_MAX { Err(CheckpointError::Content) } else { Ok(count) }
    }

    fn length(&mut self) -> Result<usize, CheckpointError> {
        usize::try_from(self.u32()?).map_err(|_| CheckpointError::Content)
    }

    fn u32(&mut self) -> Result<u32, CheckpointError> {
        self.array().map(u32::from_be_bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], CheckpointError> {
        let (first, rest) = self.0.split_first_chunk().ok_or(CheckpointError::Content)?;
        self.0 = rest;
        Ok(*first)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], CheckpointError> {
        let (first, rest) = self.0.split_at_checked(length).ok_or(CheckpointError::Content)?;
        self.0 = rest;
        Ok(first)
    }
}

#[cfg(test)]
mod tests {
    use boundary_usage_tracker::{HashingKey, ThetaSketch};

    use super::*;
    use crate::checkpoint::file;

    fn snapshot(ids: std::ops::Range<u128>, allowed: u64, denied: u64) -> Snapshot {
        let sketch = || {
            let mut set = ThetaSketch::new();
            ids.clone().for_each(|id| set.insert(HashingKey(1, 2), id));
            set.compact()
        };
        Snapshot { uniques: Uniques { workspaces: sketch(), users: sketch() }, allowed, denied }
    }

    fn checkpoint(delta: Option<Snapshot>, in_doubt: Option<InDoubt>) -> Checkpoint {
        let ledger_state = LedgerState { last_flush: 6, unflushed: Unflushed { delta, in_doubt } };
        Checkpoint { replica: Uuid::from_u128(0xaa), fingerprint: [7; 16], ledger_state, offline: None }
    }

    fn full() -> Checkpoint {
        let in_doubt = InDoubt { flush: 7, snapshot: snapshot(0..3, 10, 1) };
        checkpoint(Some(snapshot(2..7, 20, REQUESTS_MAX)), Some(in_doubt))
    }

    /// Corrects the checksum, so that only the checks of the content can detect damage.
    fn resealed(mut bytes: Vec<u8>) -> Vec<u8> {
        bytes.truncate(bytes.len() - CHECKSUM_BYTES);
        let checksum = Sha256::digest(&bytes);
        bytes.extend(checksum);
        bytes
    }

    #[test]
    fn a_checkpoint_survives_a_round_trip() {
        let in_doubt = full().ledger_state.unflushed.in_doubt;
        let with_offline = Checkpoint { offline: Some(snapshot(5..9, 3, 4)), ..full() };
        for original in [full(), checkpoint(None, None), checkpoint(None, in_doubt), with_offline] {
            let bytes = original.to_bytes();
            let read = Checkpoint::from_bytes(&bytes).unwrap();
            assert_eq!(read.to_bytes(), bytes);
            assert_eq!((read.replica(), read.last_flush()), (Uuid::from_u128(0xaa), 6));
            assert_eq!((read.flush_in_doubt(), read.requests()), (original.flush_in_doubt(), original.requests()));
        }
    }

    /// Returns a checkpoint with every part, and with sketches of the maximum length.
    fn longest() -> Vec<u8> {
        let full = || snapshot(0..100_000, 10, 1);
        let in_doubt = InDoubt { flush: 7, snapshot: full() };
        Checkpoint { offline: Some(full()), ..checkpoint(Some(full()), Some(in_doubt)) }.to_bytes()
    }

    #[test]
    fn the_longest_file_is_read_completely_and_a_longer_one_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("checkpoint");
        let mut bytes = longest();
        assert_eq!(bytes.len(), BYTES_MAX);
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(file::read(&path).unwrap().unwrap().to_bytes(), bytes);
        bytes.push(0);
        std::fs::write(&path, &bytes).unwrap();
        assert!(matches!(file::read(&path), Err(CheckpointError::Length { .. })));
    }

    #[test]
    fn a_checkpoint_reports_the_flush_in_doubt_and_the_sum_of_its_requests() {
        let offline = Some(snapshot(5..9, 3, 4));
        let in_doubt = InDoubt { flush: 7, snapshot: snapshot(0..3, 10, 1) };
        let all = Checkpoint { offline, ..checkpoint(Some(snapshot(2..7, 20, 2)), Some(in_doubt)) };
        assert_eq!((all.flush_in_doubt(), all.requests()), (Some(7), (33, 7)));
        assert_eq!(checkpoint(None, None).flush_in_doubt(), None);
    }

    #[test]
    fn a_checkpoint_is_empty_without_any_part_and_only_offline_with_that_part_alone() {
        for parts in 0..8 {
            let snapshot = |part: u8| ((parts >> part) & 1 == 1).then(|| snapshot(0..3, 1, 1));
            let in_doubt = snapshot(1).map(|snapshot| InDoubt { flush: 7, snapshot });
            let checkpoint = Checkpoint { offline: snapshot(2), ..checkpoint(snapshot(0), in_doubt) };
            assert_eq!(checkpoint.is_empty(), parts == 0, "{parts:#b}");
            assert_eq!(checkpoint.is_only_offline(), parts == 0b100, "{parts:#b}");
        }
    }

    #[test]
    fn a_checkpoint_with_any_byte_damaged_is_refused() {
        let bytes = full().to_bytes();
        for position in 0..bytes.len() {
            for damage in [0x01, 0x80, 0xff] {
                let mut damaged = bytes.clone();
                damaged[position] ^= damage;
                assert!(Checkpoint::from_bytes(&damaged).is_err(), "byte {position} damaged by {damage:#x}");
            }
        }
    }

    #[test]
    fn a_checkpoint_that_is_truncated_or_too_long_is_refused() {
        let mut bytes = full().to_bytes();
        for length in 0..bytes.len() {
            assert!(Checkpoint::from_bytes(&bytes[..length]).is_err(), "cut at {length}");
        }
        bytes.push(0);
        assert!(matches!(Checkpoint::from_bytes(&bytes), Err(CheckpointError::Length { .. })));
    }

    #[test]
    fn invalid_content_with_a_right_checksum_never_panics() {
        let bytes = full().to_bytes();
        for position in HEADER_BYTES..bytes.len() - CHECKSUM_BYTES {
            let mut damaged = bytes.clone();
            damaged[position] ^= 0xff;
            if let Ok(checkpoint) = Checkpoint::from_bytes(&resealed(damaged)) {
                let snapshots = checkpoint.ledger_state.unflushed;
                if let (Some(delta), Some(in_doubt)) = (snapshots.delta, snapshots.in_doubt) {
                    delta.merge(&in_doubt.snapshot);
                }
            }
        }
    }

    #[test]
    fn an_unknown_version_is_reported() {
        let mut bytes = full().to_bytes();
        bytes[11] = 9;
        let error = Checkpoint::from_bytes(&resealed(bytes)).unwrap_err();
        assert!(matches!(error, CheckpointError::Version { version: 9 }), "{error}");
    }
}
