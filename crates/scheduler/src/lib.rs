//! Instances, queues and batching between a request and a backend.
