//! The fields of a protobuf message, one after another, borrowed from its bytes.

/// The value of a field, by its wire type. Groups are not read: version 3 has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Value<'m> {
    Varint(u64),
    Fixed64([u8; 8]),
    Bytes(&'m [u8]),
    Fixed32([u8; 4]),
}

/// What cannot be read as a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

/// A varint at the start of `bytes`, and what follows.
fn varint(bytes: &[u8]) -> Result<(u64, &[u8]), Malformed> {
    let mut value = 0_u64;
    for (at, byte) in bytes.iter().enumerate().take(10) {
        // The tenth byte has one bit of the number.
        if at == 9 && *byte > 1 {
            return Err(Malformed);
        }
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Ok((value, bytes.get(at + 1..).unwrap_or_default()));
        }
    }
    Err(Malformed)
}

/// Gives `take` the numbers of a list, of which a field has one or several packed.
pub(super) fn varints<E: From<Malformed>>(
    value: Value<'_>,
    mut take: impl FnMut(u64) -> Result<(), E>,
) -> Result<(), E> {
    match value {
        Value::Varint(number) => take(number),
        Value::Bytes(mut packed) => {
            while !packed.is_empty() {
                let (number, rest) = varint(packed)?;
                take(number)?;
                packed = rest;
            }
            Ok(())
        }
        Value::Fixed32(_) | Value::Fixed64(_) => Err(Malformed.into()),
    }
}

/// The fields of a message; it ends with the first that cannot be read.
#[derive(Debug, Clone)]
pub(super) struct Fields<'m> {
    left: &'m [u8],
}

impl<'m> Fields<'m> {
    pub(super) fn of(message: &'m [u8]) -> Self {
        Self { left: message }
    }

    fn read(&mut self) -> Result<(u64, Value<'m>), Malformed> {
        let (key, rest) = varint(self.left)?;
        let number = key >> 3;
        if number == 0 || number > 0x1fff_ffff {
            return Err(Malformed);
        }
        let (value, rest) = match key & 7 {
            0 => varint(rest).map(|(value, rest)| (Value::Varint(value), rest))?,
            1 => rest
                .split_first_chunk()
                .map(|(v, rest)| (Value::Fixed64(*v), rest))
                .ok_or(Malformed)?,
            2 => {
                let (length, rest) = varint(rest)?;
                let length = usize::try_from(length).map_err(|_| Malformed)?;
                let (bytes, rest) = rest.split_at_checked(length).ok_or(Malformed)?;
                (Value::Bytes(bytes), rest)
            }
            5 => rest
                .split_first_chunk()
                .map(|(v, rest)| (Value::Fixed32(*v), rest))
                .ok_or(Malformed)?,
            _ => return Err(Malformed),
        };
        self.left = rest;
        Ok((number, value))
    }
}

impl<'m> Iterator for Fields<'m> {
    type Item = Result<(u64, Value<'m>), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left.is_empty() {
            return None;
        }
        let read = self.read();
        if read.is_err() {
            self.left = &[];
        }
        Some(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_that_lie_end_the_message() {
        for bytes in [
            &b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"[..],
            b"\x3a\x02a",
            b"\x09\0\0\0\0\0\0\0",
            b"\x0d\0\0\0",
            b"\x0b",
            b"\x0c",
            b"\x07",
            b"\0\0",
            b"\x80",
            b"\x08\x80\x80\x80\x80\x80\x80\x80\x80\x80\x02",
            b"\x08\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01",
        ] {
            let last = Fields::of(bytes).last();
            assert_eq!(last, Some(Err(Malformed)), "{bytes:?}");
        }
        let max = b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01";
        let fields: Vec<_> = Fields::of(max).collect();
        assert_eq!(fields, [Ok((1, Value::Varint(u64::MAX)))]);
    }
}
