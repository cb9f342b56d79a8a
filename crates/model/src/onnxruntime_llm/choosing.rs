//! Opens a decoder with the choice of the likeliest token added to its graph, for a card.

use std::fs;
use std::path::Path;

use consort_repository::Instance;
use consort_stage::{Error, Result};
use ort::session::Session;

use crate::llm::{Config, Graph, MOST_FOUND, add_choice, top_graph};
use crate::provider::Provider;
use crate::session;

/// Grows the card's memory by what is asked for and no more: the cache is asked for at once.
const ARENA: (&str, &str) = ("arena_extend_strategy", "kSameAsRequested");
const CAPTURES: (&str, &str) = ("enable_cuda_graph", "1");

/// What executes a graph, and the file that it is in.
type Place<'a> = (Provider, &'a Path);

/// The session of a graph that chooses, and whether its steps are captured; `None` for a graph
/// that is served as it is: on the processor, which reads logits where they lie, with a cache that
/// grows, or with tensors that are not as expected.
pub(super) fn open(
    instance: &Instance<'_>,
    (provider, file): Place<'_>,
    config: &Config,
) -> Result<Option<(Session, bool)>> {
    let settings = &instance.model.settings;
    let is_on_card = provider != Provider::Cpu;
    if !settings.switch_or("choose_in_graph", is_on_card)? || !config.shares_buffer {
        return Ok(None);
    }
    let Ok(model) = fs::read(file) else {
        // The plain way says what is wrong with it.
        return Ok(None);
    };
    let Some(model) = add_choice(&model, &config.names) else {
        tracing::warn!(
            model = &*instance.model.name,
            "the graph has no mask or logits of the usual kind, so that nothing can be added to \
             it; {}",
            if is_on_card { "requests run one after another" } else { "its logits are read" }
        );
        return Ok(None);
    };
    let opened =
        |defaults: &[_]| session::open_changed(instance, provider, (file, &model), defaults);
    if is_on_card && settings.switch_or("cuda_graphs", true)? {
        match opened(&[ARENA, CAPTURES]) {
            Ok(session) => return Ok(Some((session, true))),
            Err(error) => report(instance, &error),
        }
    }
    Ok(Some((opened(&[ARENA])?, false)))
}

/// The session that finds the likeliest tokens where the logits lie; none where it is not of use.
pub(super) fn picker(
    instance: &Instance<'_>,
    (provider, file): Place<'_>,
    graph: &Graph,
) -> Result<Option<Session>> {
    let is_large = graph.vocabulary.is_some_and(|vocabulary| vocabulary >= MOST_FOUND);
    let Some(model) = top_graph(graph.logits.element).filter(|_| graph.chooses && is_large) else {
        return Ok(None);
    };
    session::open_changed(instance, provider, (file, &model), &[ARENA]).map(Some)
}

fn report(instance: &Instance<'_>, error: &Error) {
    tracing::warn!(
        model = &*instance.model.name,
        "steps are not captured as CUDA graphs, and take longer: {error}"
    );
}
