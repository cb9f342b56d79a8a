//! Opens a decoder with the choice of the likeliest token added to its graph, for a card.

use std::fs;
use std::path::Path;

use consort_repository::Instance;
use consort_stage::{Error, Result};
use ort::session::Session;

use crate::llm::{
    Carrying, Config, FinderSessions, Graph, MOST_FOUND, Mask, add_choice, draw_graph, join_graph,
    pads as has_padding, top_graph,
};
use crate::provider::Provider;
use crate::session;

/// Grows the card's memory by what is asked for and no more: the cache is asked for at once.
const ARENA: (&str, &str) = ("arena_extend_strategy", "kSameAsRequested");
const CAPTURES: (&str, &str) = ("enable_cuda_graph", "1");

/// What executes a graph, and the file that it is in.
type Place<'a> = (Provider, &'a Path);

/// The session of a graph that chooses, and whether its steps are captured; `None` for a graph
/// that is served as it is: on the processor, which reads logits where they lie, or with tensors
/// that are not as expected.
pub(super) fn open(
    instance: &Instance<'_>,
    (provider, file): Place<'_>,
    config: &Config,
) -> Result<Option<(Session, bool)>> {
    let settings = &instance.model.settings;
    let is_on_card = provider != Provider::Cpu;
    if !settings.switch_or("choose_in_graph", is_on_card)? {
        return Ok(None);
    }
    let Ok(model) = fs::read(file) else {
        // The plain way says what is wrong with it.
        return Ok(None);
    };
    // Rows of a cache that grows are padded, which their mask hides.
    let mask = if config.shares_buffer { Mask::Made } else { Mask::Kept };
    let Some(model) = add_choice(&model, &config.names, mask) else {
        tracing::warn!(
            model = &*instance.model.name,
            "the graph has a mask, logits or operators of an unusual kind, so that nothing can be \
             added to it; {}",
            if is_on_card { "requests run one after another" } else { "its logits are read" }
        );
        return Ok(None);
    };
    let opened =
        |defaults: &[_]| session::open_changed(instance, provider, (file, &model), defaults);
    if !config.shares_buffer {
        // What a step needs grows with every token, and would be asked for at every one.
        return Ok(Some((opened(&[])?, false)));
    }
    if is_on_card && settings.switch_or("cuda_graphs", true)? {
        match opened(&[ARENA, CAPTURES]) {
            Ok(session) => return Ok(Some((session, true))),
            Err(error) => report(instance, &error),
        }
    }
    Ok(Some((opened(&[ARENA])?, false)))
}

/// The sessions that find tokens where the logits lie; none where they are not of use.
pub(super) fn finders(
    instance: &Instance<'_>,
    (provider, file): Place<'_>,
    graph: &Graph,
) -> Result<Option<FinderSessions>> {
    let is_large = |vocabulary: &usize| *vocabulary >= MOST_FOUND;
    let Some(vocabulary) = graph.vocabulary.filter(is_large).filter(|_| graph.chooses) else {
        return Ok(None);
    };
    let element = graph.logits.element;
    let (Some(top), Some(draws)) = (top_graph(element), draw_graph(element, vocabulary)) else {
        return Ok(None);
    };
    let open = |model: &[u8]| session::open_changed(instance, provider, (file, model), &[ARENA]);
    Ok(Some(FinderSessions { top: open(&top)?, draws: open(&draws)? }))
}

/// Whether the rows of a graph whose cache grows may be padded, and so computed together.
pub(super) fn pads(file: &Path, graph: &Graph) -> bool {
    // What cannot be read was not opened either.
    graph.carrying == Carrying::PresentToPast
        && fs::read(file).is_ok_and(|model| has_padding(&model))
}

/// The session that puts the rows of a cache that grows together where they lie; none for a graph that
/// is served as it is.
pub(super) fn joiner(
    instance: &Instance<'_>,
    (provider, file): Place<'_>,
    graph: &Graph,
) -> Result<Option<Session>> {
    let Some(model) = join_graph(graph).filter(|_| graph.chooses) else {
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
