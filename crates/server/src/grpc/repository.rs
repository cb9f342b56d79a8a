//! Reads the calls that load and unload models.

use consort_protocol::model_repository_parameter::ParameterChoice;
use consort_protocol::{RepositoryModelLoadRequest, RepositoryModelUnloadRequest};
use consort_repository::Change;
use consort_stage::{Error, Result};

/// The change that a `load` call asks for.
pub(super) fn load(request: RepositoryModelLoadRequest) -> Result<Change> {
    let (mut config, mut files) = (None, Vec::new());
    for (key, parameter) in request.parameters {
        match (key.strip_prefix("file:"), parameter.parameter_choice) {
            (None, Some(ParameterChoice::StringParam(json))) if key == "config" => {
                config = Some(json);
            }
            (None, _) if key == "config" => return Err(mistyped(&key, "string_param")),
            (Some(path), Some(ParameterChoice::BytesParam(content))) => {
                files.push((path.to_owned(), content));
            }
            (Some(_), _) => return Err(mistyped(&key, "bytes_param")),
            (None, _) => {
                return Err(Error::invalid(format!("unrecognized load parameter '{key}'.")));
            }
        }
    }
    // The map has no order of its own, and the same files must be the same change.
    files.sort();
    Change::load(&request.model_name, config, files)
}

/// The change that an `unload` call asks for.
pub(super) fn unload(request: &RepositoryModelUnloadRequest) -> Result<Change> {
    let parameter = request.parameters.get("unload_dependents");
    let with_dependents = match parameter.map(|parameter| &parameter.parameter_choice) {
        None => false,
        Some(Some(ParameterChoice::BoolParam(value))) => *value,
        Some(_) => {
            return Err(Error::invalid(
                "invalid value type for 'unload_dependents' parameter, expected bool_param.",
            ));
        }
    };
    Change::unload(&request.model_name, with_dependents)
}

fn mistyped(key: &str, wanted: &str) -> Error {
    Error::invalid(format!("invalid value type for load parameter '{key}', expected {wanted}."))
}

#[cfg(test)]
mod tests {
    use consort_protocol::ModelRepositoryParameter;
    use consort_repository::{Action, Override};

    use super::*;

    fn asked(parameters: &[(&str, ParameterChoice)]) -> Result<Change> {
        let parameter = |(key, choice): &(&str, ParameterChoice)| {
            let parameter_choice = Some(choice.clone());
            ((*key).to_owned(), ModelRepositoryParameter { parameter_choice })
        };
        load(RepositoryModelLoadRequest {
            model_name: "m".into(),
            parameters: parameters.iter().map(parameter).collect(),
            ..RepositoryModelLoadRequest::default()
        })
    }

    fn text(value: &str) -> ParameterChoice {
        ParameterChoice::StringParam(value.into())
    }

    fn bytes(value: &str) -> ParameterChoice {
        ParameterChoice::BytesParam(value.as_bytes().to_vec().into())
    }

    #[test]
    fn a_load_carries_configuration_and_files() {
        let asked =
            asked(&[("file:1/b", bytes("2")), ("config", text("{}")), ("file:1/a", bytes("1"))]);
        let files = vec![("1/a".to_owned(), "1".into()), ("1/b".to_owned(), "2".into())];
        let given = Override { config: "{}".into(), files };
        assert_eq!(asked.unwrap().action, Action::Load(Some(given)));
    }

    #[test]
    fn parameters_of_the_wrong_name_or_type_are_refused_in_tritons_words() {
        let refused = |parameters: &[(&str, ParameterChoice)]| {
            asked(parameters).unwrap_err().message().to_owned()
        };
        assert_eq!(refused(&[("x", text(""))]), "unrecognized load parameter 'x'.");
        assert_eq!(
            refused(&[("config", bytes("{}"))]),
            "invalid value type for load parameter 'config', expected string_param."
        );
        assert_eq!(
            refused(&[("file:1/a", text("1"))]),
            "invalid value type for load parameter 'file:1/a', expected bytes_param."
        );
    }
}
