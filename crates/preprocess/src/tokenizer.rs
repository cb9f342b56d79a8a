//! The backend `tokenizer`: texts in, token ids out, with any Hugging Face `tokenizer.json`.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use consort_config::Model;
use consort_repository::{Backend, Kind};
use consort_stage::{
    Batch, BatchBackend, Brief, DataType, Error, InlineBackend, Result, Tensor, TensorSpec,
};
use tokenizers::{EncodeInput, Encoding, Tokenizer};

use crate::columns::{self, Column};
use crate::given;
use crate::padding::{self, Padding};
use crate::truncation;
use crate::word_list::{self, WordList};

/// The backend `tokenizer`.
pub(crate) const KIND: Kind = Kind::new("tokenizer", |instance| {
    let file = (FILE_PARAMETER, "tokenizer.json");
    let what = "a Hugging Face tokenizer";
    let tokenizer = instance.read_file(file, what, Tokenizer::from_bytes)?;
    let texts = Texts::new(instance.model, tokenizer)?;
    Ok(Backend::Batch(Box::new(TokenizerBackend(Arc::new(texts)))))
});

/// The parameter that names a tokenizer outside the model's own folder.
const FILE_PARAMETER: &str = "tokenizer";

/// The bytes of text above which a batch is spread over threads. This many take a few tenths of a
/// millisecond, ten times what it costs to wake the threads.
const PARALLEL_BYTES: usize = 1 << 10;

/// The bytes of input up to which they are tokenized where they are asked for: a tenth of a
/// millisecond's work, about what it costs to hand them to a thread and to hear of the end.
const BRIEF_BYTES: usize = 1 << 8;

/// An instance; all callers with brief requests may use the same at once.
struct TokenizerBackend(Arc<Texts>);

/// Turns texts into rows of token ids.
struct Texts {
    tokenizer: Tokenizer,
    adds_special_tokens: bool,
    padding: Padding,
    text: Arc<str>,
    pair: Option<Arc<str>>,
    /// The input with the tokens of texts that need not be tokenized.
    tokens: Option<Arc<str>>,
    columns: Vec<Column>,
    word_lists: Vec<WordList>,
}

impl Texts {
    fn new(model: &Model, mut tokenizer: Tokenizer) -> Result<Self> {
        check_parameters(model)?;
        let settings = &model.settings;
        let word_lists = WordList::all(model)?;
        let pair = settings.get("pair_input").map(|name| text_input(model, "pair_input", name));
        let pair = pair.transpose()?.map(|spec| &*spec.name);
        let tokens = given::input(model)?;
        let taken = word_lists.iter().map(|list| &*list.input).chain(pair).chain(tokens);
        let taken: Vec<&str> = taken.collect();
        let text = match settings.get("text_input") {
            Some(name) => text_input(model, "text_input", name)?,
            None => first_text(model, &taken)?,
        };
        check_all_used(model, &taken, text)?;
        let is_list = |spec: &&TensorSpec| word_lists.iter().any(|list| list.output == spec.name);
        let columns = model.signature.outputs.iter().filter(|spec| !is_list(spec));
        let columns = columns.map(|spec| Column::new(model, spec)).collect::<Result<_>>()?;
        let max_length = truncation::apply(settings, &mut tokenizer)?;
        let is_batching = model.signature.is_batching();
        let padding = Padding::new(settings, &tokenizer, is_batching, max_length)?;
        // The columns pad themselves, straight into their tensors.
        tokenizer.with_padding(None);
        let adds_special_tokens = settings.switch_or("add_special_tokens", true)?;
        try_out(model, &tokenizer, adds_special_tokens)?;
        Ok(Self {
            adds_special_tokens,
            text: text.name.clone(),
            pair: pair.map(Arc::from),
            tokens: tokens.map(Arc::from),
            tokenizer,
            padding,
            columns,
            word_lists,
        })
    }

    fn rows(&self, batch: &Batch, texts: &[&str]) -> Result<Vec<Encoding>> {
        if let Some(tokens) = self.tokens.as_ref().and_then(|name| batch.input(name)) {
            return given::rows(tokens, (&self.text, texts));
        }
        let pairs = self.pair.as_ref().and_then(|name| batch.input(name));
        let pairs = pairs.map(read).transpose()?;
        match &pairs {
            Some(pairs) if pairs.len() != texts.len() => Err(Error::invalid(format!(
                "input `{}` has {} texts, but its pair has {}",
                self.text,
                texts.len(),
                pairs.len()
            ))
            .of_input(Some(&*self.text))),
            _ => self.encode(texts, pairs.as_deref()),
        }
    }

    fn encode(&self, texts: &[&str], pairs: Option<&[&str]>) -> Result<Vec<Encoding>> {
        let size = |texts: &[&str]| texts.iter().map(|text| text.len()).sum::<usize>();
        let inputs = texts.iter().enumerate().map(|(index, text)| match pairs {
            Some(pairs) => EncodeInput::from((*text, pairs[index])),
            None => EncodeInput::from(*text),
        });
        let adds = self.adds_special_tokens;
        let rows = if texts.len() > 1 && size(texts) + pairs.map_or(0, size) > PARALLEL_BYTES {
            self.tokenizer.encode_batch_fast(inputs.collect(), adds)
        } else {
            inputs.map(|input| self.tokenizer.encode_fast(input, adds)).collect()
        };
        rows.map_err(|error| {
            Error::invalid(format!("input `{}` cannot be tokenized: {error}", self.text))
                .of_input(Some(&*self.text))
        })
    }
}

impl BatchBackend for TokenizerBackend {
    /// Rows are padded to the longest of the run, and one bad text fails all of it.
    fn keeps_requests_apart(&self) -> bool {
        false
    }

    fn brief(&self) -> Option<Brief> {
        Some(Brief { bytes: BRIEF_BYTES, backend: self.0.clone() })
    }

    fn run(&mut self, batch: Batch) -> Result<Vec<Tensor>> {
        self.0.run(batch)
    }
}

impl InlineBackend for Texts {
    fn run(&self, batch: Batch) -> Result<Vec<Tensor>> {
        let tensor = batch
            .input(&self.text)
            .ok_or_else(|| Error::invalid(format!("input `{}` is missing", self.text)))?;
        let texts = read(tensor)?;
        let mut outputs = Vec::with_capacity(self.columns.len() + self.word_lists.len());
        if self.columns.iter().any(|column| batch.wants(&column.name)) {
            let rows = self.rows(&batch, &texts)?;
            let of_text = |error: Error| error.of_input(Some(&*self.text));
            let length = self.padding.length(rows.iter().map(Encoding::len)).map_err(of_text)?;
            for column in self.columns.iter().filter(|column| batch.wants(&column.name)) {
                let filled = column.fill(&rows, &tensor.shape, (&self.padding, length));
                outputs.push(filled.map_err(of_text)?);
            }
        }
        let count = tensor.shape.first().map_or(1, |count| *count as usize);
        for list in self.word_lists.iter().filter(|list| batch.wants(&list.output)) {
            let encoded = list.encode(&self.tokenizer, &batch, count);
            outputs.push(encoded.map_err(|error| error.of_input(Some(&*list.input)))?);
        }
        Ok(outputs)
    }
}

fn read(tensor: &Tensor) -> Result<Vec<&str>> {
    let texts = tensor.to_strings()?.into_iter().map(std::str::from_utf8);
    texts.collect::<Result<_, _>>().map_err(|error| {
        Error::invalid(format!("input `{}` is not UTF-8", tensor.name))
            .of_input(Some(&*tensor.name))
            .with_source(error)
    })
}

/// Tokenizes nothing, because a file whose template names a special token that it does not define
/// is read without complaint and panics on every text.
fn try_out(model: &Model, tokenizer: &Tokenizer, adds_special_tokens: bool) -> Result<()> {
    let run = || {
        for input in [EncodeInput::from(""), EncodeInput::from(("", ""))] {
            drop(tokenizer.encode_fast(input, adds_special_tokens));
        }
    };
    catch_unwind(AssertUnwindSafe(run)).map_err(|_| {
        Error::invalid(format!(
            "the tokenizer of model `{}` fails on every text; \
             does its `post_processor` name a special token that it does not define?",
            model.name
        ))
    })
}

fn check_parameters(model: &Model) -> Result<()> {
    let roles: Vec<String> = columns::parameters().collect();
    let own = [FILE_PARAMETER, "text_input", "pair_input", "add_special_tokens"];
    let known: Vec<&str> = own
        .into_iter()
        .chain(padding::PARAMETERS)
        .chain(truncation::PARAMETERS)
        .chain(word_list::PARAMETERS)
        .chain(roles.iter().map(String::as_str))
        .collect();
    model.settings.only(&known)
}

fn text_input<'a>(model: &'a Model, parameter: &str, name: &str) -> Result<&'a TensorSpec> {
    let spec = model.signature.input(name).ok_or_else(|| {
        Error::invalid(format!(
            "parameter `{parameter}` of model `{}` names `{name}`, which is none of its inputs",
            model.name
        ))
    })?;
    model.check_type(spec, &[DataType::Bytes])?;
    Ok(spec)
}

fn first_text<'a>(model: &'a Model, taken: &[&str]) -> Result<&'a TensorSpec> {
    let mut inputs = model.signature.inputs.iter();
    let is_text =
        |spec: &&TensorSpec| spec.datatype == DataType::Bytes && !taken.contains(&&*spec.name);
    inputs.find(is_text).ok_or_else(|| {
        Error::invalid(format!(
            "backend `tokenizer` of model `{}` needs an input of TYPE_STRING for the text",
            model.name
        ))
    })
}

fn check_all_used(model: &Model, taken: &[&str], text: &TensorSpec) -> Result<()> {
    let mut inputs = model.signature.inputs.iter();
    let is_spare = |spec: &&TensorSpec| !taken.contains(&&*spec.name) && spec.name != text.name;
    let Some(spare) = inputs.find(is_spare) else {
        return Ok(());
    };
    Err(Error::invalid(format!(
        "backend `tokenizer` has no use for input `{}` of model `{}`; \
         name it in parameter `pair_input` or `word_lists`",
        spare.name, model.name
    )))
}

#[cfg(test)]
mod tests {
    use std::slice;

    use consort_stage::Code;
    use serde_json::json;
    use tokenizers::processors::template::TemplateProcessing;

    use super::*;
    use crate::sample;

    fn backend(tokenizer: Tokenizer, parameters: &[(&str, &str)]) -> Result<Texts> {
        let inputs = [TensorSpec::new("text", DataType::Bytes, &[1])];
        let outputs = [
            TensorSpec::new("input_ids", DataType::Int64, &[-1]),
            TensorSpec::new("attention_mask", DataType::Int32, &[-1]),
            TensorSpec::new("token_type_ids", DataType::Int64, &[-1]),
            TensorSpec::new("input_lengths", DataType::Int32, &[1]),
        ];
        let model = Model::plain_batching("tokenizer", &inputs, &outputs, parameters);
        Texts::new(&model, tokenizer)
    }

    fn texts(name: &str, texts: &[&str]) -> Tensor {
        Tensor::from_strings(name, &[texts.len() as i64, 1], texts)
    }

    fn run(backend: &Texts, inputs: Vec<Tensor>) -> Result<Vec<Tensor>> {
        let outputs = backend.run(Batch { inputs, ..Batch::default() })?;
        for output in &outputs {
            output.check()?;
        }
        Ok(outputs)
    }

    fn values(tensor: &Tensor) -> Vec<i64> {
        match tensor.datatype {
            DataType::Int32 => {
                tensor.to_slice::<i32>().unwrap().iter().map(|id| i64::from(*id)).collect()
            }
            _ => tensor.to_slice::<i64>().unwrap().to_vec(),
        }
    }

    #[test]
    fn a_batch_is_padded_to_its_longest_text() {
        let backend = backend(sample::bert(), &[]).unwrap();
        let outputs = run(&backend, vec![texts("text", &["A crab", "walks"])]).unwrap();
        assert_eq!(values(&outputs[0]), [2, 4, 5, 3, 2, 6, 7, 3]);
        let outputs = run(&backend, vec![texts("text", &["A crab", "a"])]).unwrap();
        assert_eq!(outputs[0].shape, [2, 4]);
        assert_eq!(values(&outputs[0]), [2, 4, 5, 3, 2, 4, 3, 0]);
        assert_eq!(values(&outputs[1]), [1, 1, 1, 1, 1, 1, 1, 0]);
        assert_eq!(values(&outputs[2]), [0; 8]);
        assert_eq!((outputs[3].shape.as_slice(), values(&outputs[3])), (&[2, 1][..], vec![4, 3]));
    }

    #[test]
    fn padding_stands_where_and_as_long_as_parameters_say() {
        for (parameters, expected) in [
            (&[("padding", "max_length")][..], vec![2, 4, 3, 0, 0, 0]),
            (&[("padding", "max_length"), ("max_length", "5")], vec![2, 4, 3, 0, 0]),
            (&[("pad_to_multiple_of", "4"), ("padding_side", "left")], vec![0, 2, 4, 3]),
            (&[("pad_to_multiple_of", "4"), ("pad_token", "[UNK]")], vec![2, 4, 3, 1]),
            (&[("add_special_tokens", "false")], vec![4]),
            (&[("padding", "none")], vec![2, 4, 3]),
        ] {
            let backend = backend(sample::bert(), parameters).unwrap();
            let outputs = run(&backend, vec![texts("text", &["a"])]).unwrap();
            assert_eq!(values(&outputs[0]), expected, "{parameters:?}");
        }
    }

    #[test]
    fn long_texts_are_cut_unless_parameters_forbid_it() {
        let long = || vec![texts("text", &["a a a a a a a a a"])];
        let ids = |parameters: &[(&str, &str)]| {
            values(&run(&backend(sample::bert(), parameters).unwrap(), long()).unwrap()[0])
        };
        assert_eq!(ids(&[]), [2, 4, 4, 4, 4, 3]);
        assert_eq!(ids(&[("max_length", "4")]), [2, 4, 4, 3]);
        assert_eq!(ids(&[("truncation", "false")]).len(), 11);
        let fixed = [("truncation", "false"), ("padding", "max_length")];
        let error = run(&backend(sample::bert(), &fixed).unwrap(), long()).unwrap_err();
        assert!(error.message().contains("has 11 tokens, but its row only 6"), "{error}");
    }

    #[test]
    fn a_batch_is_the_same_as_its_texts_alone() {
        let many: Vec<String> =
            (0..40).map(|n| format!("Text {n} {}", "borrow 🦀 ".repeat(n * 4))).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert!(many.concat().len() > PARALLEL_BYTES);
        let backend = backend(sample::ferris(), &[]).unwrap();
        let together = run(&backend, vec![texts("text", &many)]).unwrap();
        let length = together[0].shape[1] as usize;
        for (row, text) in many.iter().enumerate() {
            let alone = run(&backend, vec![texts("text", &[text])]).unwrap();
            let tokens = values(&alone[0]);
            assert_eq!(values(&together[0])[row * length..][..tokens.len()], tokens);
            assert_eq!(values(&together[3])[row], tokens.len() as i64);
            assert_eq!(
                values(&together[1])[row * length..][..length].iter().sum::<i64>(),
                tokens.len() as i64
            );
        }
    }

    #[test]
    fn a_model_without_batches_gives_flat_rows() {
        let inputs = [TensorSpec::new("QUERY", DataType::Bytes, &[-1])];
        let outputs = [
            TensorSpec::new("tokens", DataType::Int32, &[-1]),
            TensorSpec::new("REQUEST_INPUT_LEN", DataType::Int32, &[1]),
        ];
        let parameters = [("output.input_ids", "tokens")];
        let model =
            sample::unbatched(Model::plain_batching("tokenizer", &inputs, &outputs, &parameters));
        let backend = Texts::new(&model, sample::ferris()).unwrap();
        let query = Tensor::from_strings("QUERY", &[1], &["The borrow checker"]);
        let outputs = run(&backend, vec![query]).unwrap();
        assert_eq!(outputs[0].shape, [4]);
        assert_eq!(values(&outputs[0]), [476, 1253, 1018, 266]);
        assert_eq!((outputs[1].shape.as_slice(), values(&outputs[1])), (&[1][..], vec![4]));
        let two = Tensor::from_strings("QUERY", &[2], &["a", "b"]);
        let error = run(&backend, vec![two]).unwrap_err();
        assert!(error.message().contains("do not fit output `tokens`"), "{error}");
        assert_eq!(error.input(), Some("QUERY"));
    }

    #[test]
    fn a_pair_is_told_apart_by_its_token_types() {
        let inputs = [
            TensorSpec::new("question", DataType::Bytes, &[1]),
            TensorSpec::new("answer", DataType::Bytes, &[1]),
        ];
        let outputs = [TensorSpec::new("token_type_ids", DataType::Int64, &[-1])];
        let model =
            Model::plain_batching("tokenizer", &inputs, &outputs, &[("pair_input", "answer")]);
        let backend = Texts::new(&model, sample::bert()).unwrap();
        let both = vec![texts("question", &["crab"]), texts("answer", &["walks"])];
        assert_eq!(values(&run(&backend, both).unwrap()[0]), [0, 0, 0, 1, 1, 1]);
        let one = vec![texts("question", &["crab"])];
        assert_eq!(values(&run(&backend, one).unwrap()[0]), [0, 0, 0]);
        let uneven = vec![texts("question", &["crab"]), texts("answer", &["a", "a"])];
        let error = run(&backend, uneven).unwrap_err();
        assert_eq!((error.code(), error.input()), (Code::InvalidInput, Some("question")));
    }

    #[test]
    fn tokens_that_are_given_are_taken_in_the_place_of_an_empty_text() {
        let inputs = [
            TensorSpec::new("text", DataType::Bytes, &[1]),
            TensorSpec::new("prompt_token_ids", DataType::Int32, &[-1]),
        ];
        let outputs = [
            TensorSpec::new("input_ids", DataType::Int32, &[-1]),
            TensorSpec::new("attention_mask", DataType::Int32, &[-1]),
            TensorSpec::new("input_lengths", DataType::Int32, &[1]),
        ];
        let model = Model::plain_batching("tokenizer", &inputs, &outputs, &[]);
        let backend = Texts::new(&model, sample::bert()).unwrap();
        let given = |shape: &[i64], ids: Vec<i32>| Tensor::from_vec("prompt_token_ids", shape, ids);
        let both = vec![texts("text", &["", ""]), given(&[2, 3], vec![9, 8, 7, 6, 5, 4])];
        let outputs = run(&backend, both).unwrap();
        assert_eq!(
            (outputs[0].shape.as_slice(), values(&outputs[0])),
            (&[2, 3][..], vec![9, 8, 7, 6, 5, 4])
        );
        assert_eq!(values(&outputs[1]), [1; 6]);
        assert_eq!(values(&outputs[2]), [3, 3]);
        let without = run(&backend, vec![texts("text", &["a"])]).unwrap();
        assert_eq!(values(&without[0]), [2, 4, 3]);
        for (text, ids, part) in [
            (["a", ""], given(&[2, 1], vec![1, 2]), "may not be both"),
            (["", ""], given(&[2, 1], vec![1, -2]), "has -2"),
            (["", ""], given(&[1, 2], vec![1, 2]), "1 rows"),
        ] {
            let error = run(&backend, vec![texts("text", &text), ids]).unwrap_err();
            assert_eq!(
                (error.code(), error.input()),
                (Code::InvalidInput, Some("prompt_token_ids"))
            );
            assert!(error.message().contains(part), "{error}");
        }
    }

    #[test]
    fn only_wanted_outputs_are_made() {
        let backend = backend(sample::bert(), &[]).unwrap();
        let inputs = vec![texts("text", &["a"])];
        let outputs = vec!["attention_mask".into()];
        let outputs = backend.run(Batch { inputs, outputs, ..Batch::default() }).unwrap();
        assert_eq!(outputs.len(), 1);
        assert_eq!(&*outputs[0].name, "attention_mask");
    }

    #[test]
    fn text_that_is_not_utf8_is_refused_by_the_name_of_its_tensor() {
        let backend = backend(sample::bert(), &[]).unwrap();
        let broken = Tensor::from_strings("text", &[1, 1], &[b"\xff\xfe"]);
        let error = run(&backend, vec![broken]).unwrap_err();
        assert_eq!(error.code(), Code::InvalidInput);
        assert_eq!(error.message(), "input `text` is not UTF-8");
    }

    #[test]
    fn texts_of_different_lengths_need_padding() {
        let backend = backend(sample::bert(), &[("padding", "none")]).unwrap();
        let error = run(&backend, vec![texts("text", &["a", "a crab"])]).unwrap_err();
        assert!(error.message().contains("from 3 to 4 tokens"), "{error}");
    }

    #[test]
    fn parameters_that_cannot_work_are_refused_at_load() {
        for (parameters, part) in [
            (&[("max_length", "3")][..], "`max_length` is 3"),
            (&[("padding", "short")], "not `short`"),
            (&[("pad_token", "<none>")], "no token"),
            (&[("padding_side", "up")], "not `up`"),
            (&[("text_input", "txt")], "names `txt`"),
            (&[("max_lenght", "9")], "unknown parameter `max_lenght`"),
        ] {
            let error = backend(sample::bert(), parameters).err().unwrap();
            assert!(error.message().contains(part), "{error}");
        }
        let error = backend(sample::ferris(), &[("truncation", "true")]).err().unwrap();
        assert!(error.message().contains("no parameter `max_length`"), "{error}");
    }

    #[test]
    fn a_tokenizer_that_fails_on_every_text_is_refused_at_load() {
        let template = json!({
            "single": [{"SpecialToken": {"id": "[X]", "type_id": 0}}],
            "pair": [{"SpecialToken": {"id": "[X]", "type_id": 0}}],
            "special_tokens": {},
        });
        let template: TemplateProcessing = serde_json::from_value(template).unwrap();
        let mut tokenizer = sample::bert();
        tokenizer.with_post_processor(Some(template));
        let error = backend(tokenizer, &[]).err().unwrap();
        assert!(error.message().contains("special token that it does not define"), "{error}");
    }

    #[test]
    fn tensors_without_a_part_are_refused_at_load() {
        let text = TensorSpec::new("text", DataType::Bytes, &[1]);
        let ids = TensorSpec::new("input_ids", DataType::Int64, &[-1]);
        let refused = |inputs: &[TensorSpec], outputs: &[TensorSpec]| {
            let model = Model::plain_batching("tokenizer", inputs, outputs, &[]);
            Texts::new(&model, sample::bert()).err().unwrap().message().to_owned()
        };
        let spare = TensorSpec::new("spare", DataType::Fp32, &[1]);
        let message = refused(&[text.clone(), spare.clone()], slice::from_ref(&ids));
        assert!(message.contains("no use for input `spare`"), "{message}");
        let message = refused(slice::from_ref(&text), &[spare]);
        assert!(message.contains("output `spare` of model `sample` is nothing"), "{message}");
        let message = refused(&[text], &[TensorSpec::new("input_ids", DataType::Fp32, &[-1])]);
        assert!(
            message.contains("TYPE_FP32, but backend `tokenizer` takes TYPE_INT32"),
            "{message}"
        );
        let message = refused(&[], &[ids]);
        assert!(message.contains("needs an input of TYPE_STRING"), "{message}");
    }
}
