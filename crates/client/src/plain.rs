//! Reads what a server serves that speaks the open inference protocol and none of Triton's
//! extensions: it lists no models, so it is asked for those that are called, and it shows no
//! configuration, so what they take and give comes from their metadata.

use std::collections::BTreeSet;
use std::sync::Arc;

use consort_protocol::model_metadata_response::TensorMetadata;
use consort_protocol::{
    DataType as WireType, ModelConfig, ModelInput, ModelMetadataRequest, ModelMetadataResponse,
    ModelOutput, ModelReadyRequest,
};
use consort_repository::State;
use consort_stage::DataType;
use tonic::{Code, Status};

use crate::failure::{is_local, reason};
use crate::replica::Client;
use crate::report::{Description, Reported};
use crate::signature;

/// The version under which a model is known whose server numbers none.
pub(crate) const ONLY_VERSION: u64 = 1;

/// Whether a server does not know a call of Triton's extensions.
pub(crate) fn is_unknown_call(status: &Status) -> bool {
    status.code() == Code::Unimplemented && !is_local(status)
}

/// Those of `names` that a server has, each version a row. Errors when it cannot be reached.
pub(crate) async fn list(
    client: &mut Client,
    names: &BTreeSet<Arc<str>>,
) -> Result<Vec<Reported>, Status> {
    let mut models = Vec::new();
    for name in names {
        match metadata(client, name, "").await {
            Ok(newest) => rows(client, name, newest, &mut models).await?,
            Err(status) if is_local(&status) => return Err(status),
            Err(status) if status.code() == Code::NotFound => {}
            Err(status) => {
                let mut row = Reported::of(name.clone(), Some(ONLY_VERSION));
                row.reason = unreadable(&status);
                models.push(row);
            }
        }
    }
    Ok(models)
}

/// Adds a row for each version of a model, or for the only one.
async fn rows(
    client: &mut Client,
    name: &Arc<str>,
    newest: ModelMetadataResponse,
    models: &mut Vec<Reported>,
) -> Result<(), Status> {
    let numbers: BTreeSet<u64> =
        newest.versions.iter().filter_map(|version| version.parse().ok()).collect();
    if numbers.is_empty() {
        models.push(row(client, name, None, Ok(newest)).await?);
        return Ok(());
    }
    for number in numbers {
        // Versions may take and give different tensors.
        let told = if newest.versions.len() == 1 {
            Ok(newest.clone())
        } else {
            metadata(client, name, &number.to_string()).await
        };
        models.push(row(client, name, Some(number), told).await?);
    }
    Ok(())
}

async fn row(
    client: &mut Client,
    name: &Arc<str>,
    number: Option<u64>,
    told: Result<ModelMetadataResponse, Status>,
) -> Result<Reported, Status> {
    let version = number.map(|number| number.to_string()).unwrap_or_default();
    let request = ModelReadyRequest { name: name.as_ref().into(), version };
    let is_ready = match client.model_ready(request).await {
        Ok(answer) => answer.into_inner().ready,
        Err(status) if is_local(&status) => return Err(status),
        Err(_) => false,
    };
    let mut row = Reported::of(name.clone(), number.or(Some(ONLY_VERSION)));
    let described = told.map_err(|status| unreadable(&status));
    match described.and_then(|metadata| describe(&metadata, number.is_some())) {
        Ok(description) if is_ready => {
            row.state = State::Ready;
            row.description = Some(description.into());
        }
        Ok(_) => row.reason = "its server says that it is not ready".into(),
        Err(reason) => row.reason = reason,
    }
    Ok(row)
}

/// What a model takes and gives, from the metadata of the version with this name.
pub(crate) async fn read_description(
    client: &mut Client,
    model: &str,
    version: &str,
) -> Result<Description, String> {
    let metadata = metadata(client, model, version).await.map_err(|status| unreadable(&status))?;
    describe(&metadata, version.parse::<u64>().is_ok())
}

async fn metadata(
    client: &mut Client,
    model: &str,
    version: &str,
) -> Result<ModelMetadataResponse, Status> {
    let request = ModelMetadataRequest { name: model.into(), version: version.into() };
    client.model_metadata(request).await.map(tonic::Response::into_inner)
}

fn unreadable(status: &Status) -> String {
    format!("its metadata cannot be read: {}", reason(status))
}

/// The configuration that a model would have. Metadata does not tell whether the first dimension
/// is a batch, so there is none: tensors have the shapes that the metadata shows.
fn describe(metadata: &ModelMetadataResponse, is_versioned: bool) -> Result<Description, String> {
    let inputs = metadata.inputs.iter().map(|tensor| {
        let data_type = wire_type(tensor)?;
        let (name, dims) = (tensor.name.clone(), tensor.shape.clone());
        Ok(ModelInput { name, data_type, dims, ..ModelInput::default() })
    });
    let outputs = metadata.outputs.iter().map(|tensor| {
        let data_type = wire_type(tensor)?;
        let (name, dims) = (tensor.name.clone(), tensor.shape.clone());
        Ok(ModelOutput { name, data_type, dims, ..ModelOutput::default() })
    });
    let config = ModelConfig {
        name: metadata.name.clone(),
        platform: metadata.platform.clone(),
        input: inputs.collect::<Result<_, String>>()?,
        output: outputs.collect::<Result<_, String>>()?,
        ..ModelConfig::default()
    };
    let signature = signature::read(&config).map_err(|error| error.message().to_owned())?;
    let (config, signature) = (Arc::new(config), Arc::new(signature));
    Ok(Description { config, signature, labels: Arc::default(), is_versioned })
}

fn wire_type(tensor: &TensorMetadata) -> Result<i32, String> {
    let TensorMetadata { name, datatype, .. } = tensor;
    DataType::from_name(datatype)
        .and_then(|datatype| WireType::from_str_name(datatype.config_name()))
        .map(i32::from)
        .ok_or_else(|| format!("tensor `{name}` has unknown datatype `{datatype}`"))
}
