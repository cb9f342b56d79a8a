//! Finds out what a decoder's graph is: which tensor is which, and how its cache is carried on.

use consort_stage::{Error, Result};
use ort::session::Session;
use ort::value::{Outlet, TensorElementType, ValueType};

use super::choosing;
use super::config::Config;

/// The switch of the merged exports that older tools made.
pub(super) const CACHE_BRANCH: &str = "use_cache_branch";

/// A decoder's tensors.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Graph {
    /// The tokens to feed, [batch, sequence].
    pub(crate) tokens: Integers,
    /// Ones for the tokens to look at, [batch, past + sequence].
    pub(crate) mask: Option<Integers>,
    /// The places of the tokens in the text, [batch, sequence].
    pub(crate) positions: Option<Integers>,
    /// Whether the past counts, BOOL[1], in graphs that hold a first step beside the later ones.
    pub(crate) cache_branch: Option<String>,
    /// The scores of every token of the vocabulary, [batch, sequence, vocabulary].
    pub(crate) logits: Logits,
    /// How many tokens there are, where the graph says so.
    pub(crate) vocabulary: Option<usize>,
    /// Keys and values of every layer.
    pub(crate) cache: Vec<CacheTensor>,
    /// How the cache goes from one step to the next.
    pub(crate) carrying: Carrying,
    /// Whether it makes its mask and picks the likeliest token itself, by [`choosing`].
    pub(crate) chooses: bool,
}

/// An input of whole numbers.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Integers {
    /// Its name.
    pub(crate) name: String,
    /// Whether its elements have 64 bits, not 32.
    pub(crate) is_wide: bool,
}

impl Integers {
    /// The type of its elements.
    pub(crate) fn element(&self) -> TensorElementType {
        if self.is_wide { TensorElementType::Int64 } else { TensorElementType::Int32 }
    }
}

/// The output with the scores of the next token.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Logits {
    /// Its name.
    pub(crate) name: String,
    /// The type of its numbers.
    pub(crate) element: TensorElementType,
    /// Whether it has those after the last token alone, [batch, 1, vocabulary].
    pub(crate) is_last_only: bool,
    /// The output beside it with those of every token, where there is one.
    pub(crate) of_all: Option<String>,
}

impl Logits {
    /// Those of an output, or of the one with the last position's that was added beside it.
    fn of(output: &Outlet, outputs: &[Outlet]) -> Self {
        let Some(last) = find(outputs, choosing::LAST_LOGITS) else {
            return Self::of_output(output);
        };
        let of_all =
            Some(output.name().to_owned()).filter(|_| !Self::of_output(output).is_last_only);
        Self { is_last_only: true, of_all, ..Self::of_output(last) }
    }

    fn of_output(output: &Outlet) -> Self {
        let element = output.dtype().tensor_type();
        let shape = output.dtype().tensor_shape();
        Self {
            name: output.name().to_owned(),
            element: element.unwrap_or(TensorElementType::Undefined),
            is_last_only: shape.is_some_and(|shape| matches!(&**shape, [_, 1, _])),
            of_all: None,
        }
    }
}

/// The keys or the values of one layer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct CacheTensor {
    /// The input with those of the tokens before.
    pub(crate) past: String,
    /// The output with the new tokens' as well.
    pub(crate) present: String,
    /// The type of its numbers.
    pub(crate) element: TensorElementType,
    /// How many heads it has.
    pub(crate) heads: i64,
    /// How many numbers each head has for a token.
    pub(crate) head_size: i64,
    /// How its numbers lie.
    pub(crate) layout: Layout,
}

/// How the numbers of a cache tensor lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// [batch, heads, tokens, head size], as in nearly every export.
    Heads,
    /// [batch x heads, tokens, head size], the values of older Bloom exports.
    FlatHeads,
    /// [batch x heads, head size, tokens], the keys of older Bloom exports.
    FlatTransposed,
}

impl CacheTensor {
    /// Its shape with so many rows and tokens.
    pub(crate) fn shape(&self, rows: usize, tokens: usize) -> Vec<i64> {
        let (rows, tokens) = (rows as i64, tokens as i64);
        match self.layout {
            Layout::Heads => vec![rows, self.heads, tokens, self.head_size],
            Layout::FlatHeads => vec![rows * self.heads, tokens, self.head_size],
            Layout::FlatTransposed => vec![rows * self.heads, self.head_size, tokens],
        }
    }
}

/// How the cache goes from one step to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Carrying {
    /// Past and present are one buffer of full length, written in place (`GroupQueryAttention`).
    SharedBuffer,
    /// The present of a step, one token longer, is the past of the next.
    PresentToPast,
}

impl Graph {
    /// Reads the graph's tensors by the names in `config`.
    pub(crate) fn read(session: &Session, config: &Config) -> Result<Self> {
        let (inputs, outputs) = (session.inputs(), session.outputs());
        let names = &config.names;
        let cache = cache_tensors(inputs, outputs, config)?;
        let mask = integers(inputs, &names.attention_mask)?;
        let positions = integers(inputs, &names.position_ids)?;
        let tokens = integers(inputs, &names.input_ids)?
            .ok_or_else(|| unknown_layout(inputs, &format!("an input `{}`", names.input_ids)))?;
        let logits = find(outputs, &names.outputs.logits).ok_or_else(|| {
            unknown_layout(outputs, &format!("an output `{}`", names.outputs.logits))
        })?;
        let graph = Self {
            tokens,
            mask,
            positions,
            cache_branch: find(inputs, CACHE_BRANCH).map(|_| CACHE_BRANCH.to_owned()),
            logits: Logits::of(logits, outputs),
            vocabulary: last_dim(logits).and_then(|dim| usize::try_from(dim).ok()),
            cache,
            chooses: find(outputs, choosing::CHOSEN).is_some(),
            carrying: if config.shares_buffer {
                Carrying::SharedBuffer
            } else {
                Carrying::PresentToPast
            },
        };
        graph.check_inputs(inputs)?;
        Ok(graph)
    }

    /// Whether its attention writes numbers of 32 bits into a shared buffer, which only the
    /// processor's can.
    pub(crate) fn shares_fp32_buffer(&self) -> bool {
        self.carrying == Carrying::SharedBuffer
            && self.cache.iter().any(|tensor| tensor.element == TensorElementType::Float32)
    }

    /// Whether a prompt is fed in one run and from its first token: a graph with a branch for the
    /// first step takes all of it there.
    pub(crate) fn takes_prompts_whole(&self) -> bool {
        self.cache_branch.is_some()
    }

    /// How many bytes of cache a sequence of `context` tokens takes.
    pub(crate) fn cache_bytes(&self, context: usize) -> usize {
        let each = |tensor: &CacheTensor| {
            let numbers = (tensor.heads * tensor.head_size) as usize;
            tensor.element.byte_size(numbers.saturating_mul(context)).unwrap_or(0)
        };
        self.cache.iter().map(each).fold(0, usize::saturating_add)
    }

    /// Refuses a graph with an input that nobody here would feed.
    fn check_inputs(&self, inputs: &[Outlet]) -> Result<()> {
        let integers = [Some(&self.tokens), self.mask.as_ref(), self.positions.as_ref()];
        let is_known = |name: &str| {
            integers.iter().flatten().any(|input| input.name == name)
                || self.chooses && [choosing::LENGTHS, choosing::COLUMNS].contains(&name)
                || self.cache_branch.as_deref() == Some(name)
                || self.cache.iter().any(|tensor| tensor.past == name)
        };
        match inputs.iter().find(|input| !is_known(input.name())) {
            None => Ok(()),
            Some(input) => Err(unknown_layout(
                inputs,
                &format!(
                    "no other inputs than tokens, mask, positions and cache, and found `{}`",
                    input.name()
                ),
            )),
        }
    }
}

fn cache_tensors(
    inputs: &[Outlet],
    outputs: &[Outlet],
    config: &Config,
) -> Result<Vec<CacheTensor>> {
    let names = &config.names;
    let patterns = [
        (&names.past_keys, &names.outputs.present_keys, true),
        (&names.past_values, &names.outputs.present_values, false),
    ];
    let mut tensors = Vec::new();
    for layer in 0.. {
        let layer = layer.to_string();
        let before = tensors.len();
        for (past, present, is_key) in patterns {
            let (past, present) = (past.replace("%d", &layer), present.replace("%d", &layer));
            if let Some(input) = find(inputs, &past) {
                let output = find(outputs, &present)
                    .ok_or_else(|| unknown_layout(outputs, &format!("an output `{present}`")))?;
                tensors.push(cache_tensor(input, output, config, is_key)?);
            }
        }
        match tensors.len() - before {
            0 if layer == "0" => {
                let first = names.past_keys.replace("%d", "0");
                return Err(unknown_layout(
                    inputs,
                    &format!("an input `{first}` (name it in `genai_config.json` if it differs)"),
                ));
            }
            0 => return Ok(tensors),
            _ => {}
        }
    }
    unreachable!("a graph has fewer layers than there are numbers")
}

fn cache_tensor(
    input: &Outlet,
    output: &Outlet,
    config: &Config,
    is_key: bool,
) -> Result<CacheTensor> {
    let odd = |what: &str| {
        Error::unsupported(format!("cache input `{}` is a {}: {what}", input.name(), input.dtype()))
    };
    let ValueType::Tensor { ty, shape, .. } = input.dtype() else {
        return Err(odd("it is not a tensor"));
    };
    let (layout, heads, head_size) = match (&**shape, is_key) {
        (&[_, heads, _, head_size], _) => (Layout::Heads, heads, head_size),
        (&[_, head_size, _], true) => (Layout::FlatTransposed, -1, head_size),
        (&[_, _, head_size], false) => (Layout::FlatHeads, -1, head_size),
        _ => {
            return Err(odd(
                "only [batch, heads, tokens, head size] and, in older Bloom exports, \
                            [batch x heads, head size, tokens] for keys and [batch x heads, \
                            tokens, head size] for values are known",
            ));
        }
    };
    if layout != Layout::Heads && config.shares_buffer {
        return Err(odd("a shared buffer is [batch, heads, tokens, head size]"));
    }
    let known = |dim: i64, configured: Option<i64>| {
        let dim = Some(dim).filter(|dim| *dim > 0).or(configured);
        dim.ok_or_else(|| {
            odd("heads and head size must be fixed, or said in `genai_config.json` or `config.json`")
        })
    };
    Ok(CacheTensor {
        past: input.name().to_owned(),
        present: output.name().to_owned(),
        element: *ty,
        heads: known(heads, config.kv_heads)?,
        head_size: known(head_size, config.head_size)?,
        layout,
    })
}

fn integers(inputs: &[Outlet], name: &str) -> Result<Option<Integers>> {
    let Some(input) = find(inputs, name) else {
        return Ok(None);
    };
    let is_wide = match input.dtype().tensor_type() {
        Some(TensorElementType::Int64) => true,
        Some(TensorElementType::Int32) => false,
        _ => {
            return Err(Error::unsupported(format!(
                "input `{name}` is a {}; only INT64 and INT32 are known",
                input.dtype()
            )));
        }
    };
    Ok(Some(Integers { name: name.to_owned(), is_wide }))
}

fn find<'a>(outlets: &'a [Outlet], name: &str) -> Option<&'a Outlet> {
    outlets.iter().find(|outlet| outlet.name() == name)
}

fn last_dim(outlet: &Outlet) -> Option<i64> {
    outlet.dtype().tensor_shape()?.last().copied()
}

fn unknown_layout(outlets: &[Outlet], wanted: &str) -> Error {
    let found: Vec<_> = outlets.iter().map(|outlet| format!("`{}`", outlet.name())).collect();
    Error::unsupported(format!(
        "unknown decoder layout: looked for {wanted}, in the conventions of onnxruntime-genai and \
         of Optimum, among {}",
        found.join(", ")
    ))
}
