//! Answers a request that was asked before from the cache, and equal ones in flight with one run.

mod key;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use consort_stage::{Code, Request, Response, Responses, Result, Stage, collect_one, one};
use consort_telemetry::Meter;
use parking_lot::Mutex;
use tokio::sync::OnceCell;

use crate::response_cache::{Key, ResponseCache};

/// A stage behind the cache: a model or an ensemble that answers once and remembers nothing.
///
/// It keeps what it caches to itself, so that a model that is loaded again starts without the
/// answers of the time before.
pub struct Cached(Arc<Shared>);

struct Shared {
    inner: Arc<dyn Stage>,
    meter: Arc<Meter>,
    cache: Arc<ResponseCache>,
    owner: u64,
    flights: Mutex<HashMap<Key, Arc<Flight>>>,
}

/// One run that equal requests wait for, with what came of it for all of them.
type Flight = OnceCell<Result<Response>>;

impl Cached {
    /// Puts `inner` behind `cache`; `meter` counts what is found there and what is not.
    pub fn new(inner: Arc<dyn Stage>, cache: Arc<ResponseCache>, meter: Arc<Meter>) -> Self {
        let owner = cache.enrol();
        Self(Arc::new(Shared { inner, meter, cache, owner, flights: Mutex::default() }))
    }
}

impl Stage for Cached {
    fn call(&self, request: Request) -> Responses {
        // What a sequence answers depends on what it was asked before.
        if !matches!(request.sequence(), Ok(None)) {
            return self.0.inner.call(request);
        }
        let shared = self.0.clone();
        one(async move { shared.answer(request).await })
    }
}

impl Shared {
    async fn answer(&self, request: Request) -> Result<Response> {
        let asked_at = Instant::now();
        let key = key::of(self.owner, &request);
        let joined = match self.find(key) {
            Found::Kept(response) => {
                self.meter.cache_hit(asked_at.elapsed());
                return Ok(response);
            }
            Found::Flight(joined) => joined,
        };
        let searched = asked_at.elapsed();
        let mut led = None;
        // Dropped half-way, it leaves the lead to the next who waits.
        let lead = async {
            let outcome = collect_one(self.inner.call(request)).await;
            let ran_until = Instant::now();
            if let Ok(response) = &outcome {
                self.cache.insert(key, self.owner, response);
            }
            self.meter.cache_miss(searched + ran_until.elapsed());
            match outcome {
                Err(error) if !concerns_everybody(error.code()) => Err(error),
                outcome => {
                    let for_others = outcome.clone();
                    led = Some(outcome);
                    Ok(for_others)
                }
            }
        };
        let outcome = joined.flight().get_or_try_init(|| lead).await;
        let shared = outcome.cloned();
        if let Some(own) = led {
            return own;
        }
        let shared = shared?;
        if shared.is_ok() {
            self.meter.cache_hit(asked_at.elapsed());
        }
        shared
    }

    /// The kept response, or the flight that will bring it.
    fn find(&self, key: Key) -> Found<'_> {
        // Held meanwhile: a flight keeps its response first and leaves the list then, so a request
        // that comes between finds one of the two.
        let mut flights = self.flights.lock();
        if let Some(response) = self.cache.get(&key) {
            return Found::Kept(response);
        }
        let flight = flights.entry(key).or_default().clone();
        Found::Flight(Joined { shared: self, key, flight: Some(flight) })
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.cache.forget(self.owner);
    }
}

/// Whether an error would meet every equal request; the others belong to the one that met them:
/// its deadline, its place in the queue.
fn concerns_everybody(code: Code) -> bool {
    match code {
        Code::Overloaded | Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => false,
        Code::Unknown
        | Code::Internal
        | Code::NotFound
        | Code::InvalidInput
        | Code::Unsupported
        | Code::AlreadyExists => true,
    }
}

/// Where a response comes from.
enum Found<'a> {
    Kept(Response),
    Flight(Joined<'a>),
}

/// A request's part in a flight, which ends with the last of them or when it has arrived.
struct Joined<'a> {
    shared: &'a Shared,
    key: Key,
    flight: Option<Arc<Flight>>,
}

impl Joined<'_> {
    fn flight(&self) -> &Flight {
        self.flight.as_ref().expect("it is taken when this is dropped")
    }
}

impl Drop for Joined<'_> {
    fn drop(&mut self) {
        let mut flights = self.shared.flights.lock();
        let Some(flight) = self.flight.take() else { return };
        let Some(listed) = flights.get(&self.key) else { return };
        let is_listed = Arc::ptr_eq(listed, &flight);
        let is_alone = Arc::strong_count(&flight) == 2;
        if is_listed && (is_alone || flight.initialized()) {
            flights.remove(&self.key);
        }
        // Within the lock, so that of two who leave at once the second finds itself alone.
        drop(flight);
    }
}

#[cfg(test)]
mod tests;
