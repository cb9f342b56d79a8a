//! Reads the lists of stop words and bad words: token sequences, flat, with where each one ends.

use consort_stage::{Result, ShapeText, Tensor};

use super::decoder::Token;
use super::fields::{integers, token, wrong};

/// What stands behind the last end.
const PADDING: i64 = -1;

/// How many tokens a list may have: many times any list of words in use, and few enough that
/// comparing all of them for each token holds nobody up.
const MOST_TOKENS: usize = 1 << 16;

/// Reads INT32[2, n]: in the first row the tokens of all words, in the second where each word
/// ends, then padding. A batch dimension of 1 may lead.
pub(crate) fn read(tensor: &Tensor, vocabulary: usize) -> Result<Vec<Vec<Token>>> {
    let malformed = |what: &str| {
        let how = format!(
            "{what}; it must be two rows, the tokens of all words and then the end of each word, \
             counted from the start and padded with -1"
        );
        wrong(&tensor.name, how)
    };
    let columns = match *tensor.shape.as_slice() {
        [2, columns] | [1, 2, columns] => columns as usize,
        _ => return Err(malformed(&format!("has shape {}", ShapeText(&tensor.shape)))),
    };
    if columns > MOST_TOKENS {
        return Err(malformed(&format!("has {columns} tokens, more than {MOST_TOKENS}")));
    }
    let values = integers(tensor)?;
    let (tokens, ends) = values.split_at(columns);
    let mut words = Vec::new();
    let mut start = 0;
    for end in ends.iter().take_while(|end| **end != PADDING) {
        let end = usize::try_from(*end)
            .ok()
            .filter(|end| (start + 1..=columns).contains(end))
            .ok_or_else(|| malformed(&format!("has a word from {start} to {end}")))?;
        let word = tokens[start..end].iter();
        words.push(word.map(|id| token(&tensor.name, *id, vocabulary)).collect::<Result<_>>()?);
        start = end;
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(shape: &[i64], values: Vec<i32>) -> Result<Vec<Vec<Token>>> {
        read(&Tensor::from_vec("stop_words_list", shape, values), 100)
    }

    #[test]
    fn words_are_cut_at_their_ends() {
        let words = list(&[1, 2, 4], vec![7, 8, 9, 0, 2, 3, -1, -1]).unwrap();
        assert_eq!(words, [vec![7, 8], vec![9]]);
    }

    #[test]
    fn an_empty_list_has_no_words() {
        assert!(list(&[2, 0], vec![]).unwrap().is_empty());
        assert!(list(&[2, 1], vec![0, -1]).unwrap().is_empty());
    }

    #[test]
    fn malformed_lists_are_refused_by_name() {
        let lists = [
            list(&[3, 1], vec![1, 1, 1]),
            list(&[4], vec![1, 2, 1, 2]),
            list(&[2, 2], vec![1, 2, 2, 1]),
            list(&[2, 2], vec![1, 2, 3, -1]),
            list(&[2, 2], vec![1, 2, 0, -1]),
            list(&[2, 2], vec![1, 2, -2, -1]),
            list(&[2, 1], vec![100, 1]),
            list(&[2, 70_000], vec![0; 140_000]),
        ];
        for list in lists {
            let error = list.unwrap_err();
            assert!(error.message().contains("`stop_words_list`"), "{error}");
        }
    }
}
