//! Numbers of the machine and its devices, read in the background and shown as they were last.

use std::thread;
use std::time::Duration;

use parking_lot::Mutex;

use crate::exposition::Exposition;
use crate::semconv::Family;

/// One number that was read.
#[derive(Clone, Debug)]
pub struct Reading {
    /// What it says.
    pub family: Family,
    /// The device it speaks of, as a label and its value.
    pub labels: Vec<(&'static str, String)>,
    /// The number.
    pub value: f64,
}

/// Something that numbers can be read from, and that may take its time.
pub trait Sampler: Send {
    /// What it says now; readings of one family must follow one another.
    fn sample(&mut self) -> Vec<Reading>;
}

/// What was read last.
#[derive(Debug, Default)]
pub(crate) struct Gauges(Mutex<Vec<Reading>>);

impl Gauges {
    pub(crate) fn replace(&self, readings: Vec<Reading>) {
        *self.0.lock() = readings;
    }

    pub(crate) fn encode(&self, exposition: &mut Exposition) {
        let readings = self.0.lock().clone();
        let mut announced = "";
        for Reading { family, labels, value } in &readings {
            if family.name != announced {
                exposition.family(family);
                announced = family.name;
            }
            let labels: Vec<_> = labels.iter().map(|(name, value)| (*name, &**value)).collect();
            exposition.sample(family, &labels, value);
        }
    }
}

/// Reads all samplers every so often and shows the readings, until nobody wants them.
pub(crate) fn follow(
    mut samplers: Vec<Box<dyn Sampler>>,
    every: Duration,
    show: impl Fn(Vec<Reading>) -> bool + Send + 'static,
) {
    if samplers.is_empty() {
        return;
    }
    let thread = thread::Builder::new().name("gauges".into()).spawn(move || {
        while show(samplers.iter_mut().flat_map(|sampler| sampler.sample()).collect()) {
            thread::sleep(every);
        }
    });
    if let Err(error) = thread {
        tracing::warn!("the machine's metrics are not shown: cannot start a thread: {error}");
    }
}
