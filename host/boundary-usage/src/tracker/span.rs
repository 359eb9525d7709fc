//! The span of a flush: what a trace shows of it. One for each flush, idle ones too.

use tracing::Span;
use tracing::field::Empty;
use uuid::Uuid;

use crate::error::{Error, chain};
use crate::records::Flushed;

/// Begins the span; its number and outcome come with its end.
pub(super) fn of_flush(replica: Uuid) -> Span {
    tracing::info_span!("flush", %replica, flush = Empty, outcome = Empty, error = Empty)
}

/// Records how the flush ended. The outer error is the component's end.
pub(super) fn end(span: &Span, flushed: &Result<Result<Flushed, Error>, Error>) {
    let (outcome, flush) = match flushed {
        Ok(Ok(Flushed::Idle)) => ("idle", None),
        Ok(Ok(Flushed::Confirmed { flush })) => ("confirmed", Some(*flush)),
        Ok(Ok(Flushed::Written { flush, .. })) => ("written", Some(*flush)),
        Ok(Err(Error::CommitUnknown { .. })) => ("unknown", None),
        Ok(Err(_)) => ("failed", None),
        Err(_) => ("broke", None),
    };
    span.record("outcome", outcome);
    if let Some(flush) = flush {
        span.record("flush", flush);
    }
    if let Ok(Err(error)) | Err(error) = flushed {
        span.record("error", chain(error));
    }
}
