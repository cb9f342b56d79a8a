//! The command line: serve everything in one process, check, plan.

fn main() {}
