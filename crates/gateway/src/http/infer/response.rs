//! Writes an inference response: its JSON, and the binary tensors behind it, in one buffer.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use consort_repository::{Served, classify};
use consort_stage::{Parameters, Response, Result, Tensor};

use crate::http::json_tensor::{write, write_elements};
use crate::http::parameters;

/// Room for the JSON of a usual response, so that the buffer is allocated once.
const USUAL_JSON: usize = 512;

/// The form in which a response is wanted.
#[derive(Debug, Default)]
pub(super) struct Form {
    /// The caller's name for the request, given back.
    pub(super) id: String,
    /// Whether outputs are binary unless they say otherwise.
    pub(super) is_binary: bool,
    /// The outputs that are wanted; none means all.
    pub(super) wishes: Vec<Wish>,
}

/// The form in which one output is wanted.
#[derive(Debug)]
pub(super) struct Wish {
    /// The output's name.
    pub(super) name: Arc<str>,
    /// Whether it is to be binary; `None` where nothing was said.
    pub(super) is_binary: Option<bool>,
    /// How many classes are to stand for it.
    pub(super) classes: Option<usize>,
}

/// A response as it goes out.
#[derive(Debug)]
pub(super) struct Encoded {
    /// The body.
    pub(super) bytes: Vec<u8>,
    /// How much of it was JSON before compression; `None` when all of it was.
    pub(super) json_length: Option<usize>,
}

/// Writes `response` in the form that was asked for.
pub(super) fn encode(served: &Served, form: &Form, response: Response) -> Result<Encoded> {
    let data = response.outputs.iter().map(|tensor| tensor.data.len());
    let mut bytes = Vec::with_capacity(USUAL_JSON + data.sum::<usize>());
    let mut blobs = Vec::with_capacity(response.outputs.len());
    bytes.push(b'{');
    if !form.id.is_empty() {
        bytes.extend_from_slice(br#""id":"#);
        write(&mut bytes, &form.id);
        bytes.push(b',');
    }
    bytes.extend_from_slice(br#""model_name":"#);
    write(&mut bytes, &*served.name);
    let version = response.version.unwrap_or(served.version);
    append(&mut bytes, format_args!(r#","model_version":"{version}""#));
    write_parameters(&mut bytes, &response.parameters);
    bytes.extend_from_slice(br#","outputs":["#);
    let mut is_first = true;
    for output in response.outputs {
        let Some((output, is_binary)) = formed(served, form, output)? else {
            continue;
        };
        if !is_first {
            bytes.push(b',');
        }
        is_first = false;
        if let Some(blob) = write_output(&mut bytes, output, is_binary)? {
            blobs.push(blob);
        }
    }
    bytes.extend_from_slice(b"]}");
    let json_length = (!blobs.is_empty()).then_some(bytes.len());
    for blob in blobs {
        bytes.extend_from_slice(&blob);
    }
    Ok(Encoded { bytes, json_length })
}

/// The output as it is wanted and whether it goes out binary; `None` when nobody asked for it.
fn formed(served: &Served, form: &Form, output: Tensor) -> Result<Option<(Tensor, bool)>> {
    let wish = form.wishes.iter().find(|wish| wish.name == output.name);
    let Some(wish) = wish else {
        return Ok(form.wishes.is_empty().then_some((output, form.is_binary)));
    };
    let output = match wish.classes {
        Some(classes) if classes > 0 => classify(served, &output, classes)?,
        _ => output,
    };
    Ok(Some((output, wish.is_binary.unwrap_or(form.is_binary))))
}

/// Writes one output's JSON and gives back what is to follow the JSON.
fn write_output(bytes: &mut Vec<u8>, output: Tensor, is_binary: bool) -> Result<Option<Bytes>> {
    bytes.extend_from_slice(br#"{"name":"#);
    write(bytes, &*output.name);
    append(bytes, format_args!(r#","datatype":"{}","shape":"#, output.datatype));
    write(bytes, &output.shape);
    if is_binary {
        let size = output.data.len();
        append(bytes, format_args!(r#","parameters":{{"binary_data_size":{size}}}}}"#));
        return Ok(Some(output.data));
    }
    bytes.extend_from_slice(br#","data":["#);
    write_elements(bytes, &output)?;
    bytes.extend_from_slice(b"]}");
    Ok(None)
}

fn write_parameters(bytes: &mut Vec<u8>, parameters: &Parameters) {
    if parameters.is_empty() {
        return;
    }
    let values = parameters.iter().map(|(key, value)| (key, parameters::to_json(value)));
    bytes.extend_from_slice(br#","parameters":"#);
    write(bytes, &values.collect::<BTreeMap<_, _>>());
}

fn append(bytes: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    bytes.write_fmt(text).expect("writing to memory does not fail");
}
