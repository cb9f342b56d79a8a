//! `POST /v1/chat/completions`: answers the messages of a chat.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use consort_stage::Error;
use serde_json::{Map, Value};

use super::answer::{Answer, Kind, now};
use super::caller::Caller;
use super::error::Refusal;
use super::fields::{Fields, mismatch};
use super::generation::Generation;
use super::inputs::{Input, Setting};
use super::prompt::Prompt;
use super::receive;
use super::sampling::{MOST_LOG_PROBS, RESPONSE_FORMAT, Sampling, max_completion_tokens};
use super::template::{Chat, explain};
use crate::http::Front;
use crate::http::offload::offload;

/// Who may have said a message.
const ROLES: [&str; 5] = ["system", "developer", "user", "assistant", "tool"];

/// Fields that ask for what models of text cannot give.
const NOT_OFFERED: [(&str, &str); 5] = [
    ("functions", "send `tools`"),
    ("function_call", "send `tools`"),
    ("audio", "the models of this server speak in text"),
    ("prediction", "the models of this server take no predicted text"),
    ("web_search_options", "the models of this server search nowhere"),
];

/// Answers one request.
pub(super) async fn complete(
    State(front): State<Front>,
    request: Request,
) -> Result<Response, Refusal> {
    let (head, mut fields) = receive(&front, request).await?;
    let caller = Caller::new(&head, &mut fields, "chatcmpl-")?;
    let response = respond(&front, &caller, fields).await;
    response.map_err(|refusal| refusal.noted_on(&caller.span, caller.labels()))
}

async fn respond(front: &Front, caller: &Caller, mut fields: Fields) -> Result<Response, Refusal> {
    let model = caller.find_text(front)?;
    let template = front.templates.of(&front.models, model.base()).await;
    let template = template.map_err(|error| Refusal::from(error).about("model"))?;
    let chat = chat(&mut fields)?;
    for (name, why) in NOT_OFFERED {
        fields.refuse(name, why)?;
    }
    check_modalities(&mut fields)?;
    let mut sampling = Sampling::read(&mut fields, 1)?;
    sampling.settings.extend(form(&mut fields)?);
    max_completion_tokens(&mut fields, &mut sampling)?;
    sampling.log_probs = log_probs(&mut fields)?;
    let size = chat.messages.as_array().map_or(0, |list| list.len() << 10);
    let name = caller.model.clone();
    let prompt = offload(size, move || {
        template.render(&chat).map_err(|error| {
            let text = explain(&error);
            let text = format!("the chat template of model `{name}` refuses the messages: {text}");
            Error::invalid(text).with_source(error)
        })
    });
    let prompt = prompt.await.map_err(|error| Refusal::from(error).about("messages"))?;
    let mut generation = Generation {
        model,
        prompts: vec![Arc::new(Prompt::Text(prompt))],
        sampling,
        echoes: false,
    };
    generation.take_rest(fields)?;
    let (id, model) = (caller.id.clone(), caller.model.clone());
    let answer = Answer { kind: Kind::Chat, id, model, created: now() };
    generation.respond(front, caller, answer).await
}

/// What the template is told.
fn chat(fields: &mut Fields) -> Result<Chat, Refusal> {
    let list = match fields.require("messages")? {
        Value::Array(list) if list.is_empty() => {
            return Err(Refusal::of("messages", "`messages` is an empty list"));
        }
        Value::Array(list) => list,
        other => return Err(mismatch("messages", "a list of messages", &other)),
    };
    let messages = list.into_iter().enumerate().map(|(index, message)| read(index, message));
    let messages = messages.collect::<Result<_, _>>()?;
    let more = match fields.take("chat_template_kwargs") {
        None => Map::new(),
        Some(Value::Object(more)) => more,
        Some(other) => return Err(mismatch("chat_template_kwargs", "an object", &other)),
    };
    Ok(Chat { messages, tools: tools(fields)?, more })
}

/// A message with its content as one text.
fn read(index: usize, message: Value) -> Result<Value, Refusal> {
    let at = format!("messages[{index}]");
    let Value::Object(mut message) = message else {
        return Err(mismatch(&at, "an object", &message));
    };
    let role = message.get("role").and_then(Value::as_str);
    if !role.is_some_and(|role| ROLES.contains(&role)) {
        let text = format!("`{at}.role` must be one of {}", ROLES.join(", "));
        return Err(Refusal::of(&format!("{at}.role"), text));
    }
    let at = format!("{at}.content");
    let content = match message.get_mut("content").map(Value::take) {
        Some(Value::String(text)) => text,
        Some(Value::Array(parts)) => text_of(&at, &parts)?,
        None | Some(Value::Null) if message.contains_key("tool_calls") => String::new(),
        None | Some(Value::Null) => return Err(Refusal::of(&at, format!("`{at}` is missing"))),
        Some(other) => return Err(mismatch(&at, "a string or a list of parts", &other)),
    };
    message.insert("content".to_owned(), content.into());
    Ok(message.into())
}

/// The text of a content in parts, each on a line of its own.
fn text_of(at: &str, parts: &[Value]) -> Result<String, Refusal> {
    let text = |(index, part): (usize, &Value)| {
        let is_text = part.get("type").and_then(Value::as_str) == Some("text");
        let text = part.get("text").and_then(Value::as_str).filter(|_| is_text);
        text.map(str::to_owned).ok_or_else(|| {
            let at = format!("{at}[{index}]");
            let text = format!("`{at}` must be a part of type `text`: models here read text alone");
            Refusal::of(&at, text)
        })
    };
    let texts = parts.iter().enumerate().map(text).collect::<Result<Vec<_>, _>>()?;
    Ok(texts.join("\n"))
}

/// The tools that the template is told of.
fn tools(fields: &mut Fields) -> Result<Option<Value>, Refusal> {
    let tools = match fields.take("tools") {
        None => None,
        Some(Value::Array(tools)) => Some(tools).filter(|tools| !tools.is_empty()),
        Some(other) => return Err(mismatch("tools", "a list of tools", &other)),
    };
    match fields.take("tool_choice") {
        None => Ok(tools.map(Value::Array)),
        Some(Value::String(choice)) if choice == "auto" => Ok(tools.map(Value::Array)),
        Some(Value::String(choice)) if choice == "none" => Ok(None),
        Some(_) => {
            let text = "`tool_choice` must be `none` or `auto`: a model cannot be made to call one";
            Err(Refusal::of("tool_choice", text))
        }
    }
}

/// How many of the likeliest tokens are wanted beside each, when probabilities are wanted.
fn log_probs(fields: &mut Fields) -> Result<Option<usize>, Refusal> {
    let is_wanted = fields.flag("logprobs")?;
    match fields.integer("top_logprobs", 0..=MOST_LOG_PROBS)? {
        Some(1..) if !is_wanted => {
            let text = "`top_logprobs` is for requests with `logprobs` set to true";
            Err(Refusal::of("top_logprobs", text))
        }
        alternatives => Ok(is_wanted.then_some(alternatives.unwrap_or(0) as usize)),
    }
}

/// What the form of the answer asks of the model: nothing for plain text.
fn form(fields: &mut Fields) -> Result<Vec<Setting>, Refusal> {
    let format = match fields.take(RESPONSE_FORMAT) {
        None => return Ok(Vec::new()),
        Some(Value::Object(format)) => format,
        Some(other) => return Err(mismatch(RESPONSE_FORMAT, "an object", &other)),
    };
    let schema = || format.get("json_schema").and_then(|described| described.get("schema"));
    let guide = match (format.get("type").and_then(Value::as_str), schema()) {
        (Some("text"), _) => return Ok(Vec::new()),
        (Some("json_object"), _) => None,
        (Some("json_schema"), Some(schema @ (Value::Object(_) | Value::Bool(_)))) => {
            Some(schema.to_string())
        }
        (Some("json_schema"), Some(other)) => {
            return Err(mismatch("response_format.json_schema.schema", "an object", other));
        }
        (Some("json_schema"), None) => {
            let text = "`response_format.json_schema.schema` is missing";
            return Err(Refusal::of("response_format.json_schema.schema", text));
        }
        _ => {
            let text = "`response_format.type` must be `text`, `json_object` or `json_schema`";
            return Err(Refusal::of("response_format.type", text));
        }
    };
    let kind = if guide.is_some() { "json_schema" } else { "json_object" };
    let set = |input, text| Setting::new(RESPONSE_FORMAT, input, Input::Texts(vec![text]));
    let guide = guide.map(|guide| set("guided_decoding_guide", guide));
    Ok([Some(set("guided_decoding_guide_type", kind.to_owned())), guide]
        .into_iter()
        .flatten()
        .collect())
}

/// Refuses any answer but text.
fn check_modalities(fields: &mut Fields) -> Result<(), Refusal> {
    match fields.take("modalities") {
        Some(modalities) if modalities != serde_json::json!(["text"]) => {
            let text = "`modalities` must be `[\"text\"]`: the models of this server speak in text";
            Err(Refusal::of("modalities", text))
        }
        _ => Ok(()),
    }
}
