//! The three inputs of the benchmark, which are the same for every contender.
//!
//! Ids are computed from a number in a few nanoseconds. `reference/main.go` computes the same ids.

use uuid::Uuid;

/// A sequence of activities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Input {
    /// 1,000 workspaces of 100 users, which is typical for a proxy.
    Hot,
    /// 1,000,000 workspaces in random order, each with its own user.
    Million,
    /// No id occurs twice.
    Adversarial,
}

impl Input {
    pub(crate) const ALL: [Self; 3] = [Self::Hot, Self::Million, Self::Adversarial];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Hot => "hot",
            Self::Million => "million",
            Self::Adversarial => "adversarial",
        }
    }

    /// Returns the number of activities of a round over all threads.
    ///
    /// These activities take about a tenth of a second.
    pub(crate) fn round(self) -> u64 {
        match self {
            Self::Hot => 4_000_000,
            Self::Million | Self::Adversarial => 1_000_000,
        }
    }

    /// Returns the workspace and the owner of the activity with this number.
    #[inline]
    pub(crate) fn ids(self, number: u64) -> (Uuid, Uuid) {
        match self {
            Self::Hot => {
                let workspace = mixed(number) % 1_000;
                (uuid(workspace), uuid(USERS + workspace % 100))
            }
            Self::Million => {
                let workspace = mixed(number) % 1_000_000;
                (uuid(workspace), uuid(USERS + workspace))
            }
            Self::Adversarial => (uuid(number), uuid(USERS + number)),
        }
    }
}

/// The first number of a user.
const USERS: u64 = 1 << 62;

#[inline]
fn uuid(number: u64) -> Uuid {
    Uuid::from_u64_pair(mixed(2 * number), mixed(2 * number + 1))
}

/// Returns one output of SplitMix64 (Steele, Lea and Flood, 2014).
#[inline]
fn mixed(number: u64) -> u64 {
    let mut word = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}
