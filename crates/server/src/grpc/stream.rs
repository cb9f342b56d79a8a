//! `ModelStreamInfer`: many requests on one stream, each answered any number of times.
//!
//! Responses of models that answer once come in the order of their requests, those of decoupled
//! models as they are made. One task polls everything, so a client that goes away cancels all.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};

use consort_protocol::{ModelInferRequest, ModelInferResponse, ModelStreamInferResponse};
use consort_repository::{Labels, Models, Served, classify_outputs};
use consort_stage::{Context, Enough, Error, Response, Responses, Result, Spent, collect_one, one};
use consort_telemetry::WorkSpan;
use futures::future::BoxFuture;
use futures::stream::{FuturesOrdered, SelectAll};
use futures::{Stream, StreamExt};
use tonic::{Status, Streaming};

use super::infer::{Admitted, admit, refused};

/// The requests of one stream that may be in progress; further ones are read when one ends.
const MAX_IN_PROGRESS: usize = 1024;

/// Makes what every request of a stream is given, from its model, version and id.
pub(super) type MakeContext = Box<dyn Fn(&ModelInferRequest) -> Context + Send>;

/// The responses of one stream.
pub(super) struct InferStream {
    models: Arc<dyn Models>,
    /// The requests to come; `None` once the client has sent them all.
    incoming: Option<Streaming<ModelInferRequest>>,
    make_context: MakeContext,
    /// Whether the first error ends the stream with its real status (`triton_grpc_error`).
    ends_with_error: bool,
    /// Requests to models that answer once.
    single: FuturesOrdered<BoxFuture<'static, Answer>>,
    /// Requests to decoupled models.
    decoupled: SelectAll<Answers>,
    /// Tells the models of a client that has enough, where it says that it may.
    pub(super) enough: Option<Enough>,
    is_over: bool,
}

/// The responses to one request, each ready to be sent.
type Answers = Pin<Box<dyn Stream<Item = Answer> + Send>>;

/// One response, or the error of one request with what names the request.
type Answer = std::result::Result<ModelInferResponse, (Error, Named)>;

/// What an error in a stream says of its request.
#[derive(Clone, Default)]
struct Named {
    model: String,
    version: String,
    id: String,
    /// The same for the log, with the trace.
    labels: Labels,
}

type Item = std::result::Result<ModelStreamInferResponse, Status>;

impl InferStream {
    /// The responses to `incoming`.
    pub(super) fn new(
        models: Arc<dyn Models>,
        incoming: Streaming<ModelInferRequest>,
        make_context: MakeContext,
        ends_with_error: bool,
    ) -> Self {
        Self {
            models,
            incoming: Some(incoming),
            make_context,
            ends_with_error,
            single: FuturesOrdered::new(),
            decoupled: SelectAll::new(),
            enough: None,
            is_over: false,
        }
    }

    /// Reads the requests that have come, as far as there is room.
    fn read(&mut self, context: &mut TaskContext<'_>) -> std::result::Result<(), Status> {
        while let Some(incoming) = &mut self.incoming {
            if self.single.len() + self.decoupled.len() >= MAX_IN_PROGRESS {
                break;
            }
            match incoming.poll_next_unpin(context) {
                Poll::Ready(Some(message)) => {
                    let message = message?;
                    match &self.enough {
                        Some(enough) if message.says_enough() => {
                            enough.say();
                            self.leave();
                        }
                        _ => self.start(message),
                    }
                }
                Poll::Ready(None) => self.incoming = None,
                Poll::Pending => break,
            }
        }
        Ok(())
    }

    /// Stops everything that is in progress; nothing more is wanted.
    fn leave(&mut self) {
        self.incoming = None;
        self.single = FuturesOrdered::new();
        self.decoupled = SelectAll::new();
    }

    fn start(&mut self, message: ModelInferRequest) {
        let context = (self.make_context)(&message);
        let context = Context { enough: self.enough.clone(), ..context };
        let named = Named {
            model: message.model_name.clone(),
            version: message.model_version.clone(),
            id: message.id.clone(),
            labels: Labels::new(&message.model_name, &message.id, &context),
        };
        let mut work = work_on(&context);
        match admit(&*self.models, message, context) {
            Err(error) => {
                work.failed(error.code().name(), error.message());
                self.single.push_back(Box::pin(async { Err((error, named)) }));
            }
            Ok(admitted) if admitted.served.signature.is_decoupled => {
                self.decoupled.push(answers(admitted, named, work));
            }
            Ok(admitted) => self.single.push_back(Box::pin(answer(admitted, named, work))),
        }
    }

    fn poll_answer(&mut self, context: &mut TaskContext<'_>) -> Poll<Option<Answer>> {
        if let Poll::Ready(Some(answer)) = self.single.poll_next_unpin(context) {
            return Poll::Ready(Some(answer));
        }
        if let Poll::Ready(Some(answer)) = self.decoupled.poll_next_unpin(context) {
            return Poll::Ready(Some(answer));
        }
        let is_done =
            self.incoming.is_none() && self.single.is_empty() && self.decoupled.is_empty();
        if is_done { Poll::Ready(None) } else { Poll::Pending }
    }

    fn item(&mut self, answer: Answer) -> Item {
        match answer {
            Ok(response) => Ok(ModelStreamInferResponse::of(response)),
            Err((error, named)) if self.ends_with_error => Err(refused(&error, &named.labels)),
            Err((error, named)) => {
                // Logged here as elsewhere; the stream itself goes on.
                let Named { model, version, id, labels, .. } = named;
                drop(refused(&error, &labels));
                Ok(ModelStreamInferResponse::failed(&error, model, version, id))
            }
        }
    }
}

impl Stream for InferStream {
    type Item = Item;

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut TaskContext<'_>,
    ) -> Poll<Option<Self::Item>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        if let Err(status) = self.read(context) {
            self.is_over = true;
            return Poll::Ready(Some(Err(status)));
        }
        self.poll_answer(context).map(|answer| {
            let item = answer.map(|answer| self.item(answer));
            self.is_over = matches!(item, None | Some(Err(_)));
            item
        })
    }
}

/// Answers a request to a model that answers once.
async fn answer(admitted: Admitted, named: Named, mut work: WorkSpan) -> Answer {
    let Admitted { served, call } = admitted;
    let id = named.id.clone();
    let spent = call.request.context.spent.clone();
    let answered = match collect_one(served.stage.call(call.request)).await {
        Ok(response) => respond(&served, id, &call.classes, response),
        Err(error) => Err(error),
    };
    // Said at once: an answer that waits for those before it may never be read.
    end(&mut work, &answered);
    answered.map(|response| last(response, spent.as_deref())).map_err(|error| (error, named))
}

/// Answers a request to a decoupled model.
fn answers(admitted: Admitted, named: Named, mut work: WorkSpan) -> Answers {
    let Admitted { served, call } = admitted;
    let wants_empty_final = call.wants_empty_final;
    let marker = if wants_empty_final { end_marker() } else { Box::pin(futures::stream::empty()) };
    let mut has_ended = false;
    let spent = call.request.context.spent.clone();
    let responses = served.stage.call(call.request).chain(marker);
    let classes = call.classes;
    // The last response tells what the request spent, and no other.
    let mut untold = spent;
    Box::pin(responses.filter_map(move |response| {
        let only_says_end = response.as_ref().is_ok_and(|response| response.outputs.is_empty());
        let is_left_out = has_ended || only_says_end && !wants_empty_final;
        let answer = response.and_then(|response| {
            has_ended |= response.is_last;
            let is_last = response.is_last;
            let response = respond(&served, named.id.clone(), &classes, response)?;
            Ok(if is_last {
                last(response, untold.take().as_deref())
            } else {
                response.with_final(false)
            })
        });
        has_ended |= answer.is_err();
        if has_ended {
            end(&mut work, &answer);
        }
        let answer = answer.map_err(|error| (error, named.clone()));
        std::future::ready((!is_left_out).then_some(answer))
    }))
}

/// The span of a request while it is answered: the stream, and all in it, is dropped when its time
/// is over.
fn work_on(context: &Context) -> WorkSpan {
    WorkSpan::new(context.span.clone(), context.deadline)
}

/// Notes how the work on a request has ended.
fn end<T>(work: &mut WorkSpan, answer: &Result<T>) {
    match answer {
        Ok(_) => work.done(),
        Err(error) => work.failed(error.code().name(), error.message()),
    }
}

/// A request's last response, which tells what the request spent where somebody asked for it.
fn last(response: ModelInferResponse, spent: Option<&Spent>) -> ModelInferResponse {
    let response = response.with_final(true);
    match spent {
        Some(spent) => response.with_durations(&spent.durations()),
        None => response,
    }
}

/// The empty response that says that no other follows, for those who asked for it.
fn end_marker() -> Responses {
    one(async { Ok(Response { is_last: true, ..Response::default() }) })
}

fn respond(
    served: &Served,
    id: String,
    classes: &[(Arc<str>, usize)],
    mut response: Response,
) -> Result<ModelInferResponse> {
    classify_outputs(served, classes, &mut response)?;
    Ok(ModelInferResponse::of(&*served.name, served.version, id, response))
}
