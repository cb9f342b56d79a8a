//! End-to-end tests of Consort.
