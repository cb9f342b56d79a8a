//! Puts the bytes of a text together to characters, so that no piece ends within one.

/// The bytes of a character that is not finished.
#[derive(Debug, Default)]
pub(super) struct Characters(Vec<u8>);

impl Characters {
    /// The characters that are finished with these bytes.
    pub(super) fn push(&mut self, bytes: &[u8]) -> String {
        // Most pieces are whole by themselves.
        if self.0.is_empty()
            && let Ok(text) = std::str::from_utf8(bytes)
        {
            return text.to_owned();
        }
        self.0.extend_from_slice(bytes);
        let end = self.0.len() - unfinished(&self.0);
        let rest = self.0.split_off(end);
        let whole = std::mem::replace(&mut self.0, rest);
        String::from_utf8_lossy(&whole).into_owned()
    }

    /// What is left at the end of the text.
    pub(super) fn finish(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.0)).into_owned()
    }
}

/// The length of the character at the end of `bytes` that may yet be finished.
fn unfinished(bytes: &[u8]) -> usize {
    let last = bytes.utf8_chunks().last();
    let tail = last.map_or(&[][..], |chunk| chunk.invalid());
    match std::str::from_utf8(tail) {
        Err(error) if error.error_len().is_none() => tail.len(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_character_comes_when_its_last_byte_does() {
        let mut characters = Characters::default();
        let crab = "🦀".as_bytes();
        assert_eq!(characters.push(b"a crab "), "a crab ");
        assert_eq!(characters.push(&crab[..2]), "");
        assert_eq!(characters.push(&[&crab[2..], b"!"].concat()), "🦀!");
        assert_eq!(characters.finish(), "");
    }

    #[test]
    fn what_never_becomes_a_character_is_replaced() {
        let mut characters = Characters::default();
        assert_eq!(characters.push(b"a\xffb\xf0\x9f"), "a\u{fffd}b");
        assert_eq!(characters.finish(), "\u{fffd}");
    }
}
