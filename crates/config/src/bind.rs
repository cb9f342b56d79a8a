//! Gives a configuration's tree its meaning: fields, enum values and maps of `model_config.proto`.

mod scalar;

use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, Value};

use crate::nearest::did_you_mean;
use crate::problem::Place;
use crate::report::Report;
use crate::source::{entry, field};
use crate::tree::{Entry, Node, Syntax, Value as Written};

/// Reads `fields` as a message, noting what is wrong with them and where everything is.
pub(crate) fn bind(
    fields: Vec<Entry>,
    syntax: Syntax,
    message: &MessageDescriptor,
    report: &mut Report,
) -> DynamicMessage {
    Binder { syntax, report }.group(fields, message, "")
}

struct Binder<'r> {
    syntax: Syntax,
    report: &'r mut Report,
}

/// Where a value stands.
#[derive(Clone, Copy)]
struct Spot<'a> {
    /// The group around it.
    group: &'a str,
    /// Its path.
    path: &'a str,
    /// Its place, when the syntax tells.
    place: Option<Place>,
}

impl Binder<'_> {
    fn group(
        &mut self,
        fields: Vec<Entry>,
        message: &MessageDescriptor,
        group: &str,
    ) -> DynamicMessage {
        let mut built = DynamicMessage::new(message.clone());
        let mut seen: Vec<String> = Vec::new();
        for Entry { name, place, value } in fields {
            let path = field(group, &name);
            self.report.source.note(&path, place);
            let spot = Spot { group, path: &path, place };
            let Some(descriptor) = message.get_field_by_name(&name) else {
                self.unknown(&name, message, spot);
                continue;
            };
            let is_single = !descriptor.is_list() && !descriptor.is_map();
            if is_single && seen.contains(&name) {
                self.wrong(spot, format!("`{name}` is given twice"), None);
                continue;
            }
            self.check_oneof(&descriptor, &seen, spot);
            self.field(&mut built, &descriptor, value, spot);
            seen.push(name);
        }
        built
    }

    fn field(
        &mut self,
        built: &mut DynamicMessage,
        descriptor: &FieldDescriptor,
        node: Node,
        spot: Spot<'_>,
    ) {
        if descriptor.is_map() {
            self.map(built, descriptor, node, spot);
        } else if descriptor.is_list() {
            self.list(built, descriptor, node, spot);
        } else if let Some(value) = self.value(descriptor, node, spot) {
            built.set_field(descriptor, value);
        }
    }

    /// A list in brackets, or one item of a list that is given item by item.
    fn list(
        &mut self,
        built: &mut DynamicMessage,
        descriptor: &FieldDescriptor,
        node: Node,
        spot: Spot<'_>,
    ) {
        let nodes = match node.value {
            Written::List(nodes) => nodes,
            Written::Null => Vec::new(),
            value => vec![Node { place: spot.place.or(node.place), value }],
        };
        for node in nodes {
            let Some(items) = built.get_field_mut(descriptor).as_list_mut() else { return };
            let path = format!("{}[{}]", spot.path, items.len());
            self.report.source.note(&path, node.place);
            let item = Spot { path: &path, place: node.place.or(spot.place), ..spot };
            let value = self.value(descriptor, node, item);
            // A broken item keeps its place, so that those behind it keep their number.
            let value = value.unwrap_or_else(|| Value::default_value(&descriptor.kind()));
            if let Some(items) = built.get_field_mut(descriptor).as_list_mut() {
                items.push(value);
            }
        }
    }

    fn map(
        &mut self,
        built: &mut DynamicMessage,
        descriptor: &FieldDescriptor,
        node: Node,
        spot: Spot<'_>,
    ) {
        let Kind::Message(pair) = descriptor.kind() else { return };
        let pairs: Vec<(Node, Node)> = match node.value {
            Written::Mapping(entries) => entries.into_iter().map(into_pair).collect(),
            Written::Null => Vec::new(),
            Written::List(nodes) => {
                nodes.into_iter().filter_map(|node| self.pair(node, &pair, spot)).collect()
            }
            value => {
                let place = spot.place.or(node.place);
                self.pair(Node { place, value }, &pair, spot).into_iter().collect()
            }
        };
        for (key, value) in pairs {
            let shown = match &key.value {
                Written::Text(text) | Written::Number(text) => text.clone(),
                other => other.describe(),
            };
            let path = entry(spot.path, &shown);
            let place = key.place.or(value.place).or(spot.place);
            self.report.source.note(&path, place);
            let inner = Spot { path: &path, place, ..spot };
            let key = self.value(&pair.map_entry_key_field(), key, inner).and_then(into_map_key);
            let value = self.value(&pair.map_entry_value_field(), value, inner);
            let (Some(key), Some(value)) = (key, value) else { continue };
            let Some(entries) = built.get_field_mut(descriptor).as_map_mut() else { return };
            let is_second = entries.insert(key, value).is_some();
            // Elsewhere the last one counts, as for any reader of the text format.
            if is_second && spot.path.ends_with("put_map") {
                self.wrong(inner, format!("`{shown}` is mapped twice"), None);
            }
        }
    }

    /// The key and value of a map's entry in the form `{ key: … value: … }`.
    fn pair(
        &mut self,
        node: Node,
        pair: &MessageDescriptor,
        spot: Spot<'_>,
    ) -> Option<(Node, Node)> {
        let place = node.place;
        let (Written::Group(fields) | Written::Mapping(fields)) = node.value else {
            if !matches!(node.value, Written::Broken) {
                let found = node.value.describe();
                let spot = Spot { place, ..spot };
                self.wrong(spot, format!("expected `{{ key: … value: … }}`, found {found}"), None);
            }
            return None;
        };
        let mut key = Node { place, value: Written::Text(String::new()) };
        let mut value = None;
        for Entry { name, place, value: node } in fields {
            match name.as_str() {
                "key" => key = Node { place: place.or(node.place), ..node },
                "value" => value = Some(node),
                _ => {
                    let path = field(spot.path, &name);
                    self.unknown(&name, pair, Spot { path: &path, place, ..spot });
                }
            }
        }
        let empty = Node { place, value: Written::Null };
        Some((key, value.unwrap_or(empty)))
    }

    /// A single value; `None` when it is wrong, which is noted.
    fn value(&mut self, descriptor: &FieldDescriptor, node: Node, spot: Spot<'_>) -> Option<Value> {
        let kind = descriptor.kind();
        let place = node.place.or(spot.place);
        let read = match (&kind, node.value) {
            (_, Written::Broken) => {
                self.report.misread(spot.path, spot.group);
                return None;
            }
            (Kind::Message(message), Written::Group(fields) | Written::Mapping(fields)) => {
                Ok(Value::Message(self.group(fields, message, spot.path)))
            }
            // YAML's way of naming a field and giving it nothing.
            (_, Written::Null) => Ok(Value::default_value(&kind)),
            (Kind::Message(message), value) if self.syntax == Syntax::Yaml => {
                scalar::as_parameter(message, &value)
            }
            (kind, value) => scalar::read(kind, &value, self.syntax),
        };
        read.map_err(|scalar::Misread { message, help }| {
            let message = format!("`{}` {message}", descriptor.name());
            self.wrong(Spot { place, ..spot }, message, help);
        })
        .ok()
    }

    fn check_oneof(&mut self, descriptor: &FieldDescriptor, seen: &[String], spot: Spot<'_>) {
        let Some(oneof) = descriptor.containing_oneof() else { return };
        let other = oneof.fields().find(|other| seen.iter().any(|name| name == other.name()));
        if let Some(other) = other {
            let message = format!("`{}` cannot stand beside `{}`", descriptor.name(), other.name());
            self.wrong(spot, message, Some("choose one of them".into()));
        }
    }

    fn unknown(&mut self, name: &str, message: &MessageDescriptor, spot: Spot<'_>) {
        let fields: Vec<_> = message.fields().collect();
        let help = did_you_mean(name, fields.iter().map(FieldDescriptor::name));
        self.wrong(spot, format!("unknown field `{name}`"), help);
    }

    fn wrong(&mut self, spot: Spot<'_>, message: String, help: Option<String>) {
        self.report.misread(spot.path, spot.group);
        let place = spot.place.or_else(|| self.report.source.locate(spot.path));
        self.report.at(place, message, help);
    }
}

fn into_pair(entry: Entry) -> (Node, Node) {
    (Node { place: entry.place, value: Written::Text(entry.name) }, entry.value)
}

fn into_map_key(value: Value) -> Option<MapKey> {
    Some(match value {
        Value::Bool(value) => MapKey::Bool(value),
        Value::I32(value) => MapKey::I32(value),
        Value::I64(value) => MapKey::I64(value),
        Value::U32(value) => MapKey::U32(value),
        Value::U64(value) => MapKey::U64(value),
        Value::String(value) => MapKey::String(value),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use consort_protocol::{ModelConfig, descriptor_of, to_json};
    use prost_reflect::EnumDescriptor;

    use super::*;
    use crate::source::Source;
    use crate::{text, yaml};

    /// A message in which every field is set, the last of each choice.
    fn everything(message: &MessageDescriptor) -> DynamicMessage {
        let mut built = DynamicMessage::new(message.clone());
        for field in message.fields() {
            let value = if let (true, Kind::Message(entry)) = (field.is_map(), field.kind()) {
                let key = anything(&entry.map_entry_key_field().kind());
                let value = anything(&entry.map_entry_value_field().kind());
                Value::Map([(into_map_key(key).unwrap(), value)].into())
            } else if field.is_list() {
                Value::List(vec![anything(&field.kind()), anything(&field.kind())])
            } else {
                anything(&field.kind())
            };
            built.set_field(&field, value);
        }
        built
    }

    fn anything(kind: &Kind) -> Value {
        let last = |names: &EnumDescriptor| names.values().last().unwrap().number();
        match kind {
            Kind::Bool => Value::Bool(true),
            Kind::Int32 => Value::I32(i32::MIN),
            Kind::Int64 => Value::I64(i64::MIN),
            Kind::Uint32 => Value::U32(u32::MAX),
            Kind::Uint64 => Value::U64(u64::MAX),
            Kind::Float => Value::F32(-1.5e-3),
            Kind::Double => Value::F64(2.5e30),
            Kind::String => Value::String("tab\t \"quote\" \u{3a9} 7".into()),
            Kind::Enum(names) => Value::EnumNumber(last(names)),
            Kind::Message(message) => Value::Message(everything(message)),
            other => panic!("no configuration has {other:?}"),
        }
    }

    fn bound(fields: Vec<Entry>, syntax: Syntax) -> DynamicMessage {
        let mut report = Report::new(Source::nowhere("m"));
        let message = bind(fields, syntax, &descriptor_of::<ModelConfig>(), &mut report);
        assert!(report.is_empty(), "{}", report.into_problems());
        message
    }

    #[test]
    fn every_field_is_understood_in_both_syntaxes() {
        let message = everything(&descriptor_of::<ModelConfig>());
        for pretty in [true, false] {
            let options = prost_reflect::text_format::FormatOptions::new().pretty(pretty);
            let parsed = text::parse(&message.to_text_format_with_options(&options));
            assert!(parsed.errors.is_empty(), "{:?}", parsed.errors);
            assert_eq!(
                bound(parsed.fields, Syntax::Text).to_text_format(),
                message.to_text_format()
            );
        }
        let config: ModelConfig = message.transcode_to().unwrap();
        let text = serde_yaml::to_string(&to_json(&config).unwrap()).unwrap();
        let Written::Mapping(fields) = yaml::parse(&text).unwrap().value else { panic!("{text}") };
        assert_eq!(bound(fields, Syntax::Yaml).to_text_format(), message.to_text_format());
    }
}
