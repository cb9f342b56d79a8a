//! Finds the configuration in a model's folder.

use std::fs;
use std::path::Path;

use consort_protocol::ModelConfig;

use crate::backend;
use crate::draft::Draft;
use crate::problem::{Problem, Problems};
use crate::report::Report;
use crate::source::Source;

/// The names a configuration may have.
const FILES: [&str; 3] = ["config.pbtxt", "config.yaml", "config.yml"];

/// No configuration is near this size; a larger file is something else by mistake.
const MAX_SIZE: u64 = 4 << 20;

/// Reads the configuration in a model's folder: `config.pbtxt`, `config.yaml` or `config.yml`.
///
/// Without any of them a model file whose backend is plain from its name is enough. Every mistake
/// in the file is reported, those included that [`Draft::check`] would find.
pub fn read(model_folder: &Path) -> Result<Draft, Problems> {
    let name = model_folder.file_name().map(|name| name.to_string_lossy().into_owned());
    let name = name.unwrap_or_default();
    let present: Vec<&str> =
        FILES.into_iter().filter(|file| model_folder.join(file).exists()).collect();
    match present.as_slice() {
        [] => without_file(&name, model_folder),
        [file] => {
            let text = read_text(&model_folder.join(file))
                .map_err(|message| about(format!("{name}/{file}"), message, None))?;
            Draft::read(&name, file, &text, Some(model_folder))
        }
        [first, second, ..] => {
            let message = format!("`{first}` and `{second}` both configure model `{name}`");
            Err(about(name, message, Some("keep one of them".into())))
        }
    }
}

fn read_text(path: &Path) -> Result<String, String> {
    let size = fs::metadata(path).map_err(|error| format!("cannot be read: {error}"))?.len();
    if size > MAX_SIZE {
        return Err(format!("is {size} bytes long, which no configuration is"));
    }
    let bytes = fs::read(path).map_err(|error| format!("cannot be read: {error}"))?;
    String::from_utf8(bytes).map_err(|_| "is not UTF-8 text".into())
}

fn without_file(name: &str, model_folder: &Path) -> Result<Draft, Problems> {
    let mut config = ModelConfig { name: name.into(), ..ModelConfig::default() };
    let mut report = Report::new(Source::nowhere(name));
    backend::complete(&mut config, Some(model_folder), &mut report);
    if !config.backend.is_empty() {
        return Ok(Draft { config, report });
    }
    let help = format!(
        "write `{name}/config.pbtxt` with at least `backend: \"…\"`, `input [ … ]` and \
         `output [ … ]`, or put a `model.onnx` into `{name}/1/`"
    );
    Err(about(name.into(), format!("model `{name}` has no `config.pbtxt`"), Some(help)))
}

fn about(file: String, message: String, help: Option<String>) -> Problems {
    Problem { file, place: None, message, help }.into()
}
