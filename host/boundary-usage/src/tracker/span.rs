//! The trace span of a flush. Idle flushes have a span, too.

use tracing::Span;
use tracing::field::Empty;
use uuid::Uuid;

use crate::error::{Error, chain};
use crate::records::Flushed;

/// Begins the span. [`end`] adds the flush number and the outcome.
pub(super) fn of_flush(replica: Uuid) -> Span {
    tracing::info_span!("flush", %replica, flush = Empty, outcome = Empty, error = Empty)
}

/// Records the outcome of the flush. An outer error means that the component crashed.
pub(super) fn end(span: &Span, flushed: &Result<Result<Flushed, Error>, Error>) {
    let (outcome, flush) = match flushed {
        Ok(Ok(Flushed::Idle)) => ("idle", None),
        Ok(Ok(Flushed::Confirmed { flush })) => ("confirmed", Some(*flush)),
        Ok(Ok(Flushed::Written { flush, .. })) => ("written", Some(*flush)),
        Ok(Err(Error::CommitUnknown { .. })) => ("unknown", None),
        Ok(Err(_)) => ("failed", None),
        Err(_) => ("crashed", None),
    };
    span.record("outcome", outcome);
    if let Some(flush) = flush {
        span.record("flush", flush);
    }
    if let Ok(Err(error)) | Err(error) = flushed {
        span.record("error", chain(error));
    }
}
