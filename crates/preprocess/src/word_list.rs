//! Stop words and bad words as token ids, in the encoding that TensorRT-LLM's ensembles use.
//!
//! A list of words is `INT32[2, length]`: all token ids of all words one after another, padded
//! with 0, and below them where each word ends, padded with -1. No words are `[[0], [-1]]`.

use std::sync::Arc;

use consort_config::Model;
use consort_stage::{Batch, DataType, Error, Result, Tensor};
use tokenizers::Tokenizer;

use crate::columns::integers;

/// The parameters that this file reads.
pub(crate) const PARAMETERS: [&str; 3] = ["word_lists", "word_list_format", "word_list_variants"];

/// What stands before a word to see how it reads inside a text; no tokenizer joins it to a word.
const BREAK: &str = "\n";

/// An input of words and the output of their tokens.
#[derive(Debug)]
pub(crate) struct WordList {
    pub(crate) input: Arc<str>,
    pub(crate) output: Arc<str>,
    datatype: DataType,
    format: Format,
    has_variants: bool,
    is_batching: bool,
}

/// What one element of a `BYTES` input holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    /// One word, commas and all.
    Plain,
    /// Words with commas between them, in double quotes where they hold a comma themselves.
    Csv,
}

impl WordList {
    /// The lists in parameter `word_lists`: `input:output`, with commas between several.
    pub(crate) fn all(model: &Model) -> Result<Vec<Self>> {
        let text = model.settings.get("word_lists").unwrap_or_default();
        let pairs = text.split(',').map(str::trim).filter(|pair| !pair.is_empty());
        pairs.map(|pair| Self::new(model, pair)).collect()
    }

    fn new(model: &Model, pair: &str) -> Result<Self> {
        let names = pair.split_once(':').map(|(input, output)| (input.trim(), output.trim()));
        let specs = names.and_then(|(input, output)| {
            Some((model.signature.input(input)?, model.signature.output(output)?))
        });
        let Some((input, output)) = specs else {
            return Err(Error::invalid(format!(
                "parameter `word_lists` of model `{}` must hold pairs of an input and an output, \
                 such as `stop_words:stop_words_ids`, not `{pair}`",
                model.name
            )));
        };
        model.check_type(input, &[DataType::Bytes])?;
        model.check_type(output, &[DataType::Int32, DataType::Int64])?;
        let format = match model.settings.get("word_list_format").unwrap_or("plain") {
            "plain" => Format::Plain,
            "csv" => Format::Csv,
            other => {
                return Err(Error::invalid(format!(
                    "parameter `word_list_format` must be `plain` or `csv`, not `{other}`"
                )));
            }
        };
        Ok(Self {
            input: input.name.clone(),
            output: output.name.clone(),
            datatype: output.datatype,
            format,
            has_variants: model.settings.switch_or("word_list_variants", true)?,
            is_batching: model.signature.is_batching(),
        })
    }

    /// The tokens of the words in `batch`, which has `rows` texts when the model batches.
    pub(crate) fn encode(
        &self,
        tokenizer: &Tokenizer,
        batch: &Batch,
        rows: usize,
    ) -> Result<Tensor> {
        let rows = if self.is_batching { rows } else { 1 };
        let words = match batch.input(&self.input) {
            Some(tensor) => self.read(tensor)?,
            None => Vec::new(),
        };
        let count = words.len().checked_div(rows).unwrap_or(0);
        if count * rows != words.len() {
            return Err(Error::invalid(format!(
                "input `{}` has {} words for {rows} texts",
                self.input,
                words.len()
            )));
        }
        let of_row = |row: usize| self.tokens(tokenizer, &words[row * count..][..count]);
        let lists = (0..rows).map(of_row).collect::<Result<Vec<_>>>()?;
        let longest =
            |list: &Vec<Vec<u32>>| list.iter().map(Vec::len).sum::<usize>().max(list.len());
        let length = lists.iter().map(longest).max().unwrap_or(0).max(1);
        let values = lists.iter().flat_map(|list| flat(list, length));
        let batch_dim = self.is_batching.then_some(rows as i64);
        let shape: Vec<i64> = batch_dim.into_iter().chain([2, length as i64]).collect();
        Ok(integers(&self.output, self.datatype, &shape, values))
    }

    fn read<'a>(&self, tensor: &'a Tensor) -> Result<Vec<&'a str>> {
        let words = tensor.to_strings()?.into_iter().map(std::str::from_utf8);
        words.collect::<Result<_, _>>().map_err(|error| {
            Error::invalid(format!("input `{}` is not UTF-8", self.input)).with_source(error)
        })
    }

    fn tokens(&self, tokenizer: &Tokenizer, elements: &[&str]) -> Result<Vec<Vec<u32>>> {
        let mut tokens = Vec::new();
        for element in elements {
            let words = match self.format {
                Format::Plain => vec![(*element).to_owned()],
                Format::Csv => comma_separated(element),
            };
            for word in words.iter().filter(|word| !word.is_empty()) {
                tokens.extend(self.forms(tokenizer, word)?);
            }
        }
        Ok(tokens)
    }

    /// The token sequences that `word` can be in a text.
    ///
    /// A tokenizer often has one token for a word at the front of a text, one for it behind a
    /// space and one for it inside a longer word; a list that holds but one misses the others.
    fn forms(&self, tokenizer: &Tokenizer, word: &str) -> Result<Vec<Vec<u32>>> {
        let ids = |text: &str| -> Result<Vec<u32>> {
            let encoding = tokenizer.encode_fast(text, false).map_err(|error| {
                Error::invalid(format!("a word of input `{}`: {error}", self.input))
            })?;
            Ok(encoding.get_ids().to_vec())
        };
        let bare = ids(word)?;
        if bare.is_empty() {
            return Err(Error::invalid(format!("a word of input `{}` has no tokens", self.input)));
        }
        if !self.has_variants {
            return Ok(vec![bare]);
        }
        let line = ids(&format!("{BREAK}{word}"))?;
        let inside = line.strip_prefix(&*ids(BREAK)?).unwrap_or_default();
        let spaced = ids(&format!(" {word}"))?;
        Ok(shortest(vec![bare, inside.to_vec(), spaced]))
    }
}

/// `forms` without those that end with another: where the longer one stands, so does the shorter.
fn shortest(forms: Vec<Vec<u32>>) -> Vec<Vec<u32>> {
    let mut kept: Vec<Vec<u32>> = Vec::with_capacity(forms.len());
    for form in forms {
        if form.is_empty() || kept.iter().any(|shorter| form.ends_with(shorter)) {
            continue;
        }
        kept.retain(|longer| !longer.ends_with(&form));
        kept.push(form);
    }
    kept
}

/// Both rows of the encoding of one list.
fn flat(list: &[Vec<u32>], length: usize) -> Vec<i64> {
    let mut values: Vec<i64> = list.iter().flatten().map(|id| i64::from(*id)).collect();
    values.resize(length, 0);
    let ends = list.iter().scan(0, |end, word| {
        *end += word.len() as i64;
        Some(*end)
    });
    values.extend(ends);
    values.resize(2 * length, -1);
    values
}

/// The words of one line of comma-separated values.
fn comma_separated(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut is_quoted = false;
    let mut characters = line.chars().peekable();
    while let Some(character) = characters.next() {
        let word = words.last_mut().expect("there is always a last word");
        match character {
            '"' if is_quoted && characters.next_if_eq(&'"').is_some() => word.push('"'),
            '"' if is_quoted => is_quoted = false,
            '"' if word.is_empty() => is_quoted = true,
            ',' if !is_quoted => words.push(String::new()),
            character => word.push(character),
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use consort_stage::{Code, TensorSpec};

    use super::*;
    use crate::sample;

    static FERRIS: LazyLock<Tokenizer> = LazyLock::new(sample::ferris);

    fn list(parameters: &[(&str, &str)]) -> WordList {
        let inputs = [
            TensorSpec::new("text", DataType::Bytes, &[1]),
            TensorSpec::new("stop_words", DataType::Bytes, &[-1]),
        ];
        let outputs = [TensorSpec::new("stop_words_ids", DataType::Int32, &[2, -1])];
        let mut all = vec![("word_lists", "stop_words:stop_words_ids")];
        all.extend(parameters);
        let model = Model::plain_batching("tokenizer", &inputs, &outputs, &all);
        WordList::all(&model).unwrap().remove(0)
    }

    fn run(
        list: &WordList,
        tokenizer: &Tokenizer,
        rows: &[&[&str]],
    ) -> Result<(Vec<i64>, Vec<i32>)> {
        let words = rows.concat();
        let shape = [rows.len() as i64, rows[0].len() as i64];
        let tensor = Tensor::from_strings("stop_words", &shape, &words);
        let batch = Batch { inputs: vec![tensor], ..Batch::default() };
        let output = list.encode(tokenizer, &batch, rows.len())?;
        Ok((output.shape.clone(), output.to_slice::<i32>()?.to_vec()))
    }

    fn ids(text: &str) -> Vec<i32> {
        let encoding = FERRIS.encode_fast(text, false).unwrap();
        encoding.get_ids().iter().map(|id| *id as i32).collect()
    }

    #[test]
    fn words_lie_one_after_another_above_their_ends() {
        let list = list(&[("word_list_variants", "false")]);
        let (one, two) = (ids("borrow checker"), ids("}"));
        let length = one.len() + two.len();
        let (shape, values) = run(&list, &FERRIS, &[&["borrow checker", "", "}"]]).unwrap();
        assert_eq!(shape, [1, 2, length as i64]);
        assert_eq!(values[..length], [&*one, &*two].concat());
        assert_eq!(values[length..][..2], [one.len() as i32, length as i32]);
        assert!(values[length + 2..].iter().all(|end| *end == -1));
    }

    #[test]
    fn no_words_are_the_shortest_list() {
        let list = list(&[]);
        let absent = list.encode(&FERRIS, &Batch::default(), 2).unwrap();
        assert_eq!(absent.shape, [2, 2, 1]);
        assert_eq!(&*absent.to_slice::<i32>().unwrap(), [0, -1, 0, -1]);
        assert_eq!(run(&list, &FERRIS, &[&[""]]).unwrap(), (vec![1, 2, 1], vec![0, -1]));
    }

    #[test]
    fn the_lists_of_a_batch_are_padded_to_one_length() {
        let list = list(&[("word_list_variants", "false")]);
        let long = ids("ownership and borrowing");
        let (short, length) = (ids("a"), long.len());
        let (shape, values) = run(&list, &FERRIS, &[&["a"], &["ownership and borrowing"]]).unwrap();
        assert_eq!(shape, [2, 2, length as i64]);
        assert_eq!((values[0], values[1], values[length]), (short[0], 0, 1));
        assert_eq!(values[2 * length..][..length], long);
    }

    #[test]
    fn a_word_is_listed_in_every_form_that_a_text_can_hold() {
        let (_, values) = run(&list(&[]), &FERRIS, &[&["the"]]).unwrap();
        assert_eq!(values, [ids("the")[0], ids(" the")[0], 1, 2]);
        let llama = sample::metaspace();
        let id = |token: &str| llama.token_to_id(token).unwrap() as i32;
        let (_, values) = run(&list(&[]), &llama, &[&["the"]]).unwrap();
        assert_eq!(values, [id("▁the"), id("the"), 1, 2]);
    }

    #[test]
    fn a_line_of_words_is_split_where_the_format_says_so() {
        assert_eq!(comma_separated("a,b c,"), ["a", "b c", ""]);
        assert_eq!(
            comma_separated(r#""a,b","say ""x""",5" tall"#),
            ["a,b", r#"say "x""#, "5\" tall"]
        );
        let csv = list(&[("word_list_format", "csv"), ("word_list_variants", "false")]);
        let plain = list(&[("word_list_variants", "false")]);
        let split = run(&csv, &FERRIS, &[&["borrow,checker"]]).unwrap();
        assert_eq!(split, run(&plain, &FERRIS, &[&["borrow", "checker"]]).unwrap());
        assert_ne!(split, run(&plain, &FERRIS, &[&["borrow,checker"]]).unwrap());
    }

    #[test]
    fn a_word_without_tokens_is_refused() {
        let mut tokenizer = sample::bert();
        tokenizer.with_padding(None);
        let error = run(&list(&[]), &tokenizer, &[&["\u{1}"]]).unwrap_err();
        assert_eq!(error.code(), Code::InvalidInput);
        assert!(error.message().contains("a word of input `stop_words` has no tokens"), "{error}");
    }

    #[test]
    fn a_list_of_unknown_tensors_is_refused_at_load() {
        let outputs = [TensorSpec::new("ids", DataType::Int32, &[2, -1])];
        for lists in ["stop_words", "stop_words:ids", "x:ids"] {
            let model = Model::plain_batching("tokenizer", &[], &outputs, &[("word_lists", lists)]);
            let error = WordList::all(&model).unwrap_err();
            assert!(error.message().contains(&format!("not `{lists}`")), "{error}");
        }
    }
}
