//! Traces, logs and metrics: every name and every exporter of Consort.
