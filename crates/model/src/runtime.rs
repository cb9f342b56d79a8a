//! Finds the ONNX Runtime library and loads it, once for the whole process.

use std::env;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use consort_stage::{Error, Result};
use ort::environment::Environment;
use ort::logging::LogLevel;

/// Names the library itself, or the folder it lies in; nothing else is looked at when it is set.
const VARIABLE: &str = "ORT_DYLIB_PATH";
/// The release whose interface this program is built for.
const FILE: &str = "libonnxruntime.so.1.31.1";
/// The folder that set-up fills, in some folder above the program.
const FOLDER: &str = "onnxruntime";
/// Where an image keeps it.
const INSTALLED: &str = "/usr/lib/consort/onnxruntime";
/// What the system's loader looks for when no file was found.
const SYSTEM: &str = "libonnxruntime.so.1";
/// The CUDA provider, beside the library.
pub(crate) const CUDA_FILE: &str = "libonnxruntime_providers_cuda.so";
/// What its copier is registered as.
const COPIER_NAME: &str = "consort.cuda";
const REMEDY: &str = "run `cargo xtask setup`, or set `ORT_DYLIB_PATH` to the file";

/// The loaded library.
#[derive(Debug)]
pub(crate) struct Runtime {
    /// The process's one environment, which sessions are opened in.
    pub(crate) environment: Environment,
    library: PathBuf,
}

impl Runtime {
    /// The library, loaded by the first call that finds it.
    pub(crate) fn get() -> Result<&'static Self> {
        static LOADED: OnceLock<Runtime> = OnceLock::new();
        // Only one thread may make the environment: ONNX Runtime allows one in a process.
        static LOADING: Mutex<()> = Mutex::new(());
        let _loading = LOADING.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(runtime) = LOADED.get() {
            return Ok(runtime);
        }
        let runtime = Self::load(&find(&Places::of_this_process())?)?;
        Ok(LOADED.get_or_init(|| runtime))
    }

    /// Whether the file of an execution provider lies beside the library.
    pub(crate) fn has_beside(&self, file: &str) -> bool {
        self.library.with_file_name(file).exists()
    }

    /// Makes this process able to copy to and from cards outside of a run.
    ///
    /// A session brings its own copier; what copies for everyone comes with the provider's library,
    /// once that is registered with the environment.
    pub(crate) fn copy_to_cards(&self) -> Result<()> {
        static COPIER: OnceLock<Result<()>> = OnceLock::new();
        let register = || {
            let library = self.library.with_file_name(CUDA_FILE);
            let library = library.canonicalize().unwrap_or(library);
            self.environment.register_ep_library(COPIER_NAME, library).map_err(|error| {
                Error::unavailable(format!("`{CUDA_FILE}` does not copy to the card: {error}"))
            })
        };
        COPIER.get_or_init(register).clone()
    }

    fn load(library: &Path) -> Result<Self> {
        let builder = ort::init_from(library).map_err(|error| {
            Error::unavailable(format!(
                "ONNX Runtime cannot be used: {error}; {REMEDY} of ONNX Runtime 1.31"
            ))
        })?;
        let environment = builder
            .with_name("consort")
            .with_telemetry(false)
            .with_logger(Arc::new(log))
            .build()
            .map_err(|error| Error::internal(format!("ONNX Runtime does not start: {error}")))?;
        environment.set_log_level(LogLevel::Warning);
        Ok(Self { environment, library: library.to_owned() })
    }
}

/// The places a library may lie in.
struct Places {
    named: Option<PathBuf>,
    program: PathBuf,
    installed: PathBuf,
    /// Whether the system's loader finds a library of this name. One that is loaded already is found
    /// by its own, wherever it came from.
    system_has: fn(&str) -> bool,
}

impl Places {
    fn of_this_process() -> Self {
        Self {
            named: env::var_os(VARIABLE).filter(|path| !path.is_empty()).map(Into::into),
            program: env::current_exe().unwrap_or_default(),
            installed: INSTALLED.into(),
            system_has: |name| ort::util::probe(name).is_some(),
        }
    }
}

/// The library's file, or the bare name that the system's loader knows it by.
fn find(places: &Places) -> Result<PathBuf> {
    if let Some(named) = &places.named {
        return found_under(VARIABLE, named);
    }
    let above = places.program.ancestors().skip(1);
    let files = above
        .map(|folder| folder.join(FOLDER))
        .chain([places.installed.clone()])
        .map(|folder| folder.join(FILE));
    if let Some(file) = files.into_iter().find(|file| file.exists()) {
        return Ok(file);
    }
    if (places.system_has)(SYSTEM) {
        return Ok(SYSTEM.into());
    }
    Err(Error::unavailable(format!(
        "ONNX Runtime is not installed: no `{FOLDER}/{FILE}` in a folder above `{}`, none in `{}`, \
         and the system has no `{SYSTEM}`; {REMEDY}",
        places.program.display(),
        places.installed.display()
    )))
}

/// The library that a person named, which is a file or the folder of the release's file.
fn found_under(variable: &str, named: &Path) -> Result<PathBuf> {
    let file = if named.is_dir() { named.join(FILE) } else { named.to_owned() };
    // A bare name is for the system's loader to find.
    if file.exists() || file.components().count() == 1 {
        return Ok(file);
    }
    Err(Error::unavailable(format!(
        "`{variable}` names `{}`, which does not exist; {REMEDY}, or unset it",
        file.display()
    )))
}

/// Passes ONNX Runtime's own log on.
///
/// What fails comes back as an error too and is reported once, by whoever asked; so nothing here
/// is louder than `debug` but what ends the process.
fn log(level: LogLevel, category: &str, _id: &str, place: &str, message: &str) {
    match level {
        LogLevel::Fatal => tracing::error!(target: "onnxruntime", category, place, "{message}"),
        LogLevel::Error | LogLevel::Warning => {
            tracing::debug!(target: "onnxruntime", category, place, "{message}");
        }
        LogLevel::Info | LogLevel::Verbose => {
            tracing::trace!(target: "onnxruntime", category, place, "{message}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn places(program: &Path) -> Places {
        Places {
            named: None,
            program: program.join("release/consort-model"),
            installed: program.join("nowhere"),
            system_has: |_| false,
        }
    }

    #[test]
    fn the_library_is_found_in_a_folder_above_the_program() {
        let target = tempfile::tempdir().unwrap();
        let folder = target.path().join(FOLDER);
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join(FILE), "").unwrap();
        assert_eq!(find(&places(target.path())).unwrap(), folder.join(FILE));
    }

    #[test]
    fn a_library_that_only_the_systems_loader_finds_has_a_bare_name() {
        let target = tempfile::tempdir().unwrap();
        let places = Places { system_has: |name| name == SYSTEM, ..places(target.path()) };
        assert_eq!(find(&places).unwrap(), Path::new(SYSTEM));
    }

    #[test]
    fn a_missing_library_is_an_error_with_the_places_and_the_remedy() {
        let target = tempfile::tempdir().unwrap();
        let missing = find(&places(target.path())).unwrap_err();
        for part in [FILE, "nowhere", "consort-model", "cargo xtask setup"] {
            assert!(missing.message().contains(part), "{missing}");
        }
        let named = Places { named: Some("/no/such/library.so".into()), ..places(target.path()) };
        let missing = find(&named).unwrap_err();
        assert!(missing.message().contains("/no/such/library.so"));
    }

    #[test]
    fn the_library_loads_once() {
        let first: *const Runtime = Runtime::get().expect("run `cargo xtask setup`");
        assert!(std::ptr::eq(first, Runtime::get().unwrap()));
    }
}
