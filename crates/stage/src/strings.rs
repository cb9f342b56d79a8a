//! The elements of a `BYTES` tensor: each is a little-endian `u32` length and that many bytes.

use bytes::{BufMut, Bytes, BytesMut};

use crate::{Error, Result};

const LENGTH_SIZE: usize = 4;

/// Iterates the elements of a `BYTES` tensor, stopping with an error where the data is cut short.
#[derive(Clone, Debug)]
pub struct Strings<'a> {
    rest: &'a [u8],
}

impl<'a> Strings<'a> {
    /// The elements in `data`.
    pub fn new(data: &'a [u8]) -> Self {
        Self { rest: data }
    }
}

impl<'a> Iterator for Strings<'a> {
    type Item = Result<&'a [u8]>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let Some((length, rest)) = self.rest.split_first_chunk::<LENGTH_SIZE>() else {
            self.rest = &[];
            return Some(Err(Error::invalid("incomplete string length indicator")));
        };
        let length = u32::from_le_bytes(*length) as usize;
        let Some((element, rest)) = rest.split_at_checked(length) else {
            self.rest = &[];
            return Some(Err(Error::invalid("incomplete string data")));
        };
        self.rest = rest;
        Some(Ok(element))
    }
}

/// The data of a `BYTES` tensor with these elements.
pub fn encode_strings<S: AsRef<[u8]>>(elements: &[S]) -> Bytes {
    let size = elements.iter().map(|element| LENGTH_SIZE + element.as_ref().len()).sum();
    let mut data = BytesMut::with_capacity(size);
    for element in elements {
        let element = element.as_ref();
        data.put_u32_le(element.len() as u32);
        data.put_slice(element);
    }
    data.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_come_back_as_they_went_in() {
        let data = encode_strings(&["", "a", "Ω and more"]);
        let back: Vec<_> = Strings::new(&data).map(Result::unwrap).collect();
        assert_eq!(back, [b"".as_slice(), b"a", "Ω and more".as_bytes()]);
    }

    #[test]
    fn a_cut_off_string_is_an_error_and_the_end() {
        for cut in [1, 3, 5] {
            let data = encode_strings(&["abc"]).slice(..cut);
            let items: Vec<_> = Strings::new(&data).collect();
            assert_eq!(items.len(), 1);
            assert!(items[0].is_err());
        }
    }
}
