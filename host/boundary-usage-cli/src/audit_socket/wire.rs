//! An iterator over the fields of a protobuf message, compatible with Go's library.

/// The deepest nesting of groups, as in Go's library.
const MAX_DEPTH: usize = 10_000;

/// The largest field number of a message.
///
/// Inside unknown groups, Go's library allows larger numbers.
const MAX_FIELD: u64 = (1 << 29) - 1;
const MAX_FIELD_IN_GROUP: u64 = i32::MAX as u64;

/// The reason why data is not a protobuf message.
///
/// The connection can continue after such an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A field is longer than the message around it.
    #[error("the message ends inside a field")]
    Cut,
    /// A number has more than 64 bits.
    #[error("a number has more than 64 bits")]
    Number,
    /// A field has an invalid number or wire type.
    #[error("the field key {0} is invalid")]
    Key(u64),
    /// A group ends without a beginning.
    #[error("groups do not nest")]
    Group,
    /// Groups are nested too deep.
    #[error("groups are nested deeper than {MAX_DEPTH}")]
    Depth,
    /// A string is not UTF-8.
    #[error("a string is not UTF-8")]
    Utf8,
}

/// The value of a field. Types that these messages do not use are [`Value::Other`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    Other,
}

/// The fields of a message as numbers and values, up to the first error.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Value<'a>), DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

impl<'a> Fields<'a> {
    fn field(&mut self) -> Result<(u64, Value<'a>), DecodeError> {
        let (number, kind) = self.key(MAX_FIELD)?;
        let value = match kind {
            0 => Value::Number(self.number()?),
            2 => Value::Bytes(self.bytes()?),
            3 => {
                self.skip_group(number)?;
                Value::Other
            }
            4 => return Err(DecodeError::Group),
            kind => {
                self.skip(number, kind)?;
                Value::Other
            }
        };
        Ok((number, value))
    }

    fn key(&mut self, max: u64) -> Result<(u64, u64), DecodeError> {
        let key = self.number()?;
        let (number, kind) = (key >> 3, key & 7);
        if (1..=max).contains(&number) { Ok((number, kind)) } else { Err(DecodeError::Key(key)) }
    }

    /// Reads a number of 7 bits per byte, the lowest bits first.
    fn number(&mut self) -> Result<u64, DecodeError> {
        let mut number = 0;
        for (position, byte) in self.0.iter().enumerate().take(10) {
            if position == 9 && *byte > 1 {
                return Err(DecodeError::Number);
            }
            number |= u64::from(byte & 0x7f) << (7 * position);
            if byte & 0x80 == 0 {
                self.0 = &self.0[position + 1..];
                return Ok(number);
            }
        }
        Err(DecodeError::Cut)
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], DecodeError> {
        let length = usize::try_from(length).map_err(|_| DecodeError::Cut)?;
        let (taken, rest) = self.0.split_at_checked(length).ok_or(DecodeError::Cut)?;
        self.0 = rest;
        Ok(taken)
    }

    fn bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = self.number()?;
        self.take(length)
    }

    /// Skips the value of a field that is not a group.
    fn skip(&mut self, number: u64, kind: u64) -> Result<(), DecodeError> {
        match kind {
            0 => self.number().map(drop),
            1 => self.take(8).map(drop),
            2 => self.bytes().map(drop),
            5 => self.take(4).map(drop),
            _ => Err(DecodeError::Key(number << 3 | kind)),
        }
    }

    /// Skips the rest of a group.
    ///
    /// Does not recurse, because a client controls the depth.
    fn skip_group(&mut self, number: u64) -> Result<(), DecodeError> {
        let mut open = vec![number];
        while let Some(innermost) = open.last() {
            if self.0.is_empty() {
                return Err(DecodeError::Cut);
            }
            match self.key(MAX_FIELD_IN_GROUP)? {
                (number, 3) if open.len() <= MAX_DEPTH => open.push(number),
                (_, 3) => return Err(DecodeError::Depth),
                (number, 4) if number == *innermost => drop(open.pop()),
                (_, 4) => return Err(DecodeError::Group),
                (number, kind) => self.skip(number, kind)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(data: &[u8]) -> Result<Vec<(u64, Value<'_>)>, DecodeError> {
        Fields(data).collect()
    }

    #[test]
    fn fields_of_every_wire_type_are_read_or_skipped() {
        let data = b"\x08\x96\x01\x11eight678\x1a\x02hi\x25four\x2b\x08\x01\x33\x34\x2c\x30\x00";
        let other = |number| (number, Value::Other);
        let expected =
            [(1, Value::Number(150)), other(2), (3, Value::Bytes(b"hi")), other(4), other(5), (6, Value::Number(0))];
        assert_eq!(read(data).unwrap(), expected);
    }

    #[test]
    fn a_message_that_ends_inside_a_field_is_an_error() {
        for data in
            [&b"\x08"[..], b"\x08\x80", b"\x11seven67", b"\x1a\x05few", b"\x25abc", b"\x2b", b"\xff", b"\xff\xff\xff"]
        {
            assert_eq!(read(data), Err(DecodeError::Cut), "{data:?}");
        }
    }

    #[test]
    fn numbers_have_at_most_64_bits() {
        let with_last = |last: u8| [&[0x08][..], &[0xff; 9], &[last]].concat();
        assert_eq!(read(&with_last(1)).unwrap(), [(1, Value::Number(u64::MAX))]);
        assert_eq!(read(&with_last(2)), Err(DecodeError::Number));
        assert_eq!(read(&with_last(0x80)), Err(DecodeError::Number));
    }

    #[test]
    fn invalid_field_numbers_and_wire_types_are_errors() {
        assert_eq!(read(b"\x00\x00"), Err(DecodeError::Key(0)));
        assert_eq!(read(b"\x0e"), Err(DecodeError::Key(0x0e)));
        assert_eq!(read(b"\x0f"), Err(DecodeError::Key(0x0f)));
        let largest = b"\xf8\xff\xff\xff\x0f\x00";
        assert_eq!(read(largest).unwrap(), [(MAX_FIELD, Value::Number(0))]);
        assert!(matches!(read(b"\x80\x80\x80\x80\x10\x00"), Err(DecodeError::Key(_))));
    }

    #[test]
    fn groups_must_nest_within_the_depth_limit() {
        assert_eq!(read(b"\x4b\x53\x54\x4c").unwrap(), [(9, Value::Other)]);
        assert_eq!(read(b"\x4c"), Err(DecodeError::Group));
        assert_eq!(read(b"\x4b\x54"), Err(DecodeError::Group));
        let nested = |depth: usize| [vec![0x4b; depth], vec![0x4c; depth]].concat();
        assert_eq!(read(&nested(MAX_DEPTH)).unwrap(), [(9, Value::Other)]);
        assert_eq!(read(&nested(MAX_DEPTH + 2)), Err(DecodeError::Depth));
    }
}
