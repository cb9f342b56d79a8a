//! Starts the separated services with docker-compose and tries what a new user would: text, streaming, scaling, a lost replica.

mod scenario;
mod stack;

use std::time::Instant;

use anyhow::{Result, bail};

use crate::checkout::Checkout;
use crate::docker::Docker;
use crate::images;
use crate::models;
use crate::progress;
use scenario::SCENARIO;
use stack::Stack;

/// Runs the whole test; everything that was started is stopped again, whatever happens.
pub(crate) fn run(checkout: &Checkout) -> Result<()> {
    let started_at = Instant::now();
    let docker = Docker::connect()?;
    models::run(checkout)?;
    images::build(checkout, &docker)?;
    let mut stack = Stack::new(checkout, &docker)?;
    let (mut passed, mut failed) = (0, 0);
    for (sentence, check) in SCENARIO {
        match progress::step(sentence, || check(&mut stack)) {
            Ok(()) => passed += 1,
            Err(_) => failed += 1,
        }
        if failed > 0 {
            // Each check builds on the one before.
            stack.print_logs();
            break;
        }
    }
    drop(stack);
    println!("docker-compose took {}", progress::seconds(started_at.elapsed()));
    println!("{passed} passed, {failed} failed");
    if failed > 0 {
        bail!("the composed services do not do what they should");
    }
    Ok(())
}
