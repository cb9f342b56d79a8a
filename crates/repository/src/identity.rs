//! The backend `identity`: gives its inputs back, for tests and for measuring what all else costs.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use consort_config::Model;
use consort_stage::{
    Batch, BatchBackend, Error, InlineBackend, Interrupt, Result, Tensor, TensorSpec,
};

use crate::{Backend, Kind};

/// The backend `identity`, which every service has.
pub const IDENTITY: Kind = Kind::new("identity", |instance| {
    let identity = Identity::new(instance.model)?;
    let delay: u64 = instance.model.settings.parse_or(DELAY, 0)?;
    if delay == 0 {
        return Ok(Backend::Inline(Arc::new(identity)));
    }
    Ok(Backend::Batch(Box::new(Delayed {
        identity,
        delay: Duration::from_millis(delay),
        sleep: Arc::default(),
    })))
});

/// The parameter that says how long an execution takes, in milliseconds.
const DELAY: &str = "execute_delay_ms";

/// Gives each output the elements of its input, without copying them.
#[derive(Debug)]
struct Identity {
    /// The name of each output after that of its input.
    pairs: Vec<(Arc<str>, Arc<str>)>,
}

impl Identity {
    fn new(model: &Model) -> Result<Self> {
        let outputs = model.signature.outputs.iter().enumerate();
        let pair = |(index, output): (usize, &TensorSpec)| {
            let input = input_of(model, index, output)?;
            Ok((input.name.clone(), output.name.clone()))
        };
        let pairs = outputs.map(pair).collect::<Result<_>>()?;
        Ok(Self { pairs })
    }
}

impl InlineBackend for Identity {
    fn run(&self, batch: Batch) -> Result<Vec<Tensor>> {
        let wanted = self.pairs.iter().filter(|(_, output)| batch.wants(output));
        // An output whose optional input was left out is left out too.
        let given = wanted.filter_map(|(input, output)| {
            let tensor = batch.input(input)?.clone();
            Some(tensor.renamed(output.clone()))
        });
        Ok(given.collect())
    }
}

/// The input that `output` repeats: of its name, or else in its place.
fn input_of<'a>(model: &'a Model, index: usize, output: &TensorSpec) -> Result<&'a TensorSpec> {
    let signature = &model.signature;
    let twin = output.name.replacen("OUTPUT", "INPUT", 1);
    let input = signature.input(&output.name).or_else(|| signature.input(&twin));
    let Some(input) = input.or_else(|| signature.inputs.get(index)) else {
        return Err(Error::invalid(format!(
            "output `{}` of model `{}` has no input that backend `identity` could give back; \
             give it an input of its name or in its place",
            output.name, model.name
        )));
    };
    if input.datatype == output.datatype {
        return Ok(input);
    }
    Err(Error::invalid(format!(
        "output `{}` of model `{}` is {}, but input `{}`, which backend `identity` gives back, is {}",
        output.name,
        model.name,
        output.datatype.config_name(),
        input.name,
        input.datatype.config_name()
    )))
}

/// The same after a while, on a thread of its own.
struct Delayed {
    identity: Identity,
    delay: Duration,
    sleep: Arc<Sleep>,
}

impl BatchBackend for Delayed {
    fn run(&mut self, batch: Batch) -> Result<Vec<Tensor>> {
        self.sleep.sleep(self.delay)?;
        self.identity.run(batch)
    }

    fn interrupt(&self) -> Option<Interrupt> {
        let sleep = Arc::clone(&self.sleep);
        Some(Arc::new(move || sleep.interrupt()))
    }
}

/// A sleep that another thread can end.
#[derive(Default)]
struct Sleep {
    state: Mutex<Wakefulness>,
    woken: Condvar,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Wakefulness {
    #[default]
    Awake,
    Asleep,
    Interrupted,
}

impl Sleep {
    fn sleep(&self, time: Duration) -> Result<()> {
        let mut state = self.lock();
        *state = Wakefulness::Asleep;
        let (mut state, _) = self
            .woken
            .wait_timeout_while(state, time, |state| *state == Wakefulness::Asleep)
            .unwrap_or_else(PoisonError::into_inner);
        let was = std::mem::take(&mut *state);
        match was {
            Wakefulness::Interrupted => Err(Error::cancelled()),
            Wakefulness::Awake | Wakefulness::Asleep => Ok(()),
        }
    }

    /// Ends the sleep that is going on; without one, the next is not shortened.
    fn interrupt(&self) {
        let mut state = self.lock();
        if *state == Wakefulness::Asleep {
            *state = Wakefulness::Interrupted;
            self.woken.notify_all();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Wakefulness> {
        // A state is one word, so a thread that panicked cannot have left it half written.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::Instant;

    use consort_stage::{Code, DataType, Signature};

    use super::*;

    fn model(inputs: &[(&str, DataType)], outputs: &[(&str, DataType)]) -> Model {
        let specs = |tensors: &[(&str, DataType)]| {
            let spec =
                |(name, datatype): &(&str, DataType)| TensorSpec::new(name, *datatype, &[-1]);
            tensors.iter().map(spec).collect()
        };
        let signature = Signature {
            max_batch_size: 0,
            inputs: specs(inputs),
            outputs: specs(outputs),
            is_decoupled: false,
        };
        Model::plain("identity", signature)
    }

    const FP32: DataType = DataType::Fp32;
    const BYTES: DataType = DataType::Bytes;

    fn tensor(name: &str, value: f32) -> Tensor {
        Tensor::from_vec(name, &[1], vec![value])
    }

    fn run(model: &Model, inputs: Vec<Tensor>, outputs: Vec<Arc<str>>) -> Vec<Tensor> {
        let batch = Batch { inputs, outputs, ..Batch::default() };
        Identity::new(model).unwrap().run(batch).unwrap()
    }

    #[test]
    fn outputs_find_their_inputs_by_name_and_then_by_place() {
        let model = model(&[("a", FP32), ("b", FP32)], &[("b", FP32), ("a", FP32)]);
        let outputs = run(&model, vec![tensor("a", 1.0), tensor("b", 2.0)], Vec::new());
        assert_eq!(outputs, [tensor("b", 2.0), tensor("a", 1.0)]);

        let model =
            self::model(&[("x", FP32), ("INPUT1", FP32)], &[("y", FP32), ("OUTPUT1", FP32)]);
        let outputs = run(&model, vec![tensor("x", 1.0), tensor("INPUT1", 2.0)], Vec::new());
        assert_eq!(outputs, [tensor("y", 1.0), tensor("OUTPUT1", 2.0)]);
    }

    #[test]
    fn elements_are_shared_and_not_copied() {
        let model = model(&[("INPUT0", FP32)], &[("OUTPUT0", FP32)]);
        let input = tensor("INPUT0", 1.0);
        let outputs = run(&model, vec![input.clone()], Vec::new());
        assert_eq!(outputs[0].data.as_ptr(), input.data.as_ptr());
    }

    #[test]
    fn only_wanted_and_given_tensors_come_back() {
        let model =
            model(&[("INPUT0", FP32), ("INPUT1", FP32)], &[("OUTPUT0", FP32), ("OUTPUT1", FP32)]);
        let both = || vec![tensor("INPUT0", 1.0), tensor("INPUT1", 2.0)];
        assert_eq!(run(&model, both(), vec!["OUTPUT1".into()]), [tensor("OUTPUT1", 2.0)]);
        assert_eq!(run(&model, vec![tensor("INPUT1", 2.0)], Vec::new()), [tensor("OUTPUT1", 2.0)]);
    }

    #[test]
    fn tensors_that_cannot_be_given_back_are_refused_at_load() {
        let refused = |model: &Model| Identity::new(model).unwrap_err().message().to_owned();
        let text = refused(&model(&[("INPUT0", FP32)], &[("OUTPUT0", BYTES)]));
        assert!(text.contains("`OUTPUT0` of model `sample` is TYPE_STRING"), "{text}");
        let text = refused(&model(&[("a", FP32)], &[("b", FP32), ("c", FP32)]));
        assert!(text.contains("output `c`"), "{text}");
    }

    fn delayed(milliseconds: u64) -> Delayed {
        Delayed {
            identity: Identity::new(&model(&[("INPUT0", FP32)], &[("OUTPUT0", FP32)])).unwrap(),
            delay: Duration::from_millis(milliseconds),
            sleep: Arc::default(),
        }
    }

    #[test]
    fn an_interrupted_delay_ends_at_once_and_the_next_is_whole() {
        let mut backend = delayed(60_000);
        let interrupt = backend.interrupt().unwrap();
        let started = Instant::now();
        let waker = thread::spawn(move || {
            thread::sleep(Duration::from_millis(20));
            interrupt();
        });
        let error = BatchBackend::run(&mut backend, Batch::default()).unwrap_err();
        assert_eq!(error.code(), Code::Cancelled);
        assert!(started.elapsed() < Duration::from_secs(10));
        waker.join().unwrap();

        backend.delay = Duration::from_millis(5);
        assert!(BatchBackend::run(&mut backend, Batch::default()).is_ok());
    }

    #[test]
    fn an_interrupt_between_two_runs_does_nothing() {
        let mut backend = delayed(5);
        backend.interrupt().unwrap()();
        let inputs = vec![tensor("INPUT0", 1.0)];
        let outputs = BatchBackend::run(&mut backend, Batch { inputs, ..Batch::default() });
        assert_eq!(outputs.unwrap(), [tensor("OUTPUT0", 1.0)]);
    }
}
