//! What waits in one shard: an activity for each pair of workspace and owner, as far as a small table remembers them.
//!
//! A proxy's activity comes from few pairs, again and again. To add to the one that waits already is cheaper than all that
//! would follow, and changes nothing: ids are sets, and counts are sums. The table is a cache of four ways, with nothing to
//! probe and nothing to clear: a pair that it has forgotten waits twice, which costs a little time, and so do ids that
//! somebody chose to collide.

use crate::activity::Activity;

/// How many sets the table has. Together with the activities of a thousand pairs it stays in a core's own cache.
const SETS: usize = 2_048;

/// How many pairs each set remembers. Of a thousand pairs that come in turn, a cache of two ways would forget thirty.
const WAYS: usize = 4;

/// The set's place is in this many high bits of a hash.
const SET_BITS: u32 = SETS.trailing_zeros();

#[derive(Default)]
pub(super) struct Pairs {
    waiting: Vec<Activity>,
    /// For each set the positions in `waiting` of the pairs that came last. A position says nothing before it is compared
    /// with what waits there: it may be one of an earlier buffer. Made at first use, so that an idle tracker is small.
    places: Box<[[u32; WAYS]]>,
}

impl Pairs {
    /// Adds the counts to those of the same pair, if it waits and is remembered.
    pub(super) fn merge(&mut self, activity: &Activity) -> bool {
        let Some(set) = self.places.get(set_of(activity)) else { return false };
        for position in set {
            let Some(same) = self.waiting.get_mut(*position as usize) else { continue };
            if same.workspace == activity.workspace && same.owner == activity.owner {
                same.allowed = same.allowed.saturating_add(activity.allowed);
                same.denied = same.denied.saturating_add(activity.denied);
                return true;
            }
        }
        false
    }

    /// Appends an activity, and remembers its pair in place of the oldest one of its set.
    pub(super) fn push(&mut self, activity: Activity) {
        if self.places.is_empty() {
            self.places = vec![[u32::MAX; WAYS]; SETS].into();
        }
        let set = &mut self.places[set_of(&activity)];
        // A position beyond 32 bits is not remembered.
        set.rotate_right(1);
        set[0] = u32::try_from(self.waiting.len()).unwrap_or(u32::MAX);
        self.waiting.push(activity);
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Takes all that waits; `buffer`, empty, takes its place.
    pub(super) fn swap(&mut self, buffer: &mut Vec<Activity>) {
        debug_assert!(buffer.is_empty(), "what was taken before has been handed on");
        std::mem::swap(&mut self.waiting, buffer);
    }
}

/// Two multiplications to 128 bits, folded: ids that count up spread as well as random ones. The constants are digits of π.
fn set_of(activity: &Activity) -> usize {
    fn fold(left: u64, right: u64) -> u64 {
        let product = u128::from(left) * u128::from(right);
        (product >> 64) as u64 ^ product as u64
    }
    let (high, low) = activity.workspace.as_u64_pair();
    let workspace = fold(high ^ 0x243f_6a88_85a3_08d3, low ^ 0x1319_8a2e_0370_7344);
    let (high, low) = activity.owner.as_u64_pair();
    let pair = fold(high ^ workspace, low ^ 0xa409_3822_299f_31d0);
    (pair >> (u64::BITS - SET_BITS)) as usize
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn activity(workspace: u128, owner: u128) -> Activity {
        Activity { workspace: Uuid::from_u128(workspace), owner: Uuid::from_u128(owner), allowed: 2, denied: 1 }
    }

    fn add(pairs: &mut Pairs, activity: Activity) {
        if !pairs.merge(&activity) {
            pairs.push(activity);
        }
    }

    #[test]
    fn equal_pairs_wait_as_one_with_the_sum_of_their_counts() {
        let mut pairs = Pairs::default();
        for (workspace, owner) in [(1, 1), (1, 2), (2, 1), (1, 1), (2, 1), (1, 1)] {
            add(&mut pairs, activity(workspace, owner));
        }
        let mut taken = Vec::new();
        pairs.swap(&mut taken);
        let counts: Vec<_> = taken.iter().map(|activity| (activity.allowed, activity.denied)).collect();
        assert_eq!(counts, [(6, 3), (2, 1), (4, 2)]);
    }

    #[test]
    fn what_was_taken_is_not_added_to_any_more() {
        let (mut pairs, mut taken) = (Pairs::default(), Vec::new());
        add(&mut pairs, activity(1, 1));
        pairs.swap(&mut taken);
        add(&mut pairs, activity(2, 2));
        add(&mut pairs, activity(1, 1));
        assert_eq!((taken.len(), taken[0].allowed, pairs.len()), (1, 2, 2));
    }

    #[test]
    fn counts_saturate() {
        let mut pairs = Pairs::default();
        add(&mut pairs, Activity { allowed: u64::MAX, ..activity(1, 1) });
        add(&mut pairs, activity(1, 1));
        assert_eq!((pairs.waiting[0].allowed, pairs.waiting[0].denied), (u64::MAX, 2));
    }

    #[test]
    fn a_thousand_pairs_hardly_ever_wait_twice() {
        let mut pairs = Pairs::default();
        for _ in 0..100 {
            (0..1_000).for_each(|id| add(&mut pairs, activity(id << 64 | 7, id % 100)));
        }
        assert!(pairs.len() < 1_100, "{} wait for 1,000 pairs", pairs.len());
    }

    #[test]
    fn pairs_that_collide_wait_more_than_once_and_lose_nothing() {
        let mut pairs = Pairs::default();
        let colliding = (0..).map(|id| activity(id, 1)).filter(|activity| set_of(activity) == 0).take(WAYS + 1);
        let colliding: Vec<_> = colliding.collect();
        for _ in 0..10 {
            colliding.iter().for_each(|activity| add(&mut pairs, *activity));
        }
        assert_eq!(pairs.waiting.iter().map(|activity| activity.allowed).sum::<u64>(), 2 * 10 * (WAYS as u64 + 1));
        assert!(pairs.len() > colliding.len());
    }
}
