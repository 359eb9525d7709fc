//! The waiting activities of one shard, merged by pairs of workspace and owner.
//!
//! A proxy's activity comes from few pairs. Merging with a waiting activity is cheaper than adding a second one.
//! Merging changes no result, because the ids form sets and the counts are added up. A four-way cache finds waiting
//! pairs without probing or clearing. A pair that the cache has evicted waits twice, which costs a little time.
//! Colliding ids that an attacker chose have no worse effect.

use uuid::Uuid;

use crate::activity::Activity;

/// The number of cache sets. The table and the activities of a thousand pairs together fit into a core's private cache.
const SETS: usize = 2_048;

/// The number of pairs per set. With only two pairs per set, the cache would evict about thirty of a thousand active
/// pairs.
const WAYS: usize = 4;

/// The number of high bits of a hash that select the set.
const SET_BITS: u32 = SETS.trailing_zeros();

#[derive(Default)]
pub(super) struct Pairs {
    waiting: Vec<Activity>,
    /// For each set, the positions in `waiting` of its latest pairs. A position may belong to an earlier buffer, so
    /// `merge` compares the pair there. The table is allocated at first use to keep an idle tracker small.
    places: Box<[[u32; WAYS]]>,
}

impl Pairs {
    /// Adds the counts to a waiting activity of the same pair, and returns whether the cache found one.
    pub(super) fn merge(&mut self, activity: &Activity) -> bool {
        let Some(set) = self.places.get(set_of(activity)) else { return false };
        let (workspace, owner) = (bits(activity.workspace), bits(activity.owner));
        let waiting = &self.waiting;
        let is_same = |position: &u32| {
            let same = waiting.get(*position as usize);
            same.is_some_and(|same| bits(same.workspace) == workspace && bits(same.owner) == owner)
        };
        let [first, second, third, fourth] = set;
        let position = if is_same(first) {
            first
        } else if is_same(second) {
            second
        } else if is_same(third) {
            third
        } else if is_same(fourth) {
            fourth
        } else {
            return false;
        };
        let same = &mut self.waiting[*position as usize];
        same.allowed = same.allowed.saturating_add(activity.allowed);
        same.denied = same.denied.saturating_add(activity.denied);
        true
    }

    /// Appends an activity. In the cache, the activity's pair replaces the oldest pair of the same set.
    pub(super) fn push(&mut self, activity: Activity) {
        if self.places.is_empty() {
            self.places = vec![[u32::MAX; WAYS]; SETS].into();
        }
        let set = &mut self.places[set_of(&activity)];
        // A position beyond 32 bits is not cached.
        set.rotate_right(1);
        set[0] = u32::try_from(self.waiting.len()).unwrap_or(u32::MAX);
        self.waiting.push(activity);
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Swaps the waiting activities with an empty buffer.
    pub(super) fn swap(&mut self, buffer: &mut Vec<Activity>) {
        debug_assert!(buffer.is_empty(), "the worker has forwarded the previous batch");
        std::mem::swap(&mut self.waiting, buffer);
    }
}

/// Returns an id as one number, which is compared in fewer instructions than its bytes.
fn bits(id: Uuid) -> u128 {
    u128::from_ne_bytes(id.into_bytes())
}

/// Returns the cache set of a pair, by two folded 128-bit multiplications. Sequential ids spread as well as random
/// ones.
///
/// The constants are digits of π.
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
    fn equal_pairs_merge_and_add_their_counts() {
        let mut pairs = Pairs::default();
        for (workspace, owner) in [(1, 1), (1, 2), (2, 1), (1, 1), (2, 1), (1, 1)] {
            add(&mut pairs, activity(workspace, owner));
        }
        let mut batch = Vec::new();
        pairs.swap(&mut batch);
        let counts: Vec<_> = batch.iter().map(|activity| (activity.allowed, activity.denied)).collect();
        assert_eq!(counts, [(6, 3), (2, 1), (4, 2)]);
    }

    #[test]
    fn activities_never_merge_into_an_earlier_batch() {
        let (mut pairs, mut batch) = (Pairs::default(), Vec::new());
        add(&mut pairs, activity(1, 1));
        pairs.swap(&mut batch);
        add(&mut pairs, activity(2, 2));
        add(&mut pairs, activity(1, 1));
        assert_eq!((batch.len(), batch[0].allowed, pairs.len()), (1, 2, 2));
    }

    #[test]
    fn counts_saturate() {
        let mut pairs = Pairs::default();
        add(&mut pairs, Activity { allowed: u64::MAX, ..activity(1, 1) });
        add(&mut pairs, activity(1, 1));
        assert_eq!((pairs.waiting[0].allowed, pairs.waiting[0].denied), (u64::MAX, 2));
    }

    #[test]
    fn a_thousand_pairs_seldom_wait_twice() {
        let mut pairs = Pairs::default();
        for _ in 0..100 {
            (0..1_000).for_each(|id| add(&mut pairs, activity(id << 64 | 7, id % 100)));
        }
        assert!(pairs.len() < 1_100, "{} activities wait for 1,000 pairs", pairs.len());
    }

    #[test]
    fn colliding_pairs_wait_twice_and_lose_nothing() {
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
