//! Keeps responses for requests that are asked again, in so many bytes and no more.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use consort_stage::{Response, Tensor};
use parking_lot::Mutex;

/// What a response is kept under: a digest of everything it depends on.
pub(crate) type Key = [u8; 32];

/// What an entry takes beside its tensors: its key twice, its counters and the nodes of two maps.
const ENTRY_SIZE: usize = 256;

/// What a tensor takes beside its name, shape and elements.
const TENSOR_SIZE: usize = 96;

/// The responses that a process keeps, those used longest ago going first when room is needed.
pub struct ResponseCache {
    capacity: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    entries: HashMap<Key, Entry>,
    /// The keys by when they were last used.
    by_use: BTreeMap<u64, Key>,
    uses: u64,
    bytes: usize,
    owners: u64,
}

struct Entry {
    response: Response,
    owner: u64,
    size: usize,
    used: u64,
}

impl ResponseCache {
    /// A cache whose responses, and what it takes to keep them, never exceed `capacity` bytes.
    pub fn new(capacity: usize) -> Self {
        Self { capacity, state: Mutex::default() }
    }

    /// A number that no other user of the cache has or will have.
    pub(crate) fn enrol(&self) -> u64 {
        let mut state = self.state.lock();
        state.owners += 1;
        state.owners
    }

    /// The response under `key`; its tensors are shared and not copied.
    pub(crate) fn get(&self, key: &Key) -> Option<Response> {
        let mut state = self.state.lock();
        let State { entries, by_use, uses, .. } = &mut *state;
        let entry = entries.get_mut(key)?;
        by_use.remove(&entry.used);
        *uses += 1;
        entry.used = *uses;
        by_use.insert(entry.used, *key);
        Some(entry.response.clone())
    }

    /// Keeps `response` under `key`, unless it alone is larger than the cache.
    ///
    /// The elements are copied once: as they come they may be a small part of a large buffer,
    /// such as that of a whole batch, which would be kept with them.
    pub(crate) fn insert(&self, key: Key, owner: u64, response: &Response) {
        let size = size_of_response(response);
        if size > self.capacity {
            return;
        }
        let response = compacted(response);
        let mut state = self.state.lock();
        state.remove(&key);
        while state.bytes + size > self.capacity && state.remove_oldest() {}
        state.uses += 1;
        state.bytes += size;
        let used = state.uses;
        state.by_use.insert(used, key);
        state.entries.insert(key, Entry { response, owner, size, used });
    }

    /// Forgets everything that was kept for `owner`.
    pub(crate) fn forget(&self, owner: u64) {
        let mut state = self.state.lock();
        let owned = state.entries.iter().filter(|(_, entry)| entry.owner == owner);
        let keys: Vec<Key> = owned.map(|(key, _)| *key).collect();
        for key in keys {
            state.remove(&key);
        }
    }
}

impl State {
    fn remove(&mut self, key: &Key) {
        if let Some(entry) = self.entries.remove(key) {
            self.by_use.remove(&entry.used);
            self.bytes -= entry.size;
        }
    }

    /// Whether there was one.
    fn remove_oldest(&mut self) -> bool {
        let oldest = self.by_use.first_key_value().map(|(_, key)| *key);
        oldest.map(|key| self.remove(&key)).is_some()
    }
}

fn size_of_response(response: &Response) -> usize {
    let tensor = |tensor: &Tensor| {
        TENSOR_SIZE + tensor.name.len() + tensor.shape.len() * size_of::<i64>() + tensor.data.len()
    };
    let parameter = |name: &String| TENSOR_SIZE + name.len();
    let text = |value: &consort_stage::Parameter| value.as_str().map_or(0, str::len);
    ENTRY_SIZE
        + response.outputs.iter().map(tensor).sum::<usize>()
        + response.parameters.keys().map(parameter).sum::<usize>()
        + response.parameters.values().map(text).sum::<usize>()
}

fn compacted(response: &Response) -> Response {
    let mut response = response.clone();
    for tensor in &mut response.outputs {
        tensor.data = Bytes::copy_from_slice(&tensor.data);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a response of `of_size` takes beside its elements: entry, tensor, name and shape.
    const REST: usize = ENTRY_SIZE + TENSOR_SIZE + 1 + 8;

    fn of_size(bytes: usize) -> Response {
        Response::only(vec![Tensor::from_vec("y", &[bytes as i64], vec![7_u8; bytes])])
    }

    fn key(number: u8) -> Key {
        [number; 32]
    }

    fn holds(cache: &ResponseCache, number: u8) -> bool {
        cache.state.lock().entries.contains_key(&key(number))
    }

    #[test]
    fn what_was_used_longest_ago_makes_room() {
        let cache = ResponseCache::new(3 * (REST + 100));
        for number in 1..=3 {
            cache.insert(key(number), 1, &of_size(100));
        }
        assert!(cache.get(&key(1)).is_some());
        cache.insert(key(4), 1, &of_size(100));
        assert_eq!([1, 2, 3, 4].map(|number| holds(&cache, number)), [true, false, true, true]);
        cache.insert(key(5), 1, &of_size(2 * (REST + 100) - REST));
        assert_eq!([1, 3, 4, 5].map(|number| holds(&cache, number)), [false, false, true, true]);
        assert_eq!(cache.state.lock().bytes, cache.capacity);
    }

    #[test]
    fn a_response_larger_than_the_cache_pushes_nothing_out() {
        let cache = ResponseCache::new(REST + 100);
        cache.insert(key(1), 1, &of_size(100));
        cache.insert(key(2), 1, &of_size(101));
        assert_eq!([1, 2].map(|number| holds(&cache, number)), [true, false]);
    }

    #[test]
    fn a_response_that_comes_twice_is_counted_once() {
        let cache = ResponseCache::new(1 << 20);
        cache.insert(key(1), 1, &of_size(100));
        cache.insert(key(1), 1, &of_size(50));
        let state = cache.state.lock();
        assert_eq!((state.bytes, state.by_use.len()), (REST + 50, 1));
    }

    #[test]
    fn a_hit_shares_its_elements_and_keeps_no_larger_buffer() {
        let cache = ResponseCache::new(1 << 20);
        let mut response = of_size(100);
        response.outputs[0].data = response.outputs[0].data.slice(..10);
        cache.insert(key(1), 1, &response);
        let [one, two] = [(); 2].map(|()| cache.get(&key(1)).unwrap().outputs.remove(0).data);
        assert_eq!(one.as_ptr(), two.as_ptr());
        assert_ne!(one.as_ptr(), response.outputs[0].data.as_ptr());
    }

    #[test]
    fn what_one_owner_kept_is_forgotten_with_it() {
        let cache = ResponseCache::new(1 << 20);
        let [one, two] = [cache.enrol(), cache.enrol()];
        cache.insert(key(1), one, &of_size(100));
        cache.insert(key(2), two, &of_size(100));
        cache.forget(one);
        assert_eq!([1, 2].map(|number| holds(&cache, number)), [false, true]);
        cache.forget(two);
        assert_eq!(cache.state.lock().bytes, 0);
    }
}
