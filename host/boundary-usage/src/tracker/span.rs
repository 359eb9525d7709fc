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

/// Records the result of the flush.
pub(super) fn end(span: &Span, flushed: &Result<Flushed, Error>) {
    let (outcome, flush) = match flushed {
        Ok(Flushed::Idle) => ("idle", None),
        Ok(Flushed::Confirmed { flush }) => ("confirmed", Some(*flush)),
        Ok(Flushed::Written { flush, .. }) => ("written", Some(*flush)),
        Err(Error::CommitUnknown { .. }) => ("unknown", None),
        Err(Error::Component { .. }) => ("crashed", None),
        Err(_) => ("failed", None),
    };
    span.record("outcome", outcome);
    if let Some(flush) = flush {
        span.record("flush", flush);
    }
    if let Err(error) = flushed {
        span.record("error", chain(error));
    }
}
