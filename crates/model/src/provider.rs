//! Chooses what executes a model: the processor, or an NVIDIA card through the CUDA provider.

use std::fs;

use consort_config::{Device, Model};
use consort_stage::{Error, Result};
use ort::ep::{self, ArbitrarilyConfigurableExecutionProvider, ExecutionProvider};
use ort::memory::{AllocationDevice, Allocator, AllocatorType, MemoryInfo, MemoryType};
use ort::session::Session;

use crate::runtime::{CUDA_FILE, Runtime};

/// The accelerators of `optimization.execution_accelerators` that Consort knows.
const CUDA: &str = "cuda";
/// Options of the CUDA provider that Triton still takes from `parameters`.
const OLDER_CUDA_PARAMETERS: [&str; 3] =
    ["cudnn_conv_algo_search", "gpu_mem_limit", "arena_extend_strategy"];

/// What executes a model's operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Provider {
    /// The processor.
    Cpu,
    /// The NVIDIA card with this index.
    Cuda(u32),
}

impl Provider {
    /// The provider for `device`; a card that is asked for and missing is an error, never the
    /// processor instead.
    pub(crate) fn choose(device: Device, runtime: &Runtime) -> Result<Self> {
        let obstacle = cuda_obstacle(runtime);
        match (device, obstacle) {
            (Device::Cpu, _) | (Device::Auto, Some(_)) => Ok(Self::Cpu),
            (Device::Auto, None) => Ok(Self::Cuda(0)),
            (Device::Gpu(index), None) => Ok(Self::Cuda(index)),
            (Device::Gpu(index), Some(obstacle)) => Err(Error::unavailable(format!(
                "`instance_group` asks for GPU {index}, but {obstacle}; \
                 use `kind: KIND_CPU`, or run it where there is one"
            ))),
        }
    }

    /// The memory that its runs read and write.
    pub(crate) fn memory(self) -> ort::Result<MemoryInfo<'static>> {
        let (device, index) = match self {
            Self::Cpu => (AllocationDevice::CPU, 0),
            Self::Cuda(index) => (AllocationDevice::CUDA, index as i32),
        };
        MemoryInfo::new(device, index, AllocatorType::Device, MemoryType::Default)
    }

    /// What allocates such memory for a session.
    pub(crate) fn allocator(self, session: &Session) -> ort::Result<Allocator> {
        Allocator::new(session, self.memory()?)
    }

    /// The same as `ort` registers it, with these options, and over them the model's.
    pub(crate) fn dispatch(
        self,
        model: &Model,
        defaults: &[(&str, &str)],
    ) -> Result<Option<ep::ExecutionProviderDispatch>> {
        check_accelerators(model)?;
        let Self::Cuda(index) = self else {
            return Ok(None);
        };
        let mut cuda = ep::CUDA::default().with_device_id(index as i32);
        for (key, value) in defaults {
            cuda = cuda.with_arbitrary_config(*key, *value);
        }
        for (key, value) in cuda_options(model) {
            if key.contains('\0') || value.contains('\0') {
                return Err(Error::invalid(format!(
                    "option `{key}` of the `cuda` accelerator has a NUL character"
                )));
            }
            cuda = cuda.with_arbitrary_config(key, value);
        }
        Ok(Some(cuda.build().error_on_failure()))
    }
}

/// Why the CUDA provider cannot be used here; `None` when it can be tried.
fn cuda_obstacle(runtime: &Runtime) -> Option<&'static str> {
    if !has_card() {
        Some("this machine has no NVIDIA card")
    } else if !ep::CUDA::is_available().unwrap_or(false) || !runtime.has_beside(CUDA_FILE) {
        Some(
            "the ONNX Runtime that was loaded has no CUDA provider \
             (`libonnxruntime_providers_cuda.so` of `onnxruntime-gpu` lies beside one that has)",
        )
    } else {
        None
    }
}

/// Whether a driver offers a card: `/dev/nvidia0` and so on, or `/dev/dxg` under WSL.
fn has_card() -> bool {
    let Ok(devices) = fs::read_dir("/dev") else {
        return false;
    };
    devices.flatten().any(|device| {
        let name = device.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("nvidia"));
        name == "dxg" || number.is_some_and(|number| number.parse::<u32>().is_ok())
    })
}

/// Refuses accelerators that Consort does not have, whatever the device.
pub(crate) fn check_accelerators(model: &Model) -> Result<()> {
    let optimization = model.wire.optimization.as_ref();
    let Some(lists) = optimization.and_then(|section| section.execution_accelerators.as_ref())
    else {
        return Ok(());
    };
    let cpu = ("cpu_execution_accelerator", &lists.cpu_execution_accelerator, None);
    let gpu = ("gpu_execution_accelerator", &lists.gpu_execution_accelerator, Some(CUDA));
    let problems = [cpu, gpu].into_iter().flat_map(|(field, entries, known)| {
        let unknown = entries.iter().filter(move |entry| Some(&*entry.name) != known);
        let known = known.map_or("none, the CPU does without".into(), |name| format!("`{name}`"));
        unknown.map(move |entry| {
            let name = &entry.name;
            format!("unknown execution provider `{name}` in `{field}`; known here: {known}")
        })
    });
    let problems: Vec<String> = problems.collect();
    if problems.is_empty() { Ok(()) } else { Err(Error::unsupported(problems.join("\n"))) }
}

/// The options for the CUDA provider, those of its accelerator last so that they win.
fn cuda_options(model: &Model) -> Vec<(String, String)> {
    let older = OLDER_CUDA_PARAMETERS
        .iter()
        .filter_map(|key| Some(((*key).to_owned(), model.settings.get(key)?.to_owned())));
    let optimization = model.wire.optimization.as_ref();
    let lists = optimization.and_then(|section| section.execution_accelerators.as_ref());
    let accelerator = lists
        .into_iter()
        .flat_map(|lists| &lists.gpu_execution_accelerator)
        .flat_map(|entry| entry.parameters.clone());
    older
        .chain(accelerator)
        .map(|(key, value)| (key.clone(), provider_value(&key, value)))
        .collect()
}

/// The value as the provider spells it, where Triton's configurations have a number.
fn provider_value(key: &str, value: String) -> String {
    let name = match (key, value.as_str()) {
        ("cudnn_conv_algo_search", "0") => "EXHAUSTIVE",
        ("cudnn_conv_algo_search", "1") => "HEURISTIC",
        ("cudnn_conv_algo_search", "2") => "DEFAULT",
        ("arena_extend_strategy", "0") => "kNextPowerOfTwo",
        ("arena_extend_strategy", "1") => "kSameAsRequested",
        _ => return value,
    };
    name.to_owned()
}
