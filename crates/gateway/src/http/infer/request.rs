//! Reads an inference request: its JSON, and the binary tensors behind it.

use std::sync::Arc;

use bytes::Bytes;
use consort_repository::Served;
use consort_stage::{DataType, Error, Request, Result, Tensor};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::response::{Form, Wish};
use crate::http::body::too_large;
use crate::http::error::Failure;
use crate::http::json_tensor::{Layout, read_elements};
use crate::http::{json, parameters, refused};

/// What to ask the model, and the form its answer shall have.
#[derive(Debug)]
pub(super) struct Call {
    /// What to ask the model.
    pub(super) request: Request,
    /// The form of the answer.
    pub(super) form: Form,
}

#[derive(Deserialize)]
struct Document<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    parameters: Option<&'a RawValue>,
    #[serde(borrow)]
    inputs: Option<Vec<Input<'a>>>,
    #[serde(borrow)]
    outputs: Option<Vec<Output<'a>>>,
}

#[derive(Deserialize)]
struct Input<'a> {
    #[serde(borrow)]
    name: Option<&'a RawValue>,
    shape: Option<&'a RawValue>,
    datatype: Option<&'a RawValue>,
    parameters: Option<&'a RawValue>,
    data: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Output<'a> {
    #[serde(borrow)]
    name: Option<&'a RawValue>,
    parameters: Option<&'a RawValue>,
}

/// Reads a body whose first `json_length` bytes are JSON; all of it when the header was not sent.
///
/// `limit` holds for the tensors too: few characters of JSON may stand for many bytes.
pub(super) fn parse(
    served: &Served,
    mut body: Bytes,
    json_length: Option<usize>,
    limit: usize,
) -> Result<Call, Failure> {
    let text = body.split_to(json_length.unwrap_or(body.len()));
    let document: Document<'_> = json::document(&text).map_err(Failure::of_the_caller)?;
    let id = document.id.map_or(Ok("".into()), |id| json::text("id", id));
    let id = id.map_err(Failure::of_the_caller)?;
    let call = call(&InputReader { served, limit }, document, json_length.map(|_| body), &id);
    call.map_err(|error| Failure::of_the_caller(error).of_request(&id))
}

/// Reads what follows a request's id.
fn call(
    reader: &InputReader<'_>,
    document: Document<'_>,
    mut blobs: Option<Bytes>,
    id: &str,
) -> Result<Call> {
    let served = reader.served;
    let (parameters, is_binary) = parameters::read(document.parameters)?;
    let documents = json::required("inputs", document.inputs)?;
    let mut inputs: Vec<Tensor> = Vec::with_capacity(documents.len());
    for document in documents {
        let input = reader.read(&document, &mut blobs)?;
        if inputs.iter().any(|other| other.name == input.name) {
            return Err(already_there("input", &input.name));
        }
        inputs.push(input);
    }
    if blobs.is_some_and(|rest| !rest.is_empty()) {
        return Err(Error::invalid(format!(
            "unexpected additional input data for model '{}'",
            served.name
        )));
    }
    let wishes = wishes(served, document.outputs.unwrap_or_default())?;
    let request = Request {
        id: id.to_owned(),
        inputs,
        outputs: wishes.iter().map(|wish| wish.name.clone()).collect(),
        parameters,
        ..Request::default()
    };
    let form = Form { id: request.id.clone(), is_binary, wishes };
    Ok(Call { request, form })
}

fn already_there(kind: &str, name: &str) -> Error {
    Error::invalid(format!("{kind} '{name}' already exists in request"))
}

struct InputReader<'a> {
    served: &'a Served,
    limit: usize,
}

impl InputReader<'_> {
    fn read(&self, document: &Input<'_>, blobs: &mut Option<Bytes>) -> Result<Tensor> {
        let name = json::text("name", json::required("name", document.name)?)?;
        let signature = &self.served.signature;
        let name = match signature.input(&name) {
            Some(spec) => Arc::clone(&spec.name),
            None => Arc::from(&*name),
        };
        let shape = json::shape("shape", json::required("shape", document.shape)?)?;
        let datatype = self.datatype(&name, document)?;
        let binary_size = binary_size(document.parameters)?;
        let mut tensor = Tensor { name, datatype, shape, data: Bytes::new() };
        tensor.data = match (document.data, binary_size) {
            (Some(data), None) => self.elements(&tensor, data)?,
            (None, Some(size)) => self.blob(&tensor.name, size, blobs)?,
            (data, _) => return Err(wrong_sources(&tensor.name, data.is_some())),
        };
        Ok(tensor)
    }

    fn datatype(&self, name: &str, document: &Input<'_>) -> Result<DataType> {
        let given = json::text("datatype", json::required("datatype", document.datatype)?)?;
        DataType::from_name(&given).ok_or_else(|| {
            let model = &self.served.name;
            let expected = self.served.signature.input(name);
            let expected = expected.map_or("one of the protocol's", |spec| spec.datatype.name());
            Error::invalid(format!(
                "inference input '{name}' data-type is '{given}', but model '{model}' expects \
                 '{expected}'"
            ))
        })
    }

    fn elements(&self, tensor: &Tensor, data: &RawValue) -> Result<Bytes> {
        let expected = element_count(tensor)?;
        let least = tensor.datatype.size().unwrap_or(size_of::<u32>());
        let size = expected.saturating_mul(least);
        if size > self.limit {
            return Err(too_large(size, self.limit));
        }
        let kind = (tensor.datatype, Layout::Nested);
        let elements = read_elements(data, ("data", &tensor.name), kind, self.limit)?;
        if elements.count != expected {
            return Err(Error::internal(
                "Unable to parse 'data': Shape does not match true shape of 'data' field",
            ));
        }
        if elements.size > self.limit {
            return Err(too_large(elements.size, self.limit));
        }
        Ok(elements.data.into())
    }

    fn blob(&self, name: &str, size: usize, blobs: &mut Option<Bytes>) -> Result<Bytes> {
        let Some(rest) = blobs else {
            return Err(Error::invalid(
                "must specify valid 'Infer-Header-Content-Length' in request header and \
                 'binary_data_size' when passing inputs in binary data format",
            ));
        };
        if size > rest.len() {
            return Err(Error::invalid(format!(
                "unexpected size for input '{name}', expecting {} additional bytes for model '{}'",
                size - rest.len(),
                self.served.name
            )));
        }
        Ok(rest.split_to(size))
    }
}

/// How many elements the shape asks for.
fn element_count(tensor: &Tensor) -> Result<usize> {
    let mut dims = tensor.shape.iter().map(|dim| usize::try_from(*dim).ok());
    let count = dims.try_fold(1_usize, |count, dim| count.checked_mul(dim?));
    match count.filter(|count| i64::try_from(*count).is_ok()) {
        Some(count) => Ok(count),
        // The tensor's own check knows the words for a shape that no memory can hold.
        None => tensor.check().map(|()| 0),
    }
}

fn binary_size(member: Option<&RawValue>) -> Result<Option<usize>> {
    let mut size = None;
    for (key, value) in json::members("parameters", member)? {
        match &*key {
            "binary_data_size" => {
                let given = json::unsigned(&key, value)?;
                size = Some(usize::try_from(given).unwrap_or(usize::MAX));
            }
            key if key.starts_with(SHARED_MEMORY) => return Err(refused::shared_memory()),
            _ => {}
        }
    }
    Ok(size)
}

/// How the parameters begin that place a tensor in memory shared with the client.
const SHARED_MEMORY: &str = "shared_memory_";

fn wrong_sources(name: &str, has_data: bool) -> Error {
    let found = if has_data { "'data' and 'binary_data_size'" } else { "none of them" };
    Error::invalid(format!(
        "Input must set only one of the following fields: 'data', 'binary_data_size' in \
         'parameters', 'shared_memory_region' in 'parameters'; input '{name}' sets {found}"
    ))
}

fn wishes(served: &Served, documents: Vec<Output<'_>>) -> Result<Vec<Wish>> {
    let mut wishes: Vec<Wish> = Vec::with_capacity(documents.len());
    for document in documents {
        let name = json::text("name", json::required("name", document.name)?)?;
        if wishes.iter().any(|other| *other.name == *name) {
            return Err(already_there("output", &name));
        }
        let name = match served.signature.output(&name) {
            Some(spec) => Arc::clone(&spec.name),
            None => Arc::from(&*name),
        };
        wishes.push(wish(name, document.parameters)?);
    }
    Ok(wishes)
}

fn wish(name: Arc<str>, member: Option<&RawValue>) -> Result<Wish> {
    let mut wish = Wish { name, is_binary: None, classes: None };
    for (key, value) in json::members("parameters", member)? {
        match &*key {
            "binary_data" => wish.is_binary = Some(json::boolean(&key, value)?),
            "classification" => {
                let classes = json::unsigned(&key, value)?;
                wish.classes = Some(usize::try_from(classes).unwrap_or(usize::MAX));
            }
            key if key.starts_with(SHARED_MEMORY) => return Err(refused::shared_memory()),
            _ => {}
        }
    }
    Ok(wish)
}
