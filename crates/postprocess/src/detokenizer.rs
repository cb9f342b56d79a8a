//! The backend `detokenizer`: token ids in, text out, whole or as it is generated.
//!
//! It keeps nothing between requests: the tokens before the new ones come with them, so that any
//! replica can answer any part of a generation.

use std::sync::Arc;

use consort_config::Model;
use consort_repository::{Backend, Kind};
use consort_stage::{Batch, DataType, Error, InlineBackend, Result, Tensor, TensorSpec};
use tokenizers::Tokenizer;

use crate::numbers::{integers, last_dimension};
use crate::pieces::Pieces;
use crate::roles;

/// The backend `detokenizer`.
pub(crate) const KIND: Kind = Kind::new("detokenizer", |instance| {
    let file = (FILE_PARAMETER, "tokenizer.json");
    let what = "a Hugging Face tokenizer";
    let tokenizer = instance.read_file(file, what, Tokenizer::from_bytes)?;
    let backend = Detokenizer::new(instance.model, &tokenizer)?;
    Ok(Backend::Inline(Arc::new(backend)))
});

/// The parameter that names a tokenizer outside the model's own folder.
const FILE_PARAMETER: &str = "tokenizer";

/// The tokens before the new ones that are looked at: a character is at most four tokens long,
/// and special tokens among them add nothing.
const WINDOW: usize = 32;

const IDS: &[DataType] = &[DataType::Int32, DataType::Int64];

/// The outputs that give tokens one by one: those of the ids, those that might have come in their
/// places, and the same of a prompt.
const TOKENS: &str = "output_tokens";
const OTHER_TOKENS: &str = "top_logprob_tokens";
const PROMPT_TOKENS: &str = "prompt_tokens";
const OTHER_PROMPT_TOKENS: &str = "prompt_top_logprob_tokens";
const TOKEN_OUTPUTS: [&str; 4] = [TOKENS, OTHER_TOKENS, PROMPT_TOKENS, OTHER_PROMPT_TOKENS];

/// The inputs that the last three are of.
const OTHERS: &str = "top_logprob_ids";
const PROMPT: &str = "prompt_ids";
const OTHERS_OF_PROMPT: &str = "prompt_top_logprob_ids";

/// Turns rows of token ids into texts.
struct Detokenizer {
    pieces: Pieces,
    ids: Arc<str>,
    context: Option<Arc<str>>,
    lengths: Option<Arc<str>>,
    is_final: Option<Arc<str>>,
    text: Arc<str>,
    text_rank: usize,
    tokens: Vec<Tokens>,
}

/// An output that gives each token of an input by itself.
struct Tokens {
    input: Arc<str>,
    output: Arc<str>,
}

impl Detokenizer {
    fn new(model: &Model, tokenizer: &Tokenizer) -> Result<Self> {
        model.settings.only(&[
            FILE_PARAMETER,
            "skip_special_tokens",
            "ids_input",
            "context_input",
            "length_input",
            "final_input",
            "others_input",
        ])?;
        let skip_special_tokens = model.settings.switch_or("skip_special_tokens", true)?;
        let pieces = Pieces::new(tokenizer, skip_special_tokens)
            .map_err(|error| error.within(format!("tokenizer of model `{}`: ", model.name)))?;
        let context = part(model, "context_input", &["context_ids"], IDS)?;
        let lengths = part(model, "length_input", &["sequence_length"], IDS)?;
        let is_final = part(model, "final_input", &["is_final"], &[DataType::Bool])?;
        let others = part(model, "others_input", &[OTHERS], IDS)?;
        let prompt = of_name(model, PROMPT)?;
        let others_of_prompt = of_name(model, OTHERS_OF_PROMPT)?;
        let ids = part(model, "ids_input", &["output_ids", "tokens_batch", "token_ids"], IDS)?
            .ok_or_else(|| roles::missing(model, "an input `output_ids` of TYPE_INT32"))?;
        let tokens = [
            (TOKENS, (Some(ids), "output_ids")),
            (OTHER_TOKENS, (others, OTHERS)),
            (PROMPT_TOKENS, (prompt, PROMPT)),
            (OTHER_PROMPT_TOKENS, (others_of_prompt, OTHERS_OF_PROMPT)),
        ];
        let tokens = tokens.map(|(output, input)| Tokens::find(model, output, input));
        let tokens =
            tokens.into_iter().filter_map(Result::transpose).collect::<Result<Vec<_>>>()?;
        let is_text = |spec: &&TensorSpec| {
            spec.datatype == DataType::Bytes && !TOKEN_OUTPUTS.contains(&&*spec.name)
        };
        let text = model.signature.outputs.iter().find(is_text);
        let text = text.ok_or_else(|| roles::missing(model, "an output of TYPE_STRING"))?;
        let name = |spec: &TensorSpec| spec.name.clone();
        let inputs = [Some(ids), context, lengths, is_final, others, prompt, others_of_prompt];
        let used = inputs.iter().flatten().chain([&text]).map(|spec| &*spec.name);
        let used = used.chain(tokens.iter().map(|tokens| &*tokens.output));
        roles::check_all_used(model, &used.collect::<Vec<_>>())?;
        Ok(Self {
            pieces,
            ids: name(ids),
            context: context.map(name),
            lengths: lengths.map(name),
            is_final: is_final.map(name),
            text: name(text),
            text_rank: roles::rank(&model.signature, text),
            tokens,
        })
    }

    /// The text of each row.
    fn texts(&self, batch: &Batch) -> Result<Tensor> {
        let given = |name: &Option<Arc<str>>| batch.input(name.as_deref()?);
        let ids = batch.input(&self.ids);
        let ids = ids.ok_or_else(|| Error::invalid(format!("input `{}` is missing", self.ids)))?;
        let ids = Rows::new(ids)?;
        let count = ids.count();
        let context = match given(&self.context) {
            Some(tensor) => Some(Rows::new(tensor)?.expect_count(count)?),
            None => None,
        };
        let lengths = match given(&self.lengths) {
            Some(tensor) => for_each_row(tensor, &integers(tensor)?, count)?,
            None => vec![i64::MAX; count],
        };
        let finals = match given(&self.is_final) {
            Some(tensor) => for_each_row(tensor, &tensor.to_bools()?, count)?,
            None => vec![context.is_none(); count],
        };
        let text = |row: usize| {
            let before = context.as_ref().map_or(&[][..], |rows| rows.row(row));
            let before = &before[before.len().saturating_sub(WINDOW)..];
            let new = ids.row(row);
            let length = usize::try_from(lengths[row]).unwrap_or(0).min(new.len());
            self.pieces.text(before, &new[..length], finals[row])
        };
        let texts: Vec<String> = (0..count).map(text).collect();
        let mut shape = ids.shape.to_vec();
        shape.resize(shape.len().max(self.text_rank), 1);
        Ok(Tensor::from_strings(self.text.clone(), &shape, &texts))
    }
}

impl Tokens {
    /// The output of this name, if the model has it; it needs the input.
    fn find(
        model: &Model,
        output: &str,
        (input, named): (Option<&TensorSpec>, &str),
    ) -> Result<Option<Self>> {
        let Some(output) = model.signature.output(output) else { return Ok(None) };
        model.check_type(output, &[DataType::Bytes])?;
        let Some(input) = input else {
            let what = format!("an input `{named}` for its output `{}`", output.name);
            return Err(roles::missing(model, &what));
        };
        Ok(Some(Self { input: input.name.clone(), output: output.name.clone() }))
    }

    /// Each token as the bytes that it adds to a text; nothing without the input.
    fn spell(&self, pieces: &Pieces, batch: &Batch) -> Result<Option<Tensor>> {
        let Some(ids) = batch.input(&self.input).filter(|_| batch.wants(&self.output)) else {
            return Ok(None);
        };
        let tokens = integers(ids)?;
        let tokens: Vec<&[u8]> = tokens.iter().map(|id| pieces.token(*id)).collect();
        Ok(Some(Tensor::from_strings(self.output.clone(), &ids.shape, &tokens)))
    }
}

impl InlineBackend for Detokenizer {
    fn run(&self, batch: Batch) -> Result<Vec<Tensor>> {
        let mut outputs = Vec::with_capacity(1);
        if batch.wants(&self.text) {
            outputs.push(self.texts(&batch)?);
        }
        for tokens in &self.tokens {
            outputs.extend(tokens.spell(&self.pieces, &batch)?);
        }
        Ok(outputs)
    }
}

/// Token ids in rows of one length.
struct Rows<'a> {
    name: &'a str,
    ids: Vec<i64>,
    length: usize,
    /// The dimensions before the last.
    shape: &'a [i64],
}

impl<'a> Rows<'a> {
    fn new(tensor: &'a Tensor) -> Result<Self> {
        let (length, shape) = last_dimension(tensor)?;
        Ok(Self { name: &tensor.name, ids: integers(tensor)?, length, shape })
    }

    fn count(&self) -> usize {
        self.shape.iter().product::<i64>() as usize
    }

    fn expect_count(self, count: usize) -> Result<Self> {
        if self.count() == count {
            return Ok(self);
        }
        Err(wrong_count(self.name, self.count(), count))
    }

    fn row(&self, index: usize) -> &[i64] {
        &self.ids[index * self.length..][..self.length]
    }
}

/// One of `values` for each of `count` rows; a single one is for all.
fn for_each_row<T: Copy>(tensor: &Tensor, values: &[T], count: usize) -> Result<Vec<T>> {
    match values {
        [value] => Ok(vec![*value; count]),
        values if values.len() == count => Ok(values.to_vec()),
        values => Err(wrong_count(&tensor.name, values.len(), count)),
    }
}

fn wrong_count(name: &str, found: usize, count: usize) -> Error {
    Error::invalid(format!("input `{name}` is for {found} rows of tokens, but there are {count}"))
        .of_input(Some(name))
}

/// The input that plays a part, when the model has it, with its type checked.
fn part<'a>(
    model: &'a Model,
    parameter: &str,
    names: &[&str],
    types: &[DataType],
) -> Result<Option<&'a TensorSpec>> {
    let spec = roles::input(model, parameter, names)?;
    if let Some(spec) = spec {
        model.check_type(spec, types)?;
    }
    Ok(spec)
}

/// The input of token ids with this name, when the model has it.
fn of_name<'a>(model: &'a Model, name: &str) -> Result<Option<&'a TensorSpec>> {
    let spec = model.signature.input(name);
    if let Some(spec) = spec {
        model.check_type(spec, IDS)?;
    }
    Ok(spec)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use consort_stage::Code;

    use super::*;

    fn ferris() -> Tokenizer {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let file = root.join("model_repository/ferris/1/tokenizer.json");
        Tokenizer::from_bytes(fs::read(file).unwrap()).unwrap()
    }

    fn inputs() -> Vec<TensorSpec> {
        vec![
            TensorSpec::new("TOKENS_BATCH", DataType::Int32, &[-1, -1]),
            TensorSpec::new("context_ids", DataType::Int32, &[-1, -1]),
            TensorSpec::new("SEQUENCE_LENGTH", DataType::Int32, &[-1]),
            TensorSpec::new("is_final", DataType::Bool, &[1]),
        ]
    }

    fn output(dims: &[i64]) -> TensorSpec {
        TensorSpec::new("OUTPUT", DataType::Bytes, dims)
    }

    fn detokenizer(inputs: &[TensorSpec], output: TensorSpec) -> Result<Detokenizer> {
        let model = Model::plain_batching("detokenizer", inputs, &[output], &[]);
        Detokenizer::new(&model, &ferris())
    }

    fn run(backend: &Detokenizer, inputs: Vec<Tensor>) -> Result<(Vec<i64>, Vec<String>)> {
        let batch = Batch { inputs, ..Batch::default() };
        let output = backend.run(batch)?.remove(0);
        let text = |text: &[u8]| String::from_utf8(text.to_vec()).unwrap();
        let texts = output.to_strings()?.into_iter().map(text).collect();
        Ok((output.shape, texts))
    }

    fn ids(text: &str) -> Vec<i32> {
        let encoding = ferris().encode_fast(text, false).unwrap();
        encoding.get_ids().iter().map(|id| *id as i32).collect()
    }

    #[test]
    fn rows_without_context_are_read_whole() {
        let backend = detokenizer(&inputs(), output(&[-1])).unwrap();
        let mut rows = ids("borrow 🦀");
        let length = rows.len();
        rows.extend(ids("borrow 🦀"));
        let shape = [1, 2, length as i64];
        let tokens = Tensor::from_vec("TOKENS_BATCH", &shape, rows);
        let lengths = Tensor::from_vec("SEQUENCE_LENGTH", &[1, 2], vec![1_i32, 100]);
        let (shape, texts) = run(&backend, vec![tokens, lengths]).unwrap();
        assert_eq!(shape, [1, 2]);
        assert_eq!(texts[1], "borrow 🦀");
        assert!(texts[0].len() < texts[1].len() && texts[1].starts_with(&texts[0]));
    }

    #[test]
    fn a_batch_of_new_tokens_reads_like_each_row_alone() {
        let backend = detokenizer(&inputs(), output(&[-1, -1])).unwrap();
        let all = ids("The 🦀 says: Ω is résumé, 日本語.");
        let rows: Vec<(&[i32], i32)> =
            (4..all.len()).map(|end| (&all[end - 4..end], all[end])).collect();
        let answer = |rows: &[(&[i32], i32)]| {
            let count = rows.len() as i64;
            let context = rows.iter().flat_map(|(context, _)| context.to_vec()).collect();
            let new: Vec<i32> = rows.iter().map(|(_, new)| *new).collect();
            let inputs = vec![
                Tensor::from_vec("TOKENS_BATCH", &[count, 1, 1], new),
                Tensor::from_vec("context_ids", &[count, 1, 4], context),
                Tensor::from_bools("is_final", &[count, 1], &vec![false; rows.len()]),
            ];
            run(&backend, inputs).unwrap()
        };
        let (shape, together) = answer(&rows);
        assert_eq!(shape, [rows.len() as i64, 1, 1]);
        let alone: Vec<String> = rows.iter().map(|row| answer(&[*row]).1.remove(0)).collect();
        assert_eq!(together, alone);
        assert!("The 🦀 says: Ω is résumé, 日本語.".ends_with(&together.concat()));
    }

    #[test]
    fn the_final_response_gives_up_on_an_unfinished_character() {
        let backend = detokenizer(&inputs(), output(&[1])).unwrap();
        let crab = ids("🦀");
        let part = |is_final| {
            let inputs = vec![
                Tensor::from_vec("TOKENS_BATCH", &[1, 1, 0], Vec::<i32>::new()),
                Tensor::from_vec("context_ids", &[1, 1, 2], crab[..2].to_vec()),
                Tensor::from_bools("is_final", &[1, 1], &[is_final]),
            ];
            run(&backend, inputs).unwrap().1.remove(0)
        };
        assert_eq!(part(false), "");
        assert_eq!(part(true), "\u{FFFD}");
    }

    #[test]
    fn inputs_that_do_not_fit_together_are_refused() {
        let backend = detokenizer(&inputs(), output(&[1])).unwrap();
        let tokens = || Tensor::from_vec("TOKENS_BATCH", &[1, 1, 1], vec![5_i32]);
        let context = Tensor::from_vec("context_ids", &[3, 1, 1], vec![5_i32; 3]);
        let finals = Tensor::from_bools("is_final", &[2], &[true, true]);
        for (inputs, name) in [
            (vec![tokens(), context], "context_ids"),
            (vec![tokens(), finals], "is_final"),
            (vec![], "TOKENS_BATCH"),
        ] {
            let error = run(&backend, inputs).unwrap_err();
            assert_eq!(error.code(), Code::InvalidInput);
            assert!(error.message().contains(name), "{error}");
        }
    }

    #[test]
    fn tokens_come_one_by_one_as_the_bytes_they_add_where_they_are_wanted() {
        let ids_and_others = [
            TensorSpec::new("output_ids", DataType::Int32, &[-1]),
            TensorSpec::new("top_logprob_ids", DataType::Int32, &[-1, -1]),
        ];
        let outputs = ["text", TOKENS, OTHER_TOKENS]
            .map(|name| TensorSpec::new(name, DataType::Bytes, &[-1]));
        let model = Model::plain_batching("detokenizer", &ids_and_others, &outputs, &[]);
        let backend = Detokenizer::new(&model, &ferris()).unwrap();
        let crab = ids("a 🦀");
        let count = crab.len() as i64;
        let run = |outputs: &[&str]| {
            let inputs = vec![
                Tensor::from_vec("output_ids", &[1, count], crab.clone()),
                Tensor::from_vec("top_logprob_ids", &[1, count, 1], crab.clone()),
            ];
            let outputs = outputs.iter().map(|name| Arc::from(*name)).collect();
            backend.run(Batch { inputs, outputs, ..Batch::default() }).unwrap()
        };
        let [text, tokens, others] = &run(&[])[..] else { panic!("three outputs") };
        assert_eq!(text.to_strings().unwrap(), ["a 🦀".as_bytes()]);
        assert_eq!((&tokens.shape, &others.shape), (&vec![1, count], &vec![1, count, 1]));
        let tokens = tokens.to_strings().unwrap();
        assert!(tokens.len() > 2 && tokens.concat() == "a 🦀".as_bytes(), "{tokens:?}");
        assert_eq!(others.to_strings().unwrap(), tokens);
        assert_eq!(run(&["text"]).len(), 1);
        let inputs = vec![Tensor::from_vec("output_ids", &[1, count], crab.clone())];
        let without_others = backend.run(Batch { inputs, ..Batch::default() }).unwrap();
        assert_eq!(without_others.len(), 2);
    }

    #[test]
    fn tokens_of_an_input_that_is_not_there_are_refused_at_load() {
        let ids = [TensorSpec::new("output_ids", DataType::Int32, &[-1])];
        let others = TensorSpec::new(OTHER_TOKENS, DataType::Bytes, &[-1, -1]);
        let model = Model::plain_batching("detokenizer", &ids, &[output(&[1]), others], &[]);
        let error = Detokenizer::new(&model, &ferris()).err().unwrap();
        assert!(error.message().contains("needs an input `top_logprob_ids`"), "{error}");
    }

    #[test]
    fn tensors_of_the_wrong_type_are_refused_at_load() {
        let wrong = [TensorSpec::new("output_ids", DataType::Fp32, &[-1])];
        let error = detokenizer(&wrong, output(&[1])).err().unwrap();
        assert!(error.message().contains("`output_ids` of model `sample` is TYPE_FP32"), "{error}");
        let mut spare = inputs();
        spare.push(TensorSpec::new("spare", DataType::Int32, &[1]));
        let error = detokenizer(&spare, output(&[1])).err().unwrap();
        assert!(error.message().contains("no use for tensor `spare`"), "{error}");
    }
}
