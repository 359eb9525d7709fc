//! The frames of the audit socket: a 32-bit big-endian header, then the data.
//!
//! ```text
//! INPUT                                                              DECODED
//!
//! ┌─────┬──────────────────┬─────────────────────────┐
//! │ tag │ length           │ data                    │
//! │ u8  │ u24, big-endian  │ `length` bytes          │
//! ├─────┼──────────────────┼─────────────────────────┤
//! │ 01  │ 00 00 04         │ 0a 02 08 01             │              Frame { tag: Logs, data: [0a, 02, 08, 01] }
//! ├─────┼──────────────────┼─────────────────────────┤
//! │ 02  │ 00 00 02         │ 12 00                   │              Frame { tag: Message, data: [12, 00] }
//! ├─────┼──────────────────┼─────────────────────────┤
//! │ 01  │ 00 00 00         │                         │              Frame { tag: Logs, data: [] }
//! ├─────┼──────────────────┼─────────────────────────┤
//! │ 07  │ ..               │ ..                      │              UnknownTag(7), on seeing the header
//! ├─────┼──────────────────┼─────────────────────────┤
//! │ 01  │ 00 80 01         │ ..                      │              TooLong(32769), on seeing the header
//! └─────┴──────────────────┴─────────────────────────┘
//! ```
//!
//! The decoder validates the header before it allocates the data, so a hostile length allocates nothing.

use std::io;

use tokio_util::bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio_util::codec::{Decoder, Encoder};

/// The maximum length of a frame's data, in bytes.
pub const MAX_DATA_BYTES: usize = 32_768;

const HEADER_BYTES: usize = 4;

/// The kind of message in a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tag {
    /// A `ReportBoundaryLogsRequest`, which older clients send.
    Logs = 1,
    /// A `BoundaryMessage`, which contains logs or a status.
    Message = 2,
}

impl TryFrom<u8> for Tag {
    type Error = FrameError;

    fn try_from(tag: u8) -> Result<Self, FrameError> {
        match tag {
            1 => Ok(Self::Logs),
            2 => Ok(Self::Message),
            _ => Err(FrameError::UnknownTag(tag)),
        }
    }
}

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The kind of message.
    pub tag: Tag,
    /// The encoded protobuf message.
    pub data: Bytes,
}

/// The reason why bytes are not a frame.
///
/// After any of these errors the position in the stream is lost, so the server closes the connection.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The tag is unknown.
    #[error("unknown frame tag {0}, expected 1 or 2")]
    UnknownTag(u8),
    /// The length exceeds [`MAX_DATA_BYTES`].
    #[error("the frame has {0} bytes; the limit is {MAX_DATA_BYTES}")]
    TooLong(usize),
    /// The connection ended inside a frame.
    #[error("the connection ended inside a frame, after {0} of its bytes")]
    CutOff(usize),
    /// The connection failed.
    #[error("cannot read from the connection")]
    Io(#[from] io::Error),
}

/// The codec that decodes and encodes frames.
#[derive(Clone, Copy, Debug, Default)]
pub struct FrameCodec;

impl Decoder for FrameCodec {
    type Item = Frame;
    type Error = FrameError;

    fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
        let Some(header) = buffer.first_chunk::<HEADER_BYTES>() else {
            return Ok(None);
        };
        let tag = Tag::try_from(header[0])?;
        let length = u32::from_be_bytes([0, header[1], header[2], header[3]]) as usize;
        if length > MAX_DATA_BYTES {
            return Err(FrameError::TooLong(length));
        }
        if buffer.len() < HEADER_BYTES + length {
            buffer.reserve(HEADER_BYTES + length - buffer.len());
            return Ok(None);
        }
        buffer.advance(HEADER_BYTES);
        Ok(Some(Frame { tag, data: buffer.split_to(length).freeze() }))
    }

    fn decode_eof(&mut self, buffer: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
        match self.decode(buffer)? {
            None if !buffer.is_empty() => Err(FrameError::CutOff(buffer.len())),
            frame => Ok(frame),
        }
    }
}

impl Encoder<&Frame> for FrameCodec {
    type Error = FrameError;

    fn encode(&mut self, frame: &Frame, buffer: &mut BytesMut) -> Result<(), FrameError> {
        let length = frame.data.len();
        if length > MAX_DATA_BYTES {
            return Err(FrameError::TooLong(length));
        }
        buffer.reserve(HEADER_BYTES + length);
        buffer.put_u8(frame.tag as u8);
        buffer.put_uint(length as u64, HEADER_BYTES - 1);
        buffer.put_slice(&frame.data);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three frames as bytes: logs, an empty batch, a status.
    const RECORDED: &[u8] = b"\x01\x00\x00\x04\x0a\x02\x08\x01\x01\x00\x00\x00\x02\x00\x00\x02\x12\x00";

    fn recorded() -> Vec<Frame> {
        vec![
            Frame { tag: Tag::Logs, data: Bytes::from_static(b"\x0a\x02\x08\x01") },
            Frame { tag: Tag::Logs, data: Bytes::new() },
            Frame { tag: Tag::Message, data: Bytes::from_static(b"\x12\x00") },
        ]
    }

    /// Decodes the pieces one after another, as if each came from one read.
    fn decode(pieces: &[&[u8]]) -> Result<Vec<Frame>, FrameError> {
        let (mut buffer, mut frames) = (BytesMut::new(), Vec::new());
        for piece in pieces {
            buffer.extend_from_slice(piece);
            while let Some(frame) = FrameCodec.decode(&mut buffer)? {
                frames.push(frame);
            }
        }
        while let Some(frame) = FrameCodec.decode_eof(&mut buffer)? {
            frames.push(frame);
        }
        Ok(frames)
    }

    #[test]
    fn several_frames_in_one_read_are_split() {
        assert_eq!(decode(&[RECORDED]).unwrap(), recorded());
    }

    #[test]
    fn frames_split_at_any_two_places_are_joined() {
        for first in 0..=RECORDED.len() {
            for second in first..=RECORDED.len() {
                let pieces = [&RECORDED[..first], &RECORDED[first..second], &RECORDED[second..]];
                assert_eq!(decode(&pieces).unwrap(), recorded(), "split at {first} and {second}");
            }
        }
    }

    #[test]
    fn frames_that_arrive_byte_by_byte_are_joined() {
        let pieces: Vec<&[u8]> = RECORDED.chunks(1).collect();
        assert_eq!(decode(&pieces).unwrap(), recorded());
    }

    #[test]
    fn encoding_produces_the_recorded_bytes() {
        let mut buffer = BytesMut::new();
        for frame in recorded() {
            FrameCodec.encode(&frame, &mut buffer).unwrap();
        }
        assert_eq!(buffer, RECORDED);
    }

    #[test]
    fn a_frame_one_byte_over_the_limit_is_rejected() {
        let longest = Frame { tag: Tag::Message, data: vec![7; MAX_DATA_BYTES].into() };
        let mut buffer = BytesMut::new();
        FrameCodec.encode(&longest, &mut buffer).unwrap();
        assert_eq!(decode(&[&buffer]).unwrap(), [longest]);

        let longer = Frame { tag: Tag::Message, data: vec![7; MAX_DATA_BYTES + 1].into() };
        assert!(matches!(FrameCodec.encode(&longer, &mut buffer), Err(FrameError::TooLong(32_769))));
    }

    #[test]
    fn a_length_over_the_limit_is_rejected_without_an_allocation() {
        let mut buffer = BytesMut::from(&b"\x01\xff\xff\xff"[..]);
        let capacity = buffer.capacity();
        assert!(matches!(FrameCodec.decode(&mut buffer), Err(FrameError::TooLong(0xff_ffff))));
        assert_eq!(buffer.capacity(), capacity);
    }

    #[test]
    fn an_incomplete_frame_allocates_at_most_one_frame() {
        let mut buffer = BytesMut::from(&b"\x01\x00\x80\x00few"[..]);
        for _ in 0..1_000 {
            assert!(FrameCodec.decode(&mut buffer).unwrap().is_none());
        }
        assert!(buffer.capacity() <= 2 * (HEADER_BYTES + MAX_DATA_BYTES), "{} bytes", buffer.capacity());
        assert!(matches!(FrameCodec.decode_eof(&mut buffer), Err(FrameError::CutOff(7))));
    }

    #[test]
    fn an_unknown_tag_is_rejected_before_the_data() {
        for tag in (0..=u8::MAX).filter(|tag| ![1, 2].contains(tag)) {
            let refused = decode(&[&[tag, 0, 0, 1]]);
            assert!(matches!(refused, Err(FrameError::UnknownTag(found)) if found == tag), "tag {tag}");
        }
    }

    #[test]
    fn a_stream_that_ends_inside_a_frame_is_an_error() {
        let ends = [0, 8, 12, RECORDED.len()];
        for end in 0..=RECORDED.len() {
            match decode(&[&RECORDED[..end]]) {
                Ok(_) => assert!(ends.contains(&end), "{end} is inside a frame"),
                Err(FrameError::CutOff(_)) => assert!(!ends.contains(&end), "{end} is between frames"),
                Err(other) => panic!("{other}"),
            }
        }
    }
}
