//! Messages as JSON the way Triton shows and takes them.

use std::sync::LazyLock;

use consort_stage::{Error, Result};
use prost::{Message, Name};
use prost_reflect::{
    DescriptorPool, DeserializeOptions, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor,
    SerializeOptions,
};
use serde_json::Value;

use crate::{FILE_DESCRIPTOR_SET, ModelConfig};

/// Every message of `proto/`, to be looked up by name.
pub fn descriptors() -> &'static DescriptorPool {
    static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
        DescriptorPool::decode(FILE_DESCRIPTOR_SET).expect("the build script wrote it")
    });
    &POOL
}

/// The description of the message `M`.
pub fn descriptor_of<M: Name>() -> MessageDescriptor {
    descriptors()
        .get_message_by_name(&M::full_name())
        .expect("every generated message is in the descriptor set")
}

/// A message as JSON: names as in `proto/`, enums as names, 64-bit integers as numbers, and the
/// fields that have no message in them even where they are at their default.
pub fn to_json<M: Message + Name>(message: &M) -> Result<Value> {
    let bytes = message.encode_to_vec();
    let options = SerializeOptions::new()
        .stringify_64_bit_integers(false)
        .use_proto_field_name(true)
        .skip_default_fields(false);
    let descriptor = descriptor_of::<M>();
    let mut shown = DynamicMessage::decode(descriptor.clone(), bytes.as_slice())
        .map_err(|error| Error::internal("a message could not be described").with_source(error))?
        .serialize_with_options(serde_json::value::Serializer, &options)
        .map_err(|error| Error::internal("a message could not be shown").with_source(error))?;
    order_maps(&mut shown, &descriptor);
    Ok(shown)
}

/// Reads a model configuration from JSON.
///
/// Integers may be strings and enum names may have any case; an unknown field is refused.
pub fn config_from_json(text: &str) -> Result<ModelConfig> {
    let invalid = |error: &dyn std::fmt::Display| {
        Error::invalid(format!("the model configuration is not valid JSON: {error}"))
    };
    let mut value: Value = serde_json::from_str(text).map_err(|error| invalid(&error))?;
    let descriptor = descriptor_of::<ModelConfig>();
    raise_enum_names(&mut value, &descriptor);
    DynamicMessage::deserialize_with_options(descriptor, value, &DeserializeOptions::new())
        .map_err(|error| invalid(&error))?
        .transcode_to()
        .map_err(|error| invalid(&error))
}

/// Writes the names of enum values as `proto/` does, in capitals.
fn raise_enum_names(value: &mut Value, message: &MessageDescriptor) {
    each_field(value, message, &mut |value, field| {
        if let (Value::String(name), Kind::Enum(_)) = (value, field.kind()) {
            name.make_ascii_uppercase();
        }
    });
}

/// Puts the entries of maps in the order of their keys, so that the same is always shown the same.
fn order_maps(value: &mut Value, message: &MessageDescriptor) {
    each_field(value, message, &mut |value, field| {
        if let (Value::Object(entries), true) = (value, field.is_map()) {
            entries.sort_keys();
        }
    });
}

/// What is done to the values of a field.
type Edit<'a> = dyn FnMut(&mut Value, &FieldDescriptor) + 'a;

/// Calls `edit` for every field of a message and of the messages in it, and for every item of a
/// list.
fn each_field(value: &mut Value, message: &MessageDescriptor, edit: &mut Edit<'_>) {
    let Value::Object(entries) = value else {
        return;
    };
    for (name, value) in entries {
        let field =
            message.get_field_by_name(name).or_else(|| message.get_field_by_json_name(name));
        if let Some(field) = field {
            edit_field(value, &field, edit);
        }
    }
}

fn edit_field(value: &mut Value, field: &FieldDescriptor, edit: &mut Edit<'_>) {
    if let Value::Array(items) = value {
        for item in items {
            edit_field(item, field, edit);
        }
        return;
    }
    edit(value, field);
    let Kind::Message(message) = field.kind() else {
        return;
    };
    if !field.is_map() {
        return each_field(value, &message, edit);
    }
    let Value::Object(entries) = value else {
        return;
    };
    for value in entries.values_mut() {
        edit_field(value, &message.map_entry_value_field(), edit);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::DataType;

    #[test]
    fn a_configuration_is_shown_with_its_defaults() {
        let config = config_from_json(
            r#"{"name":"m","input":[{"name":"x","data_type":"TYPE_FP32","dims":[-1]}],
                "parameters":{"b":{"string_value":"2"},"a":{"string_value":"1"}},
                "dynamic_batching":{}}"#,
        )
        .unwrap();
        let shown = to_json(&config).unwrap();
        assert_eq!(shown["max_batch_size"], json!(0));
        assert_eq!(shown["platform"], json!(""));
        assert_eq!(shown["output"], json!([]));
        assert_eq!(shown["input"][0]["data_type"], json!("TYPE_FP32"));
        assert_eq!(shown["input"][0]["format"], json!("FORMAT_NONE"));
        assert_eq!(shown["input"][0]["dims"], json!([-1]));
        assert_eq!(shown["dynamic_batching"]["max_queue_delay_microseconds"], json!(0));
        assert_eq!(shown.get("sequence_batching"), None);
        assert_eq!(
            shown["parameters"].to_string(),
            r#"{"a":{"string_value":"1"},"b":{"string_value":"2"}}"#
        );
        assert_eq!(config_from_json(&shown.to_string()).unwrap(), config);
    }

    #[test]
    fn integers_may_be_strings_and_enum_names_any_case() {
        let config = config_from_json(
            r#"{"max_batch_size":"16","input":[{"data_type":"type_int8","dims":["4"]}],
                "instance_group":[{"kind":"kind_cpu"}],
                "model_warmup":[{"inputs":{"x":{"data_type":"Type_Bool"}}}]}"#,
        )
        .unwrap();
        assert_eq!(config.max_batch_size, 16);
        assert_eq!(config.input[0].data_type(), DataType::TypeInt8);
        assert_eq!(config.input[0].dims, [4]);
        assert_eq!(config.model_warmup[0].inputs["x"].data_type(), DataType::TypeBool);
    }

    #[test]
    fn an_unknown_field_is_refused() {
        let error = config_from_json(r#"{"max_bach_size":1}"#).unwrap_err();
        assert!(error.message().contains("max_bach_size"), "{error}");
    }
}
