//! Writes a response as one flat JSON object, its keys in alphabetical order.

use std::collections::BTreeMap;

use consort_stage::{Response, Result, Tensor};

use super::Caller;
use crate::http::json_tensor::{write, write_elements};
use crate::http::parameters;

/// The flat JSON object of `response`.
pub(super) fn encode(caller: &Caller, response: &Response) -> Result<Vec<u8>> {
    let mut members: BTreeMap<&str, Vec<u8>> = BTreeMap::new();
    let mut add = |key, value| {
        members.insert(key, json(&value));
    };
    if !caller.id.is_empty() {
        add("id", caller.id.as_str().into());
    }
    add("model_name", (&*caller.served.name).into());
    let version = response.version.unwrap_or(caller.served.version);
    add("model_version", version.to_string().into());
    for (key, parameter) in &response.parameters {
        add(key, parameters::to_json(parameter));
    }
    for output in &response.outputs {
        members.insert(&output.name, value(output)?);
    }
    let mut object = Vec::new();
    for (key, value) in members {
        object.push(if object.is_empty() { b'{' } else { b',' });
        write(&mut object, key);
        object.push(b':');
        object.extend_from_slice(&value);
    }
    object.push(b'}');
    Ok(object)
}

/// The only element of a tensor as it is, any other number of them as a flat array.
fn value(tensor: &Tensor) -> Result<Vec<u8>> {
    let mut value = Vec::new();
    if tensor.len() == 1 {
        write_elements(&mut value, tensor)?;
        return Ok(value);
    }
    value.push(b'[');
    write_elements(&mut value, tensor)?;
    value.push(b']');
    Ok(value)
}

fn json(value: &serde_json::Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    write(&mut bytes, value);
    bytes
}
