//! The validate: what was accepted, what may be lost, and whether the database says the same.
//!
//! For each replica the model keeps what was accepted, in order. Whatever fails, what a replica has in the database is the
//! beginning of that sequence: a flush carries all that came before it and is not there yet. So each commit must carry the
//! next stretch of it, exactly; that also says in which period each activity is, and the summaries must agree.
//!
//! When a process dies, what only its memory held is *doomed*: it may be missing, and only a commit that the dead process
//! had already sent may still bring it.
//!
//! When the server forgets commits, the model returns to that state with it. A replica that has learned of such a commit has
//! nothing left to send: all that the commit carried may be missing. One that has not learned of it must send all of it again.

use std::collections::{BTreeMap, BTreeSet};

use boundary_usage::{Activity, HashingKey, Sketch, Summary, Uniques, UniquesUpdate, Update};
use boundary_usage_tracker as tracker;
use uuid::Uuid;

pub(super) struct Model {
    key: HashingKey,
    replicas: BTreeMap<Uuid, Sequence>,
    open: Period,
    violations: Vec<String>,
}

/// What one replica accepted, over all its processes.
#[derive(Default)]
struct Sequence {
    accepted: Vec<Accepted>,
    /// The first that is not in the database.
    next: usize,
    /// The number of its process.
    process: u32,
    last_flush: u64,
    /// Which of its commits was applied last, counted over all of them, forgotten ones too.
    last_commit: u64,
    commits: u64,
    /// The latest commit that one of its processes knows to be applied.
    learned: u64,
    /// Its ids in the open period.
    ids: Ids,
}

struct Accepted {
    activity: Activity,
    process: u32,
    doomed: bool,
    /// The commit that has carried it.
    counted: Option<u64>,
    /// The commit that had carried it, until the server forgot that; its replica had learned of it.
    forgotten: Option<u64>,
}

impl Accepted {
    /// Whether it has to be in the database in the end.
    fn is_owed(&self) -> bool {
        !self.doomed && self.forgotten.is_none()
    }
}

/// What the model returns to when the server forgets commits.
pub(super) struct Past {
    open: Period,
    replicas: BTreeMap<Uuid, PastSequence>,
}

#[derive(Default)]
struct PastSequence {
    next: usize,
    last_flush: u64,
    last_commit: u64,
    ids: Ids,
}

/// What a period holds.
#[derive(Clone, Default)]
struct Period {
    ids: Ids,
    allowed: u64,
    denied: u64,
    replicas: BTreeSet<Uuid>,
}

#[derive(Clone, Default, PartialEq)]
struct Ids {
    workspaces: BTreeSet<Uuid>,
    users: BTreeSet<Uuid>,
}

impl Ids {
    fn insert(&mut self, activity: &Activity) {
        self.workspaces.insert(activity.workspace);
        self.users.insert(activity.owner);
    }

    fn extend(&mut self, other: &Self) {
        self.workspaces.extend(&other.workspaces);
        self.users.extend(&other.users);
    }

    /// Whether the update makes exactly these and those more of the sketches.
    fn become_with(&self, more: &Self, key: HashingKey, update: &UniquesUpdate) -> bool {
        let mut all = self.clone();
        all.extend(more);
        match update {
            UniquesUpdate::Delta(uniques) | UniquesUpdate::Cumulative(uniques) => all.are(key, uniques),
            UniquesUpdate::Unchanged => all == *self,
        }
    }

    /// Whether these are exactly the ids in the sketches.
    fn are(&self, key: HashingKey, uniques: &Uniques) -> bool {
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
        Self { key, replicas: BTreeMap::new(), open: Period::default(), violations: Vec::new() }
    }

    /// What does not hold.
    pub(super) fn violations(&self) -> &[String] {
        &self.violations
    }

    /// Something does not hold.
    pub(super) fn violated(&mut self, violation: String) {
        self.violations.push(violation);
    }

    /// A replica's `track` has accepted an activity.
    pub(super) fn accepted(&mut self, replica: Uuid, activity: Activity) {
        let sequence = self.replicas.entry(replica).or_default();
        let process = sequence.process;
        sequence.accepted.push(Accepted { activity, process, doomed: false, counted: None, forgotten: None });
    }

    /// How much a replica has accepted.
    pub(super) fn accepted_so_far(&self, replica: Uuid) -> usize {
        self.replicas.get(&replica).map_or(0, |sequence| sequence.accepted.len())
    }

    /// A flush that was asked for when so much was accepted has succeeded: all of that must be in the database.
    pub(super) fn flushed(&mut self, replica: Uuid, accepted: usize) {
        let Some(sequence) = self.replicas.get(&replica) else { return };
        let before = sequence.accepted.iter().take(accepted).skip(sequence.next);
        let missing = before.filter(|accepted| accepted.counted.is_none() && accepted.is_owed()).count();
        if missing > 0 {
            self.violated(format!("{replica}: a flush succeeded, and {missing} accepted before it are not there"));
        }
    }

    /// The replica's process is gone. The first `kept` of what it accepted survive in its checkpoint, and its next process
    /// must bring them; of the rest, what is not in the database is doomed.
    pub(super) fn process_ended(&mut self, replica: Uuid, kept: usize) {
        let sequence = self.replicas.entry(replica).or_default();
        sequence.process += 1;
        let from = sequence.next.max(kept);
        sequence.accepted[from..].iter_mut().for_each(|accepted| accepted.doomed = true);
    }

    /// A transaction of this process of the replica has been applied.
    pub(super) fn committed(&mut self, replica: Uuid, process: u32, update: &Update) {
        let key = self.key;
        let sequence = self.replicas.entry(replica).or_default();
        if update.flush <= sequence.last_flush {
            let number = update.flush;
            self.violations.push(format!("{replica}: flush {number} came after flush {}", sequence.last_flush));
        }
        sequence.last_flush = update.flush;
        sequence.commits += 1;
        sequence.last_commit = sequence.commits;
        let Some(ids) = sequence.take(key, process, update) else {
            self.violations.push(format!(
                "{replica}: flush {} carries A{} D{} and ids, which is not what comes after the first {} that it accepted",
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

    /// A replica knows which of its commits was applied last.
    pub(super) fn learned(&mut self, replica: Uuid) {
        let sequence = self.replicas.entry(replica).or_default();
        sequence.learned = sequence.learned.max(sequence.last_commit);
    }

    /// The state before a commit.
    pub(super) fn past(&self) -> Past {
        let past = |sequence: &Sequence| PastSequence {
            next: sequence.next,
            last_flush: sequence.last_flush,
            last_commit: sequence.last_commit,
            ids: sequence.ids.clone(),
        };
        let replicas = self.replicas.iter().map(|(replica, sequence)| (*replica, past(sequence)));
        Past { open: self.open.clone(), replicas: replicas.collect() }
    }

    /// The server has forgotten all that came after that state.
    pub(super) fn forgotten(&mut self, past: Past) {
        self.open = past.open;
        for (replica, sequence) in &mut self.replicas {
            sequence.forget(past.replicas.get(replica).unwrap_or(&PastSequence::default()));
        }
    }

    /// A collection has been applied.
    pub(super) fn collected(&mut self, summary: &Summary) {
        let period = std::mem::take(&mut self.open);
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

    /// The end: everything was flushed and collected.
    pub(super) fn ended(&mut self, periods: &[Summary]) {
        let mut counted = (0, 0);
        for (replica, sequence) in &self.replicas {
            let missing = sequence.accepted.iter().filter(|one| one.counted.is_none() && one.is_owed()).count();
            if missing > 0 {
                self.violations.push(format!("{replica}: {missing} of what it accepted were never counted"));
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
            self.violated(format!("all periods together have (A, D) {found:?}, accepted were {counted:?}"));
        }
    }
}

impl Sequence {
    /// The commits since then are no longer in the database.
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

    /// Finds the stretch that an update carries, and moves on behind it; returns its ids.
    fn take(&mut self, key: HashingKey, process: u32, update: &Update) -> Option<Ids> {
        let forgotten: BTreeSet<_> = self.accepted[self.next..].iter().filter_map(|one| one.forgotten).collect();
        let forgotten: Vec<_> = forgotten.into_iter().collect();
        // A flush that the server forgot is sent again as a whole or not at all.
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
        let mut stretch = Vec::new();
        for (index, accepted) in self.accepted.iter().enumerate().skip(self.next) {
            // A process knows what it accepted itself, and what its predecessors left behind.
            if accepted.process > process || allowed > update.allowed {
                break;
            }
            let is_doomed = accepted.doomed && accepted.process < process;
            if is_doomed || accepted.counted.is_some() || accepted.forgotten.is_some_and(&is_left_out) {
                continue;
            }
            stretch.push(index);
            ids.insert(&accepted.activity);
            allowed += accepted.activity.allowed;
            denied += accepted.activity.denied;
            if (allowed, denied) == (update.allowed, update.denied) && self.ids.become_with(&ids, key, &update.uniques)
            {
                stretch.iter().for_each(|index| self.accepted[*index].counted = Some(self.last_commit));
                self.next = index + 1;
                return Some(ids);
            }
        }
        None
    }
}
