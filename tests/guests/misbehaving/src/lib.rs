//! A component that misbehaves on cue, so that tests can observe how its host reacts.
//!
//! It is the released component with two additions. A [`Cue`] makes it misbehave once: it traps, violates its contract,
//! or writes a false update. A [`Mutation`] removes one protection for as long as it runs. On other targets than
//! WebAssembly the crate contains the names of both, for the tests.

#![deny(unsafe_code)]
#![cfg_attr(target_family = "wasm", no_std)]

#[cfg(target_family = "wasm")]
extern crate alloc;

#[cfg(target_family = "wasm")]
mod component;
mod cue;
mod mutation;

pub use cue::Cue;
pub use mutation::Mutation;

/// Declares an enum without fields, and the list of its variants.
macro_rules! enumeration {
    ($(#[$attribute:meta])* pub enum $name:ident { $($(#[$documentation:meta])* $variant:ident,)* }) => {
        $(#[$attribute])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name {
            $($(#[$documentation])* $variant,)*
        }

        impl $name {
            /// All variants, in the order of their declaration.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Returns the variant with this index in [`Self::ALL`].
            #[allow(dead_code)]
            fn at(index: u64) -> Option<Self> {
                Self::ALL.get(usize::try_from(index).ok()?).copied()
            }
        }
    };
}
use enumeration;
