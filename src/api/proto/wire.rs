//! The protobuf wire format: tags, varints, length-delimited bytes.

/// Why bytes are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Problem {
    #[error("the message ends early")]
    Truncated,
    #[error("a number is longer than 64 bits")]
    Overlong,
    #[error("a field has a wire type that is not its own")]
    WireType,
    #[error("a text is not UTF-8")]
    Utf8,
    #[error("messages are nested too deep")]
    Depth,
    #[error("a time is out of range")]
    Time,
    #[error("an embedded object is not JSON")]
    Json,
}

/// A field's value as it is on the wire.
#[derive(Debug, Clone, Copy)]
pub(super) enum Wire<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32,
    Bytes(&'a [u8]),
}

impl<'a> Wire<'a> {
    pub(super) fn bytes(self) -> Result<&'a [u8], Problem> {
        if let Self::Bytes(bytes) = self { Ok(bytes) } else { Err(Problem::WireType) }
    }

    pub(super) fn text(self) -> Result<&'a str, Problem> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Problem::Utf8)
    }

    /// A number of 64 bits, two's complement.
    pub(super) fn int64(self) -> Result<i64, Problem> {
        if let Self::Varint(number) = self { Ok(number.cast_signed()) } else { Err(Problem::WireType) }
    }

    /// A number of 32 bits: what lies above is the sign, which writers extend.
    pub(super) fn int32(self) -> Result<i32, Problem> {
        let low = self.int64()? & 0xffff_ffff;
        Ok(u32::try_from(low).map_err(|_| Problem::Overlong)?.cast_signed())
    }

    pub(super) fn double(self) -> Result<f64, Problem> {
        if let Self::Fixed64(bits) = self { Ok(f64::from_bits(bits)) } else { Err(Problem::WireType) }
    }
}

/// The fields of one message, one after the other.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Number and value of the next field.
    pub(super) fn next(&mut self) -> Result<Option<(u64, Wire<'a>)>, Problem> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Wire::Varint(self.varint()?),
            1 => Wire::Fixed64(self.fixed64()?),
            2 => {
                let len = usize::try_from(self.varint()?).map_err(|_| Problem::Truncated)?;
                Wire::Bytes(self.take(len)?)
            }
            5 => {
                self.take(4)?;
                Wire::Fixed32
            }
            _ => return Err(Problem::WireType),
        };
        Ok(Some((tag >> 3, value)))
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], Problem> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(Problem::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    fn fixed64(&mut self) -> Result<u64, Problem> {
        let bytes = self.take(8)?.try_into().map_err(|_| Problem::Truncated)?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// A number of up to ten groups of seven bits; also the elements of packed lists.
    pub(super) fn varint(&mut self) -> Result<u64, Problem> {
        let mut number = 0_u64;
        for group in 0..10 {
            let byte = *self.rest.first().ok_or(Problem::Truncated)?;
            self.rest = &self.rest[1..];
            number |= u64::from(byte & 0x7f) << (7 * group);
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(Problem::Overlong)
    }

    pub(super) fn is_done(&self) -> bool {
        self.rest.is_empty()
    }
}
