//! The model of a run, which checks that the database contains all activity.
//!
//! For each replica the model has the sequence of accepted activities. Each flush carries all of them that the database
//! does not contain yet. So the database always contains the beginning of the sequence, and each commit must carry
//! exactly the next part. This also determines the period of each activity, and the summaries must agree.
//!
//! When a process is killed, the activity that was only in its memory is *doomed*. It may be missing. Only a commit
//! that the process sent before its end may still contain it.
//!
//! When the server forgets commits, the model returns to the same state. If the replica had learned the outcome of such
//! a commit, it no longer has the activity, which may then be missing. Otherwise it must send the activity again.

use std::collections::{BTreeMap, BTreeSet};

use boundary_usage::{Activity, Day, HashingKey, Sketch, Summary, Uniques, UniquesUpdate, Update};
use boundary_usage_tracker as tracker;
use chrono::NaiveDate;
use uuid::Uuid;

use super::days::Days;

pub(super) struct Model {
    key: HashingKey,
    replicas: BTreeMap<Uuid, Sequence>,
    open: Period,
    days: Days,
    violations: Vec<String>,
}

/// The activity that one replica accepted, over all its processes.
#[derive(Default)]
struct Sequence {
    accepted: Vec<Accepted>,
    /// The index of the first activity that is not in the database.
    next: usize,
    /// The number of its current process.
    process: u32,
    last_flush: u64,
    /// The number of the commit that was applied last.
    last_commit: u64,
    /// The number of its commits, including forgotten ones.
    commits: u64,
    /// The number of the last commit whose success one of its processes has learned.
    learned: u64,
    /// Its ids in the open period.
    ids: Ids,
}

struct Accepted {
    activity: Activity,
    process: u32,
    doomed: bool,
    /// The number of the commit that carried it, if that commit is in the database.
    counted: Option<u64>,
    /// The number of the forgotten commit that carried it, if its replica had learned of the commit.
    forgotten: Option<u64>,
}

impl Accepted {
    /// Returns whether the database must contain it at the end.
    fn is_owed(&self) -> bool {
        !self.doomed && self.forgotten.is_none()
    }
}

/// The state that the model restores when the server forgets commits.
pub(super) struct Past {
    open: Period,
    days: Days,
    replicas: BTreeMap<Uuid, PastSequence>,
}

#[derive(Default)]
struct PastSequence {
    next: usize,
    last_flush: u64,
    last_commit: u64,
    ids: Ids,
}

/// The usage in a period.
#[derive(Clone, Default)]
pub(super) struct Period {
    pub(super) ids: Ids,
    pub(super) allowed: u64,
    pub(super) denied: u64,
    pub(super) replicas: BTreeSet<Uuid>,
}

#[derive(Clone, Default, PartialEq)]
pub(super) struct Ids {
    workspaces: BTreeSet<Uuid>,
    users: BTreeSet<Uuid>,
}

impl Ids {
    fn insert(&mut self, activity: &Activity) {
        self.workspaces.insert(activity.workspace);
        self.users.insert(activity.owner);
    }

    pub(super) fn extend(&mut self, other: &Self) {
        self.workspaces.extend(&other.workspaces);
        self.users.extend(&other.users);
    }

    /// Returns whether the update's sketches contain exactly these ids and `more`.
    fn become_with(&self, more: &Self, key: HashingKey, update: &UniquesUpdate) -> bool {
        let mut all = self.clone();
        all.extend(more);
        match update {
            UniquesUpdate::Delta(uniques) | UniquesUpdate::Cumulative(uniques) => all.are(key, uniques),
            UniquesUpdate::Unchanged => all == *self,
        }
    }

    /// Returns whether the sketches contain exactly these ids.
    pub(super) fn are(&self, key: HashingKey, uniques: &Uniques) -> bool {
        sketch(key, &self.workspaces) == uniques.workspaces && sketch(key, &self.users) == uniques.users
    }
}

fn sketch(key: HashingKey, ids: &BTreeSet<Uuid>) -> Sketch {
    let mut set = tracker::ThetaSketch::new();
    ids.iter().for_each(|id| set.insert(key, id.as_u128()));
    Sketch { count: ids.len() as u64, bytes: set.compact().to_bytes() }
}

impl Model {
    pub(super) fn new(key: HashingKey) -> Self {
        let (replicas, open, days) = Default::default();
        Self { key, replicas, open, days, violations: Vec::new() }
    }

    /// Returns the violations of the promise.
    pub(super) fn violations(&self) -> &[String] {
        &self.violations
    }

    /// Records a violation of the promise.
    pub(super) fn violated(&mut self, violation: String) {
        self.violations.push(violation);
    }

    /// Records an accepted activity of a replica.
    pub(super) fn accepted(&mut self, replica: Uuid, activity: Activity) {
        let sequence = self.replicas.entry(replica).or_default();
        let process = sequence.process;
        sequence.accepted.push(Accepted { activity, process, doomed: false, counted: None, forgotten: None });
    }

    /// Returns the number of activities that a replica has accepted.
    pub(super) fn accepted_so_far(&self, replica: Uuid) -> usize {
        self.replicas.get(&replica).map_or(0, |sequence| sequence.accepted.len())
    }

    /// Checks a successful flush.
    ///
    /// The database must contain the first `accepted` activities of the replica.
    pub(super) fn flushed(&mut self, replica: Uuid, accepted: usize) {
        let Some(sequence) = self.replicas.get(&replica) else { return };
        let before = sequence.accepted.iter().take(accepted).skip(sequence.next);
        let missing = before.filter(|accepted| accepted.counted.is_none() && accepted.is_owed()).count();
        if missing > 0 {
            self.violated(format!(
                "{replica}: a flush succeeded without {missing} activities that were accepted before it"
            ));
        }
    }

    /// Records the end of a replica's process.
    ///
    /// The first `kept` activities survive in its checkpoint, so its next process must flush them. The others are
    /// doomed if they are not in the database.
    pub(super) fn process_ended(&mut self, replica: Uuid, kept: usize) {
        let sequence = self.replicas.entry(replica).or_default();
        sequence.process += 1;
        let from = sequence.next.max(kept);
        sequence.accepted[from..].iter_mut().for_each(|accepted| accepted.doomed = true);
    }

    /// Records and checks a commit of this process of the replica.
    pub(super) fn committed(&mut self, replica: Uuid, process: u32, update: &Update) {
        let key = self.key;
        let sequence = self.replicas.entry(replica).or_default();
        if update.flush <= sequence.last_flush {
            let number = update.flush;
            self.violations.push(format!("{replica}: flush {number} was applied after flush {}", sequence.last_flush));
        }
        sequence.last_flush = update.flush;
        sequence.commits += 1;
        sequence.last_commit = sequence.commits;
        let Some(ids) = sequence.take(key, process, update) else {
            self.violations.push(format!(
                "{replica}: flush {} has A{} D{} and ids that differ from the activities after the first {}",
                update.flush, update.allowed, update.denied, sequence.next
            ));
            return;
        };
        sequence.ids.extend(&ids);
        self.open.ids.extend(&ids);
        self.open.allowed += update.allowed;
        self.open.denied += update.denied;
        self.open.replicas.insert(replica);
    }

    /// Records that a replica has learned which of its commits was applied last.
    pub(super) fn learned(&mut self, replica: Uuid) {
        let sequence = self.replicas.entry(replica).or_default();
        sequence.learned = sequence.learned.max(sequence.last_commit);
    }

    /// Returns the current state, for [`Self::forgotten`].
    pub(super) fn past(&self) -> Past {
        let past = |sequence: &Sequence| PastSequence {
            next: sequence.next,
            last_flush: sequence.last_flush,
            last_commit: sequence.last_commit,
            ids: sequence.ids.clone(),
        };
        let replicas = self.replicas.iter().map(|(replica, sequence)| (*replica, past(sequence)));
        Past { open: self.open.clone(), days: self.days.clone(), replicas: replicas.collect() }
    }

    /// Restores a state, because the server has forgotten all later commits.
    pub(super) fn forgotten(&mut self, past: Past) {
        self.open = past.open;
        self.days = past.days;
        for (replica, sequence) in &mut self.replicas {
            sequence.forget(past.replicas.get(replica).unwrap_or(&PastSequence::default()));
        }
    }

    /// Checks the summary of a collection, and begins the next period.
    pub(super) fn collected(&mut self, summary: &Summary) {
        let period = std::mem::take(&mut self.open);
        self.days.add(summary.period_start.date_naive(), &period);
        self.replicas.values_mut().for_each(|sequence| sequence.ids = Ids::default());
        let expected = (
            period.ids.workspaces.len() as u64,
            period.ids.users.len() as u64,
            period.allowed,
            period.denied,
            period.replicas.len() as u64,
        );
        let found = (
            summary.unique_workspaces,
            summary.unique_users,
            summary.allowed_requests,
            summary.denied_requests,
            summary.replicas,
        );
        if expected != found {
            let id = summary.period_id;
            self.violated(format!("period {id} has (W, U, A, D, rows) {found:?} instead of {expected:?}"));
        }
    }

    /// Checks the days of the history.
    pub(super) fn check_days(&mut self, found: &BTreeMap<NaiveDate, Day>) {
        self.violations.extend(self.days.violations(self.key, found));
    }

    /// Checks the periods at the end of a run, when all activity was flushed and collected.
    pub(super) fn ended(&mut self, periods: &[Summary]) {
        let mut counted = (0, 0);
        for (replica, sequence) in &self.replicas {
            let missing = sequence.accepted.iter().filter(|one| one.counted.is_none() && one.is_owed()).count();
            if missing > 0 {
                self.violations.push(format!("{replica}: {missing} accepted activities were never counted"));
            }
            for Accepted { activity, .. } in
                sequence.accepted.iter().filter(|one| one.counted.is_some() || one.is_owed())
            {
                counted.0 += activity.allowed;
                counted.1 += activity.denied;
            }
        }
        let allowed: u64 = periods.iter().map(|period| period.allowed_requests).sum();
        let denied: u64 = periods.iter().map(|period| period.denied_requests).sum();
        if (allowed, denied) != counted {
            let found = (allowed, denied);
            self.violated(format!("all periods together have (A, D) {found:?} instead of {counted:?}"));
        }
    }
}

impl Sequence {
    /// Restores the state before commits that the server has forgotten.
    fn forget(&mut self, past: &PastSequence) {
        let (process, learned) = (self.process, self.learned);
        let later = |one: &&mut Accepted| one.counted.is_some_and(|commit| commit > past.last_commit);
        for accepted in self.accepted[past.next..].iter_mut().filter(later) {
            let commit = accepted.counted.take();
            accepted.forgotten = commit.filter(|commit| *commit <= learned);
            accepted.doomed |= accepted.process < process;
        }
        self.next = past.next;
        self.last_flush = past.last_flush;
        self.last_commit = past.last_commit;
        self.ids = past.ids.clone();
    }

    /// Marks the activities that an update carries as counted, and returns their ids.
    ///
    /// Returns `None` if no part of the sequence matches the update.
    fn take(&mut self, key: HashingKey, process: u32, update: &Update) -> Option<Ids> {
        let forgotten: BTreeSet<_> = self.accepted[self.next..].iter().filter_map(|one| one.forgotten).collect();
        let forgotten: Vec<_> = forgotten.into_iter().collect();
        // A forgotten flush is sent again completely or not at all, so try all combinations.
        (0..1_usize << forgotten.len()).find_map(|choice| {
            let is_left_out =
                |flush| forgotten.iter().position(|one| *one == flush).is_some_and(|at| choice >> at & 1 == 0);
            self.take_without(key, process, update, is_left_out)
        })
    }

    fn take_without(
        &mut self,
        key: HashingKey,
        process: u32,
        update: &Update,
        is_left_out: impl Fn(u64) -> bool,
    ) -> Option<Ids> {
        let (mut ids, mut allowed, mut denied) = (Ids::default(), 0, 0);
        let mut carried = Vec::new();
        for (index, accepted) in self.accepted.iter().enumerate().skip(self.next) {
            // A process flushes only its own activities and those of its predecessors.
            if accepted.process > process || allowed > update.allowed {
                break;
            }
            let is_doomed = accepted.doomed && accepted.process < process;
            if is_doomed || accepted.counted.is_some() || accepted.forgotten.is_some_and(&is_left_out) {
                continue;
            }
            carried.push(index);
            ids.insert(&accepted.activity);
            allowed += accepted.activity.allowed;
            denied += accepted.activity.denied;
            if (allowed, denied) == (update.allowed, update.denied) && self.ids.become_with(&ids, key, &update.uniques)
            {
                carried.iter().for_each(|index| self.accepted[*index].counted = Some(self.last_commit));
                self.next = index + 1;
                return Some(ids);
            }
        }
        None
    }
}
