//! Fuzz targets for all parsers of foreign bytes, and mutations of their inputs.
//!
//! A parser may reject its input. It must not panic, allocate without a limit, or contradict itself.

use std::io::BufReader;
use std::path::PathBuf;

use anyhow::{Context, Result};
use boundary_usage::{Checkpoint, Database};
use boundary_usage_cli::audit_socket::{
    BoundaryLog, BoundaryMessage, Frame, FrameCodec, MAX_DATA_BYTES, MAX_LOGS_PER_BATCH, Message, Received,
    ReportBoundaryLogsRequest, Tag, receive,
};
use boundary_usage_cli::replay_file::Recording;
use boundary_usage_tracker::{CompactThetaSketch, SKETCH_BYTES_MAX};
use prost::Message as _;
use sha2::{Digest, Sha256};
use tokio_util::bytes::BytesMut;
use tokio_util::codec::Decoder;
use url::Url;

/// The name of a parser, and a function that tests the parser with an input.
///
/// The name is also the directory of its corpus.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: [Target; 5] = [
    ("audit_frames", audit_frames),
    ("json_lines", json_lines),
    ("sketch", sketch),
    ("checkpoint", checkpoint),
    ("database_url", database_url),
];

/// Decodes the frames of an audit socket, and their messages.
///
/// The result must not depend on how the bytes are split.
pub fn audit_frames(input: &[u8]) {
    let whole = decode(&[input]);
    let (first, second) = input.split_at(input.len() / 3);
    assert_eq!(whole, decode(&[first, second]));
}

fn decode(pieces: &[&[u8]]) -> Vec<Option<Received>> {
    let (mut buffer, mut received) = (BytesMut::new(), Vec::new());
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            let held = buffer.len();
            match FrameCodec.decode(&mut buffer) {
                Ok(Some(frame)) => {
                    let message = receive(&frame).ok();
                    assert_equals_prost(&frame, message);
                    if let Some(Received::Batch { allowed, denied, skipped }) = message {
                        assert!(allowed + denied + skipped <= MAX_LOGS_PER_BATCH as u64);
                    }
                    received.push(message);
                }
                Ok(None) => break,
                Err(_) => return received,
            }
            assert!(buffer.len() < held);
        }
        assert!(buffer.len() <= 4 + MAX_DATA_BYTES, "an incomplete frame is longer than the longest frame");
    }
    received
}

/// Compares the decoded message with that of prost.
///
/// Prost also rejects fields of a wrong wire type, so a frame that prost rejects proves nothing.
fn assert_equals_prost(frame: &Frame, received: Option<Received>) {
    let data = frame.data.clone();
    let message = match frame.tag {
        Tag::Logs => ReportBoundaryLogsRequest::decode(data).map(|logs| Some(Message::Logs(logs))),
        Tag::Message => BoundaryMessage::decode(data).map(|envelope| envelope.message),
    };
    let expected = match message {
        Err(_) => return,
        Ok(None) => Received::Unknown,
        Ok(Some(Message::Status(status))) => Received::Dropped {
            channel_full: status.dropped_channel_full.max(0).unsigned_abs(),
            batch_full: status.dropped_batch_full.max(0).unsigned_abs(),
        },
        Ok(Some(Message::Logs(request))) if request.logs.len() > MAX_LOGS_PER_BATCH => {
            Received::Refused { logs: request.logs.len() }
        }
        Ok(Some(Message::Logs(request))) => {
            let count =
                |condition: fn(&BoundaryLog) -> bool| request.logs.iter().filter(|log| condition(log)).count() as u64;
            Received::Batch {
                allowed: count(|log| log.resource.is_some() && log.allowed),
                denied: count(|log| log.resource.is_some() && !log.allowed),
                skipped: count(|log| log.resource.is_none()),
            }
        }
    };
    assert_eq!(received, Some(expected));
}

/// Reads the lines of a recording. Their lengths must add up to the length of the input.
pub fn json_lines(input: &[u8]) {
    let lines = Recording::new(BufReader::with_capacity(64, input));
    let bytes: u64 = lines.map(|line| line.expect("reading from memory does not fail").bytes).sum();
    assert_eq!(bytes, input.len() as u64);
}

/// Reads a sketch from a database column.
///
/// A valid sketch can be merged, and its serialized form has a bounded size.
pub fn sketch(input: &[u8]) {
    if let Ok(sketch) = CompactThetaSketch::from_bytes(input) {
        let union = sketch.union(&CompactThetaSketch::empty()).union(&sketch);
        assert!(union.to_bytes().len() <= SKETCH_BYTES_MAX);
        CompactThetaSketch::from_bytes(&union.to_bytes()).expect("a serialized sketch is valid");
        sketch.count();
        union.count();
    }
}

/// Reads a checkpoint file.
///
/// The input is the body between a valid header and checksum, because nearly all other inputs would fail at the
/// checksum. A valid checkpoint must survive writing and reading.
pub fn checkpoint(body: &[u8]) {
    assert!(Checkpoint::from_bytes(body).is_err(), "a body without a header is not a checkpoint");
    let mut file = b"BUSAGECP\0\0\0\x01".to_vec();
    file.extend(u32::try_from(body.len()).expect("inputs are small").to_be_bytes());
    file.extend(body);
    file.extend(Sha256::digest(&file));
    if let Ok(checkpoint) = Checkpoint::from_bytes(&file) {
        let again = Checkpoint::from_bytes(&checkpoint.to_bytes()).expect("a written checkpoint is valid");
        assert_eq!(again.requests(), checkpoint.requests());
        assert_eq!((again.last_flush(), again.is_empty()), (checkpoint.last_flush(), checkpoint.is_empty()));
    }
}

/// Parses a database URL.
///
/// An error must not contain the password, wherever mutations put it.
pub fn database_url(input: &[u8]) {
    const PASSWORD: &str = "hunter2";
    let text = String::from_utf8_lossy(input);
    if let Err(error) = Database::check_url(&text) {
        let shown = format!("{error} {error:?}");
        let may_be_shown =
            !(text.starts_with("postgres:") || text.starts_with("postgresql:")) || is_in_file_name(&text, PASSWORD);
        assert!(may_be_shown || !shown.contains(PASSWORD), "{shown}");
    }
}

/// Returns whether the text is part of the root certificate's file name.
///
/// It is the only value of a parameter that messages show, because the user must see a mistyped file name. An unencoded
/// `?` in a password does not move the rest of the password there, because the parser rejects a `?` before an `@`.
fn is_in_file_name(url: &str, part: &str) -> bool {
    let names = ["sslrootcert", "ssl-root-cert"];
    Url::parse(url)
        .is_ok_and(|url| url.query_pairs().any(|(name, value)| names.contains(&&*name) && value.contains(part)))
}

/// Returns the committed inputs of a target, sorted by name.
///
/// # Errors
///
/// Returns an error if there are none, or if one cannot be read.
pub fn corpus(target: &str) -> Result<Vec<Vec<u8>>> {
    let directory = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/corpus")).join(target);
    let entries =
        std::fs::read_dir(&directory).with_context(|| format!("cannot read the corpus {}", directory.display()))?;
    let mut paths = entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>()?;
    paths.sort();
    anyhow::ensure!(!paths.is_empty(), "the corpus {} is empty", directory.display());
    paths.iter().map(|path| std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))).collect()
}

/// A generator of pseudorandom numbers (SplitMix64), seeded with its field.
pub struct Numbers(pub u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % limit.max(1) as u64) as usize
    }

    /// Changes an input in one to eight places, and inserts parts of another input.
    pub fn mutate(&mut self, input: &[u8], other: &[u8]) -> Vec<u8> {
        let mut bytes = input.to_vec();
        for _ in 0..=self.below(8) {
            let at = self.below(bytes.len() + 1);
            match self.below(7) {
                0 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
                1 if at < bytes.len() => bytes[at] = [0, 1, 0x7f, 0x80, 0xff, b'@', b'/', b'?'][self.below(8)],
                2 => bytes.insert(at, self.below(256) as u8),
                3 => bytes.truncate(at),
                4 => {
                    let end = (at + self.below(16)).min(bytes.len());
                    bytes.drain(at..end);
                }
                5 => {
                    let start = self.below(other.len());
                    let part = &other[start..(start + self.below(64)).min(other.len())];
                    bytes.splice(at..at, part.iter().copied());
                }
                _ => {
                    let end = (at + 1 + self.below(32)).min(bytes.len());
                    let part = bytes[at..end].to_vec();
                    bytes.splice(at..at, part);
                }
            }
        }
        bytes
    }
}
