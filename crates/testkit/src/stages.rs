//! Stages that stand in for models.

use std::sync::Arc;

use consort_stage::{Error, Request, Response, Responses, Result, Stage, Tensor, fail, one};
use futures::{StreamExt, stream};

/// A stage from what it does with a call.
struct Fake<F>(F);

impl<F: Fn(Request) -> Responses + Send + Sync + 'static> Stage for Fake<F> {
    fn call(&self, request: Request) -> Responses {
        (self.0)(request)
    }
}

fn fake(call: impl Fn(Request) -> Responses + Send + Sync + 'static) -> Arc<dyn Stage> {
    Arc::new(Fake(call))
}

/// A stage that answers once, with the tensors that `answer` makes of the request.
pub fn answering(
    answer: impl Fn(Request) -> Result<Vec<Tensor>> + Send + Sync + 'static,
) -> Arc<dyn Stage> {
    let answer = Arc::new(answer);
    fake(move |request| {
        let answer = answer.clone();
        one(async move { answer(request).map(Response::only) })
    })
}

/// A stage that gives its inputs back, renamed in order to `outputs`; what is left out stays out.
pub fn identity(pairs: &[(&str, &str)]) -> Arc<dyn Stage> {
    let own = |(input, output): &(&str, &str)| (Arc::from(*input), Arc::from(*output));
    let pairs: Vec<(Arc<str>, Arc<str>)> = pairs.iter().map(own).collect();
    answering(move |request| {
        let given = pairs.iter().filter_map(|(input, output)| {
            Some(request.input(input)?.clone().renamed(output.clone()))
        });
        Ok(given.collect())
    })
}

/// A decoupled stage that gives each of `answers` in turn, made when it is asked for; the last
/// one is known to be the last.
pub fn many<I>(answers: impl Fn(Request) -> I + Send + Sync + 'static) -> Arc<dyn Stage>
where
    I: IntoIterator<Item = Vec<Tensor>>,
    I::IntoIter: Send + 'static,
{
    let answers = Arc::new(answers);
    fake(move |request| {
        let answers = answers.clone();
        let begun = stream::once(async move { answers(request).into_iter() });
        Box::pin(begun.flat_map(|answers| {
            let mut answers = answers.peekable();
            stream::iter(std::iter::from_fn(move || {
                let outputs = answers.next()?;
                let is_last = answers.peek().is_none();
                Some(Ok(Response { outputs, is_last, ..Response::default() }))
            }))
        }))
    })
}

/// A stage that fails every call.
pub fn failing(error: &Error) -> Arc<dyn Stage> {
    let error = error.clone();
    fake(move |_| fail(error.clone()))
}

/// A stage that never answers.
pub fn silent() -> Arc<dyn Stage> {
    fake(|_| Box::pin(stream::pending()))
}
