//! The bytes of a checkpoint; pure. All numbers are big-endian.
//!
//! ```text
//! "BUSAGECP"  version u32  length of the body u32
//! body:       replica 16   database 16   last flush u64
//!             in doubt u8 [flush u64, snapshot]   open u8 [snapshot]   in version 2: [snapshot] recorded since
//! snapshot:   allowed u64  denied u64  { length u32, compact sketch } of workspaces, of users
//! SHA-256 over all of this
//! ```

use boundary_usage_tracker::{
    CompactThetaSketch, InDoubt, REQUESTS_MAX, SKETCH_BYTES_MAX, SketchError, Snapshot, Unflushed, Uniques,
};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::Fingerprint;
use crate::ledger::LedgerState;

const MAGIC: [u8; 8] = *b"BUSAGECP";
/// Of a checkpoint whose account goes on where the database stands.
const VERSION: u32 = 1;

/// Of one that also holds activity recorded while the database was away from the start on.
const VERSION_SINCE: u32 = 2;

const HEADER_BYTES: usize = 8 + 4 + 4;
const CHECKSUM_BYTES: usize = 32;
const SNAPSHOT_BYTES_MAX: usize = 8 + 8 + 2 * (4 + SKETCH_BYTES_MAX);

/// The longest checkpoint, in bytes: about half a megabyte.
pub(super) const BYTES_MAX: usize = HEADER_BYTES
    + 16
    + 16
    + 8
    + (1 + 8 + SNAPSHOT_BYTES_MAX)
    + (1 + SNAPSHOT_BYTES_MAX)
    + SNAPSHOT_BYTES_MAX
    + CHECKSUM_BYTES;

/// What a checkpoint file holds: the activity of one replica that is not in its database for certain.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    pub(super) replica: Uuid,
    pub(super) fingerprint: Fingerprint,
    pub(super) account: LedgerState,
    /// Activity recorded since a start without the database. No flush has carried it, whatever becomes of the account.
    pub(super) since: Option<Snapshot>,
}

/// Bytes that are no checkpoint.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// Not made by this program, or cut at the beginning.
    #[error("it is not a checkpoint")]
    NotACheckpoint,
    /// Made by another version of this program.
    #[error("it has version {version}, and this program reads versions {VERSION} and {VERSION_SINCE}")]
    Version {
        /// Its version.
        version: u32,
    },
    /// Cut, or with something behind its end.
    #[error("it has {actual} bytes where it says {expected}")]
    Length {
        /// As its header says.
        expected: usize,
        /// As they are.
        actual: usize,
    },
    /// Changed since it was written.
    #[error("its checksum is wrong")]
    Checksum,
    /// The checksum is right and the content makes no sense.
    #[error("its content makes no sense")]
    Content,
    /// The same of a sketch in it.
    #[error("a sketch in it cannot be used")]
    Sketch(#[source] SketchError),
    /// The file cannot be read.
    #[error("it cannot be read")]
    Io(#[source] std::io::Error),
}

impl Checkpoint {
    /// Reads a checkpoint, and trusts nothing in it.
    ///
    /// # Errors
    ///
    /// When the bytes are not a checkpoint of this version, whole and unchanged.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CheckpointError> {
        let mut header = Reader(bytes);
        let not_ours = |_| CheckpointError::NotACheckpoint;
        if header.array().map_err(not_ours)? != MAGIC {
            return Err(CheckpointError::NotACheckpoint);
        }
        let version = header.u32().map_err(not_ours)?;
        if !matches!(version, VERSION | VERSION_SINCE) {
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
        if version == VERSION_SINCE {
            checkpoint.since = Some(body.snapshot()?);
        }
        if body.0.is_empty() { Ok(checkpoint) } else { Err(CheckpointError::Content) }
    }

    /// As a file holds it.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(MAGIC);
        bytes.extend(if self.since.is_some() { VERSION_SINCE } else { VERSION }.to_be_bytes());
        bytes.extend([0; 4]);
        bytes.extend(self.replica.as_bytes());
        bytes.extend(self.fingerprint);
        bytes.extend(self.account.last_flush.to_be_bytes());
        let Unflushed { delta, in_doubt } = &self.account.unflushed;
        bytes.push(in_doubt.is_some().into());
        if let Some(InDoubt { flush, snapshot }) = in_doubt {
            bytes.extend(flush.to_be_bytes());
            write_snapshot(&mut bytes, snapshot);
        }
        bytes.push(delta.is_some().into());
        if let Some(delta) = delta {
            write_snapshot(&mut bytes, delta);
        }
        if let Some(since) = &self.since {
            write_snapshot(&mut bytes, since);
        }
        let length = length(bytes.len() - HEADER_BYTES);
        bytes[HEADER_BYTES - 4..HEADER_BYTES].copy_from_slice(&length);
        let checksum = Sha256::digest(&bytes);
        bytes.extend(checksum);
        bytes
    }

    /// The replica whose activity it is.
    pub fn replica(&self) -> Uuid {
        self.replica
    }

    /// The number of the last flush that was known to be applied.
    pub fn last_flush(&self) -> u64 {
        self.account.last_flush
    }

    /// The number of the flush that may or may not have been applied.
    pub fn flush_in_doubt(&self) -> Option<u64> {
        self.account.unflushed.in_doubt.as_ref().map(|in_doubt| in_doubt.flush)
    }

    /// Requests (allowed, denied) that it holds, those of the flush in doubt included.
    pub fn requests(&self) -> (u64, u64) {
        let Unflushed { delta, in_doubt } = &self.account.unflushed;
        let snapshots = delta.iter().chain(in_doubt.iter().map(|in_doubt| &in_doubt.snapshot)).chain(&self.since);
        snapshots.fold((0, 0), |(allowed, denied), snapshot| {
            (allowed.saturating_add(snapshot.allowed), denied.saturating_add(snapshot.denied))
        })
    }

    /// Whether all that it holds was recorded since a start without the database.
    pub(super) fn is_only_since(&self) -> bool {
        let Unflushed { delta, in_doubt } = &self.account.unflushed;
        self.since.is_some() && delta.is_none() && in_doubt.is_none()
    }

    /// Whether nothing was left to write.
    pub fn is_empty(&self) -> bool {
        let Unflushed { delta, in_doubt } = &self.account.unflushed;
        delta.is_none() && in_doubt.is_none() && self.since.is_none()
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

/// What is left to read.
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
        let account = LedgerState { last_flush, unflushed: Unflushed { delta, in_doubt } };
        Ok(Checkpoint { replica, fingerprint, account, since: None })
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

    /// A number that fits into the database's bigint.
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
        let account = LedgerState { last_flush: 6, unflushed: Unflushed { delta, in_doubt } };
        Checkpoint { replica: Uuid::from_u128(0xaa), fingerprint: [7; 16], account, since: None }
    }

    fn full() -> Checkpoint {
        let in_doubt = InDoubt { flush: 7, snapshot: snapshot(0..3, 10, 1) };
        checkpoint(Some(snapshot(2..7, 20, REQUESTS_MAX)), Some(in_doubt))
    }

    /// With the checksum that its content wants: damage that only the content's own checks can find.
    fn resealed(mut bytes: Vec<u8>) -> Vec<u8> {
        bytes.truncate(bytes.len() - CHECKSUM_BYTES);
        let checksum = Sha256::digest(&bytes);
        bytes.extend(checksum);
        bytes
    }

    #[test]
    fn a_checkpoint_reads_back_the_same() {
        let in_doubt = full().account.unflushed.in_doubt;
        let with_since = Checkpoint { since: Some(snapshot(5..9, 3, 4)), ..full() };
        for original in [full(), checkpoint(None, None), checkpoint(None, in_doubt), with_since] {
            let bytes = original.to_bytes();
            let read = Checkpoint::from_bytes(&bytes).unwrap();
            assert_eq!(read.to_bytes(), bytes);
            assert_eq!((read.replica(), read.last_flush()), (Uuid::from_u128(0xaa), 6));
            assert_eq!((read.flush_in_doubt(), read.requests()), (original.flush_in_doubt(), original.requests()));
        }
    }

    /// With every part, and each sketch of full length.
    fn longest() -> Vec<u8> {
        let full = || snapshot(0..100_000, 10, 1);
        let in_doubt = InDoubt { flush: 7, snapshot: full() };
        Checkpoint { since: Some(full()), ..checkpoint(Some(full()), Some(in_doubt)) }.to_bytes()
    }

    #[test]
    fn the_longest_checkpoint_has_the_documented_length() {
        assert_eq!(longest().len(), BYTES_MAX);
    }

    #[test]
    fn the_longest_file_is_read_completely_and_a_longer_one_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("checkpoint");
        let mut bytes = longest();
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(file::read(&path).unwrap().unwrap().to_bytes(), bytes);
        bytes.push(0);
        std::fs::write(&path, &bytes).unwrap();
        assert!(matches!(file::read(&path), Err(CheckpointError::Length { .. })));
    }

    #[test]
    fn a_checkpoint_reports_the_flush_in_doubt_and_the_sum_of_its_requests() {
        let since = Some(snapshot(5..9, 3, 4));
        let in_doubt = InDoubt { flush: 7, snapshot: snapshot(0..3, 10, 1) };
        let all = Checkpoint { since, ..checkpoint(Some(snapshot(2..7, 20, 2)), Some(in_doubt)) };
        assert_eq!((all.flush_in_doubt(), all.requests()), (Some(7), (33, 7)));
        assert_eq!(checkpoint(None, None).flush_in_doubt(), None);
    }

    #[test]
    fn a_checkpoint_is_empty_without_any_part_and_only_since_with_that_part_alone() {
        for parts in 0..8 {
            let snapshot = |part: u8| ((parts >> part) & 1 == 1).then(|| snapshot(0..3, 1, 1));
            let in_doubt = snapshot(1).map(|snapshot| InDoubt { flush: 7, snapshot });
            let checkpoint = Checkpoint { since: snapshot(2), ..checkpoint(snapshot(0), in_doubt) };
            assert_eq!(checkpoint.is_empty(), parts == 0, "{parts:#b}");
            assert_eq!(checkpoint.is_only_since(), parts == 0b100, "{parts:#b}");
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
    fn a_checkpoint_cut_at_any_length_or_too_long_is_refused() {
        let mut bytes = full().to_bytes();
        for length in 0..bytes.len() {
            assert!(Checkpoint::from_bytes(&bytes[..length]).is_err(), "cut at {length}");
        }
        bytes.push(0);
        assert!(matches!(Checkpoint::from_bytes(&bytes), Err(CheckpointError::Length { .. })));
    }

    #[test]
    fn content_that_makes_no_sense_under_a_right_checksum_never_panics() {
        let bytes = full().to_bytes();
        for position in HEADER_BYTES..bytes.len() - CHECKSUM_BYTES {
            let mut damaged = bytes.clone();
            damaged[position] ^= 0xff;
            if let Ok(checkpoint) = Checkpoint::from_bytes(&resealed(damaged)) {
                let snapshots = checkpoint.account.unflushed;
                if let (Some(delta), Some(in_doubt)) = (snapshots.delta, snapshots.in_doubt) {
                    delta.merge(&in_doubt.snapshot);
                }
            }
        }
    }

    #[test]
    fn another_version_is_named() {
        let mut bytes = full().to_bytes();
        bytes[11] = 9;
        let error = Checkpoint::from_bytes(&resealed(bytes)).unwrap_err();
        assert!(matches!(error, CheckpointError::Version { version: 9 }), "{error}");
    }
}
