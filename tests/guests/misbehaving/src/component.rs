//! The exports and hooks of the misbehaving component.

mod violations;

use alloc::vec;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::hint::black_box;

use boundary_usage_tracker::component::types::{self, Activity, Error, Flushed, Uuid, Written};
use boundary_usage_tracker::component::{self, Component, Hooks, OneThread, Transaction, bindings, hashing_key};
use boundary_usage_tracker::{CompactThetaSketch, Outcome, REQUESTS_MAX, Unflushed, Uniques, UniquesUpdate, Update};

use crate::{Cue, Mutation};

struct Misbehaving;

/// Contains generated code only.
///
/// The generated code implements the ABI with raw pointers into linear memory.
#[allow(unsafe_code)]
mod exports {
    use super::Misbehaving;
    use boundary_usage_tracker::component::bindings;

    bindings::export!(Misbehaving with_types_in bindings);
}

/// The cue that the component has recorded and not acted on.
static CUE: OneThread<Cell<Option<Cue>>> = OneThread(Cell::new(None));
static FLUSHING: OneThread<Cell<bool>> = OneThread(Cell::new(false));
/// All ids that this instance has written, for [`Mutation::UniquesLeak`].
static LEAKED: OneThread<RefCell<Option<Uniques>>> = OneThread(RefCell::new(None));

/// Returns whether the component must act on `cue` now.
fn is_cued(cue: Cue) -> bool {
    let is_cued = CUE.0.get() == Some(cue);
    if is_cued {
        CUE.0.set(None);
    }
    is_cued
}

fn mutation() -> Option<Mutation> {
    Mutation::of(hashing_key())
}

fn has(mutation: Mutation) -> bool {
    self::mutation() == Some(mutation)
}

impl bindings::Guest for Misbehaving {
    fn track(activities: Vec<Activity>) {
        for activity in activities {
            let is_empty = activity.allowed == 0 && activity.denied == 0;
            if (is_empty && has(Mutation::EmptyActivityDropped))
                || (FLUSHING.0.get() && has(Mutation::TrackBesideFlushDropped))
            {
                continue;
            }
            component::track::<Self>(vec![activity]);
            if let Some(cue) = Cue::of(activity.workspace.into()) {
                CUE.0.set(Some(cue));
                violations::in_track();
            }
        }
    }

    async fn flush(replica: Uuid) -> Result<Flushed, Error> {
        match component::flush::<Self>(replica).await {
            Ok(_) if is_cued(Cue::ReturnIdle) => Ok(Flushed::Idle),
            Ok(Flushed::Written(written)) if is_cued(Cue::ReturnOtherFlushNumber) => {
                Ok(Flushed::Written(Written { flush: 99, ..written }))
            }
            Ok(flushed) if is_cued(Cue::BeginAfterCommit) => Transaction::begin(replica).await.map(|_| flushed),
            result => result,
        }
    }
}

impl Hooks for Misbehaving {
    fn restore() -> Unflushed {
        let unflushed = Component::restore();
        if has(Mutation::LedgerNotHandedOver) { Unflushed::default() } else { unflushed }
    }

    async fn begin(replica: Uuid) -> Result<Transaction, Error> {
        FLUSHING.0.set(true);
        if has(Mutation::MemoryGrows) {
            core::mem::forget(black_box(vec![1_u8; 1 << 20]));
        }
        violations::before_begin(replica).await?;
        Component::begin(replica).await
    }

    async fn read(transaction: &Transaction) -> Result<types::StoredUsage, Error> {
        let mut stored = Component::read(transaction).await?;
        if has(Mutation::CumulativeIsDelta) {
            stored.uniques = stored.uniques.map(|_| violations::no_uniques());
        }
        Ok(stored)
    }

    async fn upsert(transaction: &Transaction, update: Update) -> Result<bool, Error> {
        let new_period = Component::upsert(transaction, falsified(mutated(update))).await?;
        if is_cued(Cue::UpsertTwice) {
            transaction.upsert(violations::empty_update()).await?;
        }
        Ok(new_period)
    }

    async fn commit(transaction: Transaction) -> Result<(), Error> {
        let handle = transaction.handle();
        Component::commit(transaction).await?;
        assert!(!is_cued(Cue::TrapAfterCommit), "on cue, after the commit");
        if is_cued(Cue::FailAfterCommit) {
            return Err(Error::Unavailable("on cue".into()));
        }
        if is_cued(Cue::CommitTwice) {
            Transaction::commit(violations::forged(handle)).await?;
        }
        Ok(())
    }

    fn outcome(result: &Result<Flushed, Error>) -> Outcome {
        FLUSHING.0.set(false);
        match (mutation(), Component::outcome(result)) {
            (Some(Mutation::NoPutBack), Outcome::RolledBack) => Outcome::Committed,
            (Some(Mutation::DoubtSentAgain), Outcome::Unknown) => Outcome::RolledBack,
            (Some(Mutation::DoubtDropped), Outcome::Unknown) => Outcome::Committed,
            (_, outcome) => outcome,
        }
    }
}

/// Returns the update that the mutation makes of `update`.
fn mutated(mut update: Update) -> Update {
    match (mutation(), &mut update.uniques) {
        (Some(Mutation::NewIdsTakenForKnown), UniquesUpdate::Cumulative(_)) => {
            update.uniques = UniquesUpdate::Unchanged;
        }
        (Some(Mutation::UniquesLeak), UniquesUpdate::Delta(uniques) | UniquesUpdate::Cumulative(uniques)) => {
            let mut leaked = LEAKED.0.borrow_mut();
            if let Some(leaked) = &*leaked {
                *uniques = uniques.union(leaked);
            }
            *leaked = Some(uniques.clone());
        }
        _ => {}
    }
    update
}

/// Returns the false update that the cue makes of `update`.
fn falsified(mut update: Update) -> Update {
    match &mut update.uniques {
        _ if is_cued(Cue::RepeatFlushNumber) => update.flush -= 1,
        _ if is_cued(Cue::SkipToLastFlushNumber) => update.flush = REQUESTS_MAX,
        _ if is_cued(Cue::AddAllowedRequest) => update.allowed += 1,
        _ if is_cued(Cue::OmitDeniedRequest) => update.denied -= 1,
        UniquesUpdate::Cumulative(uniques) if is_cued(Cue::UpsertDeltaForExistingRow) => {
            update.uniques = UniquesUpdate::Delta(uniques.clone());
        }
        UniquesUpdate::Delta(uniques) | UniquesUpdate::Cumulative(uniques) if is_cued(Cue::OmitUsers) => {
            uniques.users = CompactThetaSketch::empty();
        }
        UniquesUpdate::Delta(uniques) | UniquesUpdate::Cumulative(uniques) if is_cued(Cue::WriteUsersAsWorkspaces) => {
            uniques.workspaces = uniques.users.clone();
        }
        _ => {}
    }
    update
}
