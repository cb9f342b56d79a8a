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

use super::parameters::Parameters;

/// Grows the card's memory by what is asked for and no more: the cache is asked for at once.
const ARENA: (&str, &str) = ("arena_extend_strategy", "kSameAsRequested");
const CAPTURES: (&str, &str) = ("enable_cuda_graph", "1");

/// What executes a graph, and the file that it is in.
type Place<'a> = (Provider, &'a Path);

/// What comes of adding the choice to a graph.
#[derive(Default)]
pub(super) struct Choosing {
    /// The session of the graph that chooses, and whether its steps are captured; `None` for a graph
    /// that is served as it is: on the processor, which reads logits where they lie, or with tensors
    /// that are not as expected.
    pub(super) session: Option<(Session, bool)>,
    /// Whether rows of the graph may be padded, where its file was read.
    pads: Option<bool>,
}

impl Choosing {
    /// Whether the rows of a graph whose cache grows may be padded, and so computed together.
    pub(super) fn pads(&self, file: &Path, graph: &Graph) -> bool {
        // What cannot be read was not opened either.
        let read = || fs::read(file).is_ok_and(|model| has_padding(&model));
        graph.carrying == Carrying::PresentToPast && self.pads.unwrap_or_else(read)
    }
}

/// Opens the graph in a file with the choice added to it.
pub(super) fn open(
    instance: &Instance<'_>,
    place: Place<'_>,
    config: &Config,
    parameters: &Parameters,
) -> Result<Choosing> {
    let is_on_card = place.0 != Provider::Cpu;
    if !parameters.chooses_in_graph.unwrap_or(is_on_card) {
        return Ok(Choosing::default());
    }
    // Rows of a cache that grows are padded, which their mask hides.
    let mask = if config.shares_buffer { Mask::Made } else { Mask::Kept };
    let Some((changed, pads)) = read_changed(place.1, config, mask) else {
        // The plain way says what is wrong with it.
        return Ok(Choosing::default());
    };
    let session = open_changed(instance, place, (changed, config), parameters.captures)?;
    Ok(Choosing { session, pads: Some(pads) })
}

/// A model file with the choice added, if it can be, and whether its rows may be padded; `None` when it
/// cannot be read. Only what is used is kept: a file may have gigabytes.
fn read_changed(file: &Path, config: &Config, mask: Mask) -> Option<(Option<Vec<u8>>, bool)> {
    let model = fs::read(file).ok()?;
    Some((add_choice(&model, &config.names, mask), has_padding(&model)))
}

fn open_changed(
    instance: &Instance<'_>,
    (provider, file): Place<'_>,
    (changed, config): (Option<Vec<u8>>, &Config),
    captures: bool,
) -> Result<Option<(Session, bool)>> {
    let is_on_card = provider != Provider::Cpu;
    let Some(model) = changed else {
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
    if is_on_card && captures {
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
