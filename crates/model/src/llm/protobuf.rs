//! The wire format of protocol buffers, as far as it takes to change a few fields of a message and
//! to carry the others over as they are.
//!
//! <https://protobuf.dev/programming-guides/encoding>

/// One field of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Field<'a> {
    /// Its number in the message's definition.
    pub(super) number: u64,
    /// What it holds.
    pub(super) value: Value<'a>,
    /// All of it, its number included.
    pub(super) whole: &'a [u8],
}

/// What a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    /// A whole number.
    Number(u64),
    /// A string, bytes, or a message.
    Bytes(&'a [u8]),
    /// A number of fixed width, which nobody here looks at.
    Fixed,
}

impl<'a> Field<'a> {
    /// The bytes of a field that has some, under this number.
    pub(super) fn bytes(self, number: u64) -> Option<&'a [u8]> {
        match self.value {
            Value::Bytes(bytes) if self.number == number => Some(bytes),
            _ => None,
        }
    }
}

/// The fields of a message, in their order; `None` when it is none.
pub(super) fn fields(mut message: &[u8]) -> Option<Vec<Field<'_>>> {
    let mut fields = Vec::new();
    while !message.is_empty() {
        let start = message;
        let tag = varint(&mut message)?;
        let value = match tag & 7 {
            0 => Value::Number(varint(&mut message)?),
            1 => fixed(&mut message, 8)?,
            2 => {
                let length = usize::try_from(varint(&mut message)?).ok()?;
                Value::Bytes(message.split_off(..length)?)
            }
            5 => fixed(&mut message, 4)?,
            _ => return None,
        };
        let whole = &start[..start.len() - message.len()];
        fields.push(Field { number: tag >> 3, value, whole });
    }
    Some(fields)
}

/// The bytes of a message's first field under a number.
pub(super) fn first(message: &[u8], number: u64) -> Option<&[u8]> {
    fields(message)?.into_iter().find_map(|field| field.bytes(number))
}

fn fixed<'a>(message: &mut &'a [u8], bytes: usize) -> Option<Value<'a>> {
    message.split_off(..bytes).map(|_| Value::Fixed)
}

fn varint(message: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let byte = *message.split_off_first()?;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

/// A message that is put together.
#[derive(Clone, Debug, Default)]
pub(super) struct Message(Vec<u8>);

impl Message {
    /// The same with a whole number.
    pub(super) fn number(mut self, number: u64, value: u64) -> Self {
        self.varint(number << 3);
        self.varint(value);
        self
    }

    /// The same with a string, bytes, or another message.
    pub(super) fn bytes(mut self, number: u64, bytes: impl AsRef<[u8]>) -> Self {
        let bytes = bytes.as_ref();
        self.varint(number << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
        self
    }

    /// Appends fields as they are.
    pub(super) fn extend(&mut self, fields: &[u8]) {
        self.0.extend_from_slice(fields);
    }

    /// Its bytes.
    pub(super) fn into_vec(self) -> Vec<u8> {
        self.0
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

impl AsRef<[u8]> for Message {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_together_is_read_again() {
        let inner = Message::default().number(1, 300).bytes(2, "text");
        let message = Message::default().bytes(7, &inner).number(20, u64::MAX).into_vec();
        let read = fields(&message).unwrap();
        assert_eq!(read[0].bytes(7), Some(inner.as_ref()));
        assert_eq!((read[1].number, read[1].value), (20, Value::Number(u64::MAX)));
        assert_eq!([read[0].whole, read[1].whole].concat(), message);
        assert_eq!(first(inner.as_ref(), 2), Some(&b"text"[..]));
    }

    #[test]
    fn what_is_cut_off_is_no_message() {
        let message = Message::default().bytes(1, "text").into_vec();
        for end in 1..message.len() {
            assert_eq!(fields(&message[..end]), None, "{end}");
        }
        assert_eq!(fields(&[0xff; 11]), None);
        // A group, which nothing writes any more.
        assert_eq!(fields(&[0x0b]), None);
    }
}
