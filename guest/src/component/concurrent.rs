//! The world `tracker`, whose imports and `flush` are async. The host can call `track` while a flush waits.

use alloc::vec::Vec;

use super::Component;

/// Contains generated code only.
///
/// The generated code implements the ABI with raw pointers into linear memory.
#[allow(unsafe_code, missing_docs, unreachable_pub, clippy::all)]
pub mod bindings {
    wit_bindgen::generate!({ path: "../wit", world: "tracker", pub_export_macro: true });

    #[cfg(feature = "tracker")]
    export!(Component with_types_in self);

    #[cfg(feature = "tracker")]
    use super::Component;
}

pub use bindings::boundary::usage::locks::acquire;
pub use bindings::boundary::usage::transactions::{Transaction, hashing_key, restore};
pub use bindings::boundary::usage::types;

impl bindings::Guest for Component {
    fn track(activities: Vec<types::Activity>) {
        super::track::<Self>(activities);
    }

    async fn flush(replica: types::Uuid) -> Result<types::Flushed, types::Error> {
        super::flush::<Self>(replica).await
    }
}
