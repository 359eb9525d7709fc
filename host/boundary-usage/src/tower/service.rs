//! The service of a layer and its response future.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::{Request, Response};
use pin_project_lite::pin_project;
use tower_service::Service;

use super::recorder::Recorder;
use super::{Decision, Identity};

/// A service with tracked requests.
#[derive(Clone)]
pub struct Usage<S> {
    inner: S,
    recorder: Arc<Recorder>,
}

impl<S> Usage<S> {
    pub(super) fn new(inner: S, recorder: Arc<Recorder>) -> Self {
        Self { inner, recorder }
    }
}

impl<S, B, R> Service<Request<B>> for Usage<S>
where
    S: Service<Request<B>, Response = Response<R>>,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (parts, body) = request.into_parts();
        let identity = (self.recorder.identify)(&parts);
        if identity.is_none() {
            self.recorder.record_unidentified();
        }
        let pending = identity.map(|identity| Pending { identity, decided: None, recorder: self.recorder.clone() });
        ResponseFuture { response: self.inner.call(Request::from_parts(parts, body)), pending }
    }
}

pin_project! {
    /// The future of a response.
    ///
    /// The future tracks the request when it completes or is dropped.
    pub struct ResponseFuture<F> {
        #[pin]
        response: F,
        pending: Option<Pending>,
    }
}

impl<F, R, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let result = ready!(this.response.poll(context));
        let Some(mut pending) = this.pending.take() else { return Poll::Ready(result) };
        Poll::Ready(result.map(|response| {
            let (parts, body) = response.into_parts();
            pending.decided = Some((pending.recorder.decide)(&parts));
            Response::from_parts(parts, body)
        }))
    }
}

/// An identified request that is not tracked yet.
///
/// Dropping this value tracks the request. So a response, an error and a disconnected client all count.
struct Pending {
    identity: Identity,
    decided: Option<Decision>,
    recorder: Arc<Recorder>,
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.recorder.record(self.identity, self.decided.unwrap_or(Decision::Allowed));
    }
}
