//! The chunks of a streamed answer as Server-Sent Events. What they have in common is written once,
//! since there is one for each token.

use bytes::Bytes;
use serde::Serialize;
use serde_json::{Value, json};

use super::answer::{Answer, Kind};
use super::counts::Usage;
use super::log_probs::{self, Token};
use crate::http::json_tensor::write;

/// The last event of a stream.
pub(super) const DONE: Bytes = Bytes::from_static(b"data: [DONE]\n\n");

/// How many bytes are reserved for what a chunk does not share with the others: most texts are a
/// few letters.
const ROOM: usize = 64;

/// The chunks of one answer.
pub(super) struct Chunks {
    kind: Kind,
    /// Everything before the choices.
    head: Vec<u8>,
    /// Everything behind them.
    tail: &'static [u8],
}

impl Chunks {
    /// The chunks of `answer`; with the usage in the last of them where it `includes_usage`.
    pub(super) fn new(answer: &Answer, includes_usage: bool) -> Self {
        let object = match answer.kind {
            Kind::Completion => "text_completion",
            Kind::Chat => "chat.completion.chunk",
        };
        let common = answer.object(object, &[]).to_string();
        let head = common.strip_suffix("]}").unwrap_or(&common);
        // OpenAI's word that the usage is yet to come.
        let tail: &[u8] = if includes_usage { b"],\"usage\":null}\n\n" } else { b"]}\n\n" };
        Self { kind: answer.kind, head: format!("data: {head}").into(), tail }
    }

    /// The chunk that begins a choice, where there is one.
    pub(super) fn opening(&self, index: usize) -> Option<Bytes> {
        let delta = json!({"role": "assistant", "content": "", "refusal": null});
        (self.kind == Kind::Chat).then(|| self.of_chat(index, delta, None, None))
    }

    /// The chunk of a piece of text, and of its tokens where their probabilities are wanted.
    pub(super) fn piece(&self, index: usize, text: &str, tokens: Option<&[Token]>) -> Bytes {
        match self.kind {
            Kind::Completion => self.of_completion(index, text, tokens, None),
            Kind::Chat => self.of_chat(index, Content { content: text }, tokens, None),
        }
    }

    /// The chunk that ends a choice.
    pub(super) fn end(&self, index: usize, finish: &'static str) -> Bytes {
        match self.kind {
            Kind::Completion => self.of_completion(index, "", None, Some(finish)),
            Kind::Chat => self.of_chat(index, json!({}), None, Some(finish)),
        }
    }

    /// The chunk that tells the usage.
    pub(super) fn usage(&self, usage: Usage) -> Bytes {
        let mut chunk = self.head.clone();
        chunk.extend_from_slice(b"],\"usage\":");
        write(&mut chunk, &usage.json());
        chunk.extend_from_slice(b"}\n\n");
        chunk.into()
    }

    fn of_completion(
        &self,
        index: usize,
        text: &str,
        tokens: Option<&[Token]>,
        finish: Option<&'static str>,
    ) -> Bytes {
        let logprobs = tokens.map(|tokens| log_probs::json(self.kind, tokens));
        self.chunk(text.len(), &TextChoice { index, text, logprobs, finish_reason: finish })
    }

    fn of_chat<D: Serialize>(
        &self,
        index: usize,
        delta: D,
        tokens: Option<&[Token]>,
        finish: Option<&'static str>,
    ) -> Bytes {
        let logprobs = tokens.map(|tokens| log_probs::json(self.kind, tokens));
        self.chunk(0, &ChatChoice { index, delta, logprobs, finish_reason: finish })
    }

    /// The chunk of a choice whose text is about so long.
    fn chunk(&self, length: usize, choice: &impl Serialize) -> Bytes {
        let room = self.head.len() + self.tail.len() + length + ROOM;
        let mut chunk = Vec::with_capacity(room);
        chunk.extend_from_slice(&self.head);
        write(&mut chunk, choice);
        chunk.extend_from_slice(self.tail);
        chunk.into()
    }
}

/// A choice of a completion's chunk.
#[derive(Serialize)]
struct TextChoice<'a> {
    index: usize,
    text: &'a str,
    logprobs: Option<Value>,
    finish_reason: Option<&'static str>,
}

/// A choice of a chat's chunk.
#[derive(Serialize)]
struct ChatChoice<D> {
    index: usize,
    delta: D,
    logprobs: Option<Value>,
    finish_reason: Option<&'static str>,
}

/// More of a message.
#[derive(Serialize)]
struct Content<'a> {
    content: &'a str,
}
