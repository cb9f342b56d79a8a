//! The backends with names of their own in `platform`, and the files their models lie in.

use std::path::Path;

use consort_protocol::ModelConfig;

use crate::nearest::did_you_mean;
use crate::report::Report;

/// What a configuration calls an ensemble.
pub(crate) const ENSEMBLE: &str = "ensemble";

/// What is known of a backend.
struct Known {
    backend: &'static str,
    /// Its older name; empty when it never had one.
    platform: &'static str,
    /// The model file, when the configuration does not name another.
    file_name: &'static str,
    /// Whether a model file of that name alone tells the backend.
    is_told_by_file: bool,
}

const fn known(
    backend: &'static str,
    platform: &'static str,
    file_name: &'static str,
    is_told_by_file: bool,
) -> Known {
    Known { backend, platform, file_name, is_told_by_file }
}

/// Where a backend has several platforms, the first is the one filled in.
const KNOWN: [Known; 11] = [
    known("onnxruntime", "onnxruntime_onnx", "model.onnx", true),
    known("onnxruntime_llm", "", "model.onnx", false),
    known("tokenizer", "", "tokenizer.json", false),
    known("detokenizer", "", "tokenizer.json", false),
    known("tensorrt", "tensorrt_plan", "model.plan", true),
    known("pytorch", "pytorch_libtorch", "model.pt", true),
    known("tensorflow", "tensorflow_savedmodel", "model.savedmodel", true),
    known("tensorflow", "tensorflow_graphdef", "model.graphdef", true),
    known("openvino", "", "model.xml", true),
    known("python", "", "model.py", true),
    known("vllm", "", "model.json", false),
];

/// Fills in `platform`, `backend` and `default_model_filename` from one another and, where none
/// tells, from the files in the version folders.
pub(crate) fn complete(config: &mut ModelConfig, folder: Option<&Path>, report: &mut Report) {
    if config.platform.is_empty() && config.backend.is_empty() {
        guess(config, folder);
    }
    if config.platform == ENSEMBLE {
        return;
    }
    if config.backend.is_empty() && !config.platform.is_empty() {
        match KNOWN.iter().find(|known| known.platform == config.platform) {
            Some(known) => config.backend = known.backend.into(),
            None => unexpected_platform(config, report),
        }
    }
    let is_own = |known: &&Known| {
        known.backend == config.backend
            && (config.platform.is_empty() || known.platform == config.platform)
    };
    if let Some(known) = KNOWN.iter().find(is_own) {
        config.platform = known.platform.into();
        if config.default_model_filename.is_empty() {
            config.default_model_filename = known.file_name.into();
        }
    }
}

/// Whether what a configuration leaves out may stand in the model file; also when the backend is
/// not known.
pub(crate) fn may_complete(backend: &str) -> bool {
    ["", "onnxruntime"].contains(&backend)
}

/// Checks that platform and backend, each complete, speak of the same.
pub(crate) fn check(config: &ModelConfig, report: &mut Report) {
    let (name, platform, backend) = (&config.name, &config.platform, &config.backend);
    if platform.is_empty() && backend.is_empty() {
        let help = "write `backend: \"…\"`, or `platform: \"ensemble\"` for an ensemble";
        let message = format!("must specify 'platform' or 'backend' for '{name}'");
        report.missing("", message, Some(help.into()));
        return;
    }
    let named_after_platform = KNOWN.iter().find(|known| known.platform == platform.as_str());
    let is_pair = match named_after_platform {
        _ if platform.is_empty() => backend != ENSEMBLE,
        None if platform == ENSEMBLE => backend.is_empty(),
        None => KNOWN.iter().all(|known| known.backend != backend),
        Some(known) => known.backend == backend,
    };
    if is_pair || backend.is_empty() {
        return;
    }
    let message = if platform == ENSEMBLE {
        format!("Ensemble model '{name}' must have platform type 'ensemble' and empty backend type")
    } else {
        format!("unexpected 'platform' and 'backend' pair, got:{platform}, {backend}")
    };
    let help = (backend == ENSEMBLE).then(|| "write `platform: \"ensemble\"`".to_owned());
    report.wrong_but("backend", message, help);
}

fn unexpected_platform(config: &ModelConfig, report: &mut Report) {
    let platforms = KNOWN.iter().map(|known| known.platform).chain([ENSEMBLE]);
    let platforms = platforms.filter(|platform| !platform.is_empty());
    let help = did_you_mean(&config.platform, platforms)
        .or_else(|| Some("a backend of your own is named with `backend`".into()));
    let message = format!("unexpected platform type '{}' for {}", config.platform, config.name);
    report.wrong_but("platform", message, help);
    report.taint("");
}

fn guess(config: &mut ModelConfig, folder: Option<&Path>) {
    use consort_protocol::model_config::SchedulingChoice;
    if matches!(config.scheduling_choice, Some(SchedulingChoice::EnsembleScheduling(_))) {
        config.platform = ENSEMBLE.into();
        return;
    }
    let stated = config.default_model_filename.as_str();
    let is_like = |known: &&Known| {
        let ending = Path::new(known.file_name).extension();
        known.is_told_by_file && !stated.is_empty() && Path::new(stated).extension() == ending
    };
    let found = KNOWN.iter().find(is_like).or_else(|| told_by_file(folder?));
    if let Some(known) = found {
        config.backend = known.backend.into();
        config.platform = known.platform.into();
    } else if let Some((_, ending)) = config.name.rsplit_once('.') {
        // The last resort of Triton's own completion: `<model>.<backend>`.
        config.backend = ending.into();
    }
}

/// The backend whose model file lies in a version folder.
fn told_by_file(folder: &Path) -> Option<&'static Known> {
    let versions = folder.read_dir().ok()?.flatten().map(|entry| entry.path());
    let versions: Vec<_> = versions.filter(|path| is_version(path)).collect();
    let is_there = |known: &&Known| {
        known.is_told_by_file && versions.iter().any(|path| path.join(known.file_name).exists())
    };
    KNOWN.iter().find(is_there)
}

fn is_version(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit()) && path.is_dir()
}
