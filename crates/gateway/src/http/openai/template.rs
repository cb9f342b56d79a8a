//! Turns the messages of a chat into one prompt, by a template as Hugging Face's tokenizers have it.

mod clock;
mod python;

use consort_stage::Result;
use minijinja::value::Kwargs;
use minijinja::{Environment, ErrorKind, Value, context};
use minijinja_contrib::pycompat::unknown_method_callback;
use serde::Deserialize;
use serde_json::Map;

/// The template's name; without an ending, so that nothing is escaped.
const NAME: &str = "chat";

/// The template that is taken where there are tools, if there is one.
const WITH_TOOLS: &str = "tool_use";

/// What `tokenizer_config.json` says of chats.
#[derive(Default, Deserialize)]
pub(super) struct TokenizerConfig {
    chat_template: Option<Templates>,
    #[serde(flatten)]
    rest: Map<String, serde_json::Value>,
}

/// One template, or several with names.
#[derive(Deserialize)]
#[serde(untagged)]
enum Templates {
    One(String),
    Named(Vec<Named>),
}

#[derive(Deserialize)]
struct Named {
    name: String,
    template: String,
}

/// A template that was read and found to be one.
pub(super) struct ChatTemplate {
    environment: Environment<'static>,
    /// `bos_token` and its like, by which templates mark where messages begin and end.
    tokens: Map<String, serde_json::Value>,
    has_tools: bool,
}

/// What a template is told.
pub(super) struct Chat {
    /// The messages, their contents as text.
    pub(super) messages: serde_json::Value,
    /// The tools that the model may call.
    pub(super) tools: Option<serde_json::Value>,
    /// More variables of this one template.
    pub(super) more: Map<String, serde_json::Value>,
}

impl ChatTemplate {
    /// Reads the template `file` or else that of the tokenizer's configuration; `None` without
    /// either. The error is the template's own.
    pub(super) fn read(
        file: Option<String>,
        config: TokenizerConfig,
    ) -> Result<Option<Self>, minijinja::Error> {
        let mut environment = Environment::new();
        // As the tokenizers of Hugging Face set up Jinja.
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment.set_unknown_method_callback(unknown_method_callback);
        environment.add_filter("tojson", python::to_json);
        environment.add_function("raise_exception", raise_exception);
        environment.add_function("strftime_now", |format: &str| clock::strftime_now(format));
        let tokens = config.rest.into_iter().filter_map(special_token).collect();
        let templates = file.map(Templates::One).or(config.chat_template);
        let mut has_tools = false;
        match templates {
            None => return Ok(None),
            Some(Templates::One(text)) => environment.add_template_owned(NAME, text)?,
            Some(Templates::Named(list)) => {
                for Named { name, template } in list {
                    has_tools |= name == WITH_TOOLS;
                    let name = if name == "default" { NAME.to_owned() } else { name };
                    environment.add_template_owned(name, template)?;
                }
            }
        }
        environment.get_template(NAME)?;
        Ok(Some(Self { environment, tokens, has_tools }))
    }

    /// The prompt of a chat, up to where the model's answer begins; the error is the template's own.
    pub(super) fn render(&self, chat: &Chat) -> Result<String, minijinja::Error> {
        let name = if self.has_tools && chat.tools.is_some() { WITH_TOOLS } else { NAME };
        let own = context! {
            messages => chat.messages,
            tools => chat.tools,
            add_generation_prompt => true,
        };
        let tokens = Value::from_serialize(&self.tokens);
        let more = Value::from_serialize(&chat.more);
        self.environment.get_template(name)?.render(context! { ..own, ..more, ..tokens })
    }
}

/// Says in words what a template's error is, without what it was told.
pub(super) fn explain(error: &minijinja::Error) -> String {
    let detail = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
    match error.line() {
        Some(line) if error.kind() != ErrorKind::InvalidOperation => {
            format!("{detail} (line {line})")
        }
        _ => detail,
    }
}

/// `bos_token` and its like: text, or an object that holds it.
fn special_token((key, value): (String, serde_json::Value)) -> Option<(String, serde_json::Value)> {
    let text = match value {
        serde_json::Value::Object(mut token) => token.shift_remove("content")?,
        other => other,
    };
    (key.ends_with("_token") && text.is_string()).then_some((key, text))
}

/// How a template refuses messages that it has no form for.
fn raise_exception(message: String) -> Result<Value, minijinja::Error> {
    Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
}

/// The indentation that `tojson` is given.
fn indent(arguments: &Kwargs) -> Result<Option<usize>, minijinja::Error> {
    let indent: Option<usize> = arguments.get("indent")?;
    // Nobody is helped by the escapes, the separators or the order that Python can be asked for.
    for name in ["ensure_ascii", "separators", "sort_keys"] {
        let _: Option<Value> = arguments.get(name)?;
    }
    arguments.assert_all_used()?;
    Ok(indent)
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use serde_json::json;

    use super::*;

    fn chat(messages: serde_json::Value) -> Chat {
        Chat { messages, tools: None, more: Map::new() }
    }

    fn render(template: &str, chat: &Chat) -> String {
        let config = json!({"bos_token": "<s>", "eos_token": {"content": "</s>"}, "x": 1});
        let config = serde_json::from_value(config).unwrap();
        let template = ChatTemplate::read(Some(template.to_owned()), config);
        let text = template.map(Option::unwrap).and_then(|template| template.render(chat));
        text.unwrap_or_else(|error| format!("error: {}", explain(&error)))
    }

    fn check(template: &str, messages: serde_json::Value, expected: &Expect) {
        expected.assert_eq(&render(template, &chat(messages)));
    }

    /// The form of `ChatML`, as many models have it.
    const CHATML: &str = "{% for message in messages %}
{{'<|im_start|>' + message['role'] + '\\n' + message['content'].strip() + '<|im_end|>' + '\\n'}}
{% endfor %}
{% if add_generation_prompt %}
{{ '<|im_start|>assistant\\n' }}
{% endif %}";

    #[test]
    fn a_template_of_the_usual_form_gives_the_prompt() {
        check(
            CHATML,
            json!([{"role": "system", "content": " be kind "}, {"role": "user", "content": "hi"}]),
            &expect![[r"
                <|im_start|>system
                be kind<|im_end|>

                <|im_start|>user
                hi<|im_end|>

                <|im_start|>assistant

            "]],
        );
    }

    #[test]
    fn the_tokenizers_tokens_and_pythons_methods_are_there() {
        check(
            "{{ bos_token }}{% for m in messages %}{% if loop.index0 > 0 %}{% break %}{% endif %}\
             {{ m.content.split(' ')[0].upper() }}{{ m.get('name', '?') }}{% endfor %}{{ eos_token }}",
            json!([{"role": "user", "content": "hi you"}, {"role": "user", "content": "no"}]),
            &expect!["<s>HI?</s>"],
        );
    }

    #[test]
    fn a_template_can_refuse_the_messages() {
        check(
            "{{ raise_exception('roles must alternate') }}",
            json!([]),
            &expect!["error: roles must alternate"],
        );
        check("{{ messages[0].content }}", json!([]), &expect!["error: undefined value (line 1)"]);
    }

    #[test]
    fn json_is_written_as_python_writes_it() {
        let tool = json!({"b": [1, 2.5, "<é>", null], "a": {"x": true}, "c": [], "d": {}});
        let chat = Chat { tools: Some(json!([tool])), ..chat(json!([])) };
        expect![[r#"[{"b": [1, 2.5, "<é>", null], "a": {"x": true}, "c": [], "d": {}}]"#]]
            .assert_eq(&render("{{ tools | tojson }}", &chat));
        expect![[r#"
            [
                {
                    "b": [
                        1,
                        2.5,
                        "<é>",
                        null
                    ],
                    "a": {
                        "x": true
                    },
                    "c": [],
                    "d": {}
                }
            ]"#]]
        .assert_eq(&render("{{ tools | tojson(indent=4) }}", &chat));
    }

    #[test]
    fn tools_have_a_template_of_their_own_where_there_is_one() {
        let config = json!({"chat_template": [
            {"name": "default", "template": "plain"},
            {"name": "tool_use", "template": "{{ tools | length }} tools"},
        ]});
        let config = serde_json::from_value(config).unwrap();
        let template = ChatTemplate::read(None, config).unwrap().unwrap();
        assert_eq!(template.render(&chat(json!([]))).unwrap(), "plain");
        let tools = Chat { tools: Some(json!([1, 2])), ..chat(json!([])) };
        assert_eq!(template.render(&tools).unwrap(), "2 tools");
    }

    #[test]
    fn what_is_no_template_is_refused_at_load() {
        let broken = ChatTemplate::read(Some("{% if %}".into()), TokenizerConfig::default());
        let error = broken.err().unwrap();
        assert!(explain(&error).contains("line 1"), "{}", explain(&error));
        assert!(ChatTemplate::read(None, TokenizerConfig::default()).unwrap().is_none());
    }
}
