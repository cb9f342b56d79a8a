//! The tasks of this repository: set-up, serve, test, bench, tidy.

fn main() {}
