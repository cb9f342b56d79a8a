//! The GPUs of the machine as Triton's metrics show them, through NVML where the driver has it.

use std::env;

use consort_telemetry::semconv::{Family, label, triton};
use consort_telemetry::{Reading, Sampler};
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, Nvml};

/// What a device says, in the metric's unit; an error where this device does not tell.
type Read = fn(&Device<'_>) -> Result<f64, NvmlError>;

/// Used memory stands before the total, as `model_analyzer` reads them in this order.
const READINGS: [(Family, Read); 6] = [
    (triton::GPU_UTILIZATION, |gpu| Ok(f64::from(gpu.utilization_rates()?.gpu) / 100.0)),
    (triton::GPU_MEMORY_USED, |gpu| Ok(gpu.memory_info()?.used as f64)),
    (triton::GPU_MEMORY_TOTAL, |gpu| Ok(gpu.memory_info()?.total as f64)),
    (triton::GPU_POWER_USAGE, |gpu| Ok(f64::from(gpu.power_usage()?) / 1000.0)),
    (triton::GPU_POWER_LIMIT, |gpu| Ok(f64::from(gpu.enforced_power_limit()?) / 1000.0)),
    (triton::ENERGY_CONSUMPTION, joules),
];

/// The variable that says which GPUs CUDA shows to this process, and in which order: their numbers,
/// or unique names.
const VISIBLE: &str = "CUDA_VISIBLE_DEVICES";
/// What the unique names of GPUs and of parts of them begin with.
const NAMES: [&str; 2] = ["GPU-", "MIG-"];

/// Every GPU that the driver shows to this process.
struct Gpus {
    nvml: Nvml,
    /// Index, unique name, and the energy it had used when the program began.
    gpus: Vec<Gpu>,
}

struct Gpu {
    index: u32,
    uuid: String,
    joules_before: f64,
}

/// The GPUs, where there are any and the driver's library can be loaded.
pub fn gpus() -> Option<Box<dyn Sampler>> {
    let nvml = Nvml::init()
        .inspect_err(|error| tracing::debug!("no GPU is shown among the metrics: {error}"))
        .ok()?;
    let indexes = 0..nvml.device_count().ok()?;
    let gpus: Vec<Gpu> = indexes.filter_map(|index| find(&nvml, index)).collect();
    (!gpus.is_empty()).then(|| Box::new(Gpus { nvml, gpus }) as Box<_>)
}

/// How many bytes nobody has of the memory of the GPU that CUDA calls so in this process; `None`
/// where the driver does not tell.
pub(crate) fn free_memory(index: u32) -> Option<usize> {
    let nvml = Nvml::init().ok()?;
    let visible = env::var(VISIBLE).ok();
    let gpu = match physical(visible.as_deref(), index)? {
        Physical::Index(index) => nvml.device_by_index(index).ok()?,
        Physical::Name(name) => named(&nvml, name)?,
    };
    usize::try_from(gpu.memory_info().ok()?.free).ok()
}

/// What the driver calls a GPU, whatever a process is shown.
#[derive(Debug, PartialEq, Eq)]
enum Physical<'a> {
    Index(u32),
    /// A unique name or its beginning, of a GPU or a part of one.
    Name(&'a str),
}

/// The GPU that CUDA calls by `index` where it is shown those that [`VISIBLE`] lists: NVML counts all
/// there are. `None` when it is shown no such one.
///
/// Both count in the order of the bus, as CUDA does where the GPUs are alike.
fn physical(visible: Option<&str>, index: u32) -> Option<Physical<'_>> {
    let Some(visible) = visible else {
        return Some(Physical::Index(index));
    };
    let entry = visible.split(',').nth(index as usize)?.trim();
    let is_name = NAMES.iter().any(|name| entry.starts_with(name));
    if is_name { Some(Physical::Name(entry)) } else { entry.parse().ok().map(Physical::Index) }
}

/// The GPU with a unique name, or with one that begins so.
fn named<'a>(nvml: &'a Nvml, name: &str) -> Option<Device<'a>> {
    let mut all = (0..nvml.device_count().ok()?).filter_map(|gpu| nvml.device_by_index(gpu).ok());
    let whole = all.find(|gpu| gpu.uuid().is_ok_and(|uuid| uuid.starts_with(name)));
    // A part of one is not among them.
    whole.or_else(|| nvml.device_by_uuid(name).ok())
}

fn find(nvml: &Nvml, index: u32) -> Option<Gpu> {
    let device = nvml.device_by_index(index).ok()?;
    let uuid = device.uuid().ok()?;
    Some(Gpu { index, uuid, joules_before: joules(&device).unwrap_or_default() })
}

fn joules(gpu: &Device<'_>) -> Result<f64, NvmlError> {
    Ok(gpu.total_energy_consumption()? as f64 / 1000.0)
}

impl Sampler for Gpus {
    fn sample(&mut self) -> Vec<Reading> {
        let devices = self.gpus.iter().filter_map(|gpu| {
            let device = self.nvml.device_by_index(gpu.index).ok()?;
            Some((gpu, device))
        });
        let devices: Vec<_> = devices.collect();
        let mut readings = Vec::with_capacity(READINGS.len() * devices.len());
        for (family, read) in READINGS {
            for (gpu, device) in &devices {
                let Ok(value) = read(device) else { continue };
                let is_energy = family.name == triton::ENERGY_CONSUMPTION.name;
                let value = if is_energy { value - gpu.joules_before } else { value };
                let labels = vec![(label::GPU_UUID, gpu.uuid.clone())];
                readings.push(Reading { family, labels, value });
            }
        }
        readings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_is_found_among_those_that_the_process_is_shown() {
        assert_eq!(physical(None, 1), Some(Physical::Index(1)));
        assert_eq!(physical(Some("3, 2"), 1), Some(Physical::Index(2)));
        assert_eq!(physical(Some("GPU-5fd4f087,MIG-1"), 0), Some(Physical::Name("GPU-5fd4f087")));
        assert_eq!(physical(Some("GPU-5fd4f087,MIG-1"), 1), Some(Physical::Name("MIG-1")));
        for (hidden, index) in [("", 0), ("0", 1), ("-1", 0), ("NoDevFiles", 0)] {
            assert_eq!(physical(Some(hidden), index), None, "{hidden}");
        }
    }

    #[test]
    fn a_machine_tells_of_its_gpus_or_has_none() {
        // Without a driver there is no sampler and no error; with one, every value is in range.
        let Some(mut gpus) = gpus() else { return };
        let readings = gpus.sample();
        for Reading { family, labels, value } in &readings {
            assert!(labels[0].1.starts_with("GPU-"), "{labels:?}");
            let is_share = family.name == triton::GPU_UTILIZATION.name;
            assert!(*value >= 0.0 && (!is_share || *value <= 1.0), "{} {value}", family.name);
        }
    }
}
