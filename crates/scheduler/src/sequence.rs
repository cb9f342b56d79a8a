//! Lets each sequence of requests run in order on one instance.

mod choice;
mod core;
mod line;
