//! The comparison of a component's updates and results with the host's ledger.
//!
//! The ledger runs the same tracker natively, so both must agree in every byte. If they differ, the component is
//! faulty, and a new instance that starts from the ledger replaces it.

use crate::error::Error;
use crate::ledger::FlushEnd;
use crate::records::{Flushed, Sketch, Uniques, UniquesUpdate, Update};

/// Returns the planned update of the ledger if the component's update is the same.
///
/// # Errors
///
/// Returns a text that names the first difference.
pub(super) fn validate_update(planned: Option<Update>, update: Update) -> Result<Update, String> {
    let Some(planned) = planned else {
        return Err("its update is false: this flush has nothing to write by the host's ledger".into());
    };
    let difference = match (&planned.uniques, &update.uniques) {
        _ if planned.flush != update.flush => Some(unequal("flush", planned.flush, update.flush)),
        _ if planned.allowed != update.allowed => Some(unequal("allowed", planned.allowed, update.allowed)),
        _ if planned.denied != update.denied => Some(unequal("denied", planned.denied, update.denied)),
        (UniquesUpdate::Delta(planned), UniquesUpdate::Delta(uniques))
        | (UniquesUpdate::Cumulative(planned), UniquesUpdate::Cumulative(uniques)) => {
            difference_of_uniques(planned, uniques)
        }
        (UniquesUpdate::Unchanged, UniquesUpdate::Unchanged) => None,
        (planned, uniques) => {
            let change = |uniques: &UniquesUpdate| match uniques {
                UniquesUpdate::Delta(_) => "delta",
                UniquesUpdate::Cumulative(_) => "cumulative",
                UniquesUpdate::Unchanged => "unchanged",
            };
            Some(format!("the unique sets are {} instead of {}", change(uniques), change(planned)))
        }
    };
    match difference {
        None => Ok(planned),
        Some(difference) => Err(format!("its update of flush {} is false: {difference}", planned.flush)),
    }
}

fn difference_of_uniques(planned: &Uniques, uniques: &Uniques) -> Option<String> {
    let sets = [("workspaces", &planned.workspaces, &uniques.workspaces), ("users", &planned.users, &uniques.users)];
    let differs = |(name, planned, set): (&str, &Sketch, &Sketch)| match planned == set {
        true => None,
        false if planned.count != set.count => Some(unequal(name, planned.count, set.count)),
        false => Some(format!("the sketch of {name} differs")),
    };
    sets.into_iter().find_map(differs)
}

fn unequal(name: &str, planned: u64, written: u64) -> String {
    format!("{name} is {written} instead of {planned}")
}

/// Checks that a flush ended as the component reports. `is_due` is whether there was anything to flush.
///
/// # Errors
///
/// Returns [`Error::Component`] if the flush ended differently according to the ledger.
pub(crate) fn validate_result(end: FlushEnd, flushed: &Result<Flushed, Error>, is_due: bool) -> Result<(), Error> {
    if end.agrees_with(flushed, is_due) {
        return Ok(());
    }
    let reported = match flushed {
        Ok(Flushed::Idle) => "had nothing to do".into(),
        Ok(Flushed::Confirmed { flush }) => format!("found flush {flush} applied"),
        Ok(Flushed::Written { flush, .. }) => format!("has written flush {flush}"),
        Err(error) => format!("failed ({error})"),
    };
    let message = format!(
        "the component crashed and is replaced by a new instance: it reported that its flush {reported}, which is false"
    );
    Err(Error::Component { message, source: None })
}
