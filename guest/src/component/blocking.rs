//! The world `tracker-blocking`, whose imports and `flush` are plain functions.
//!
//! This module wraps the imports in async functions that never wait. A flush is therefore complete after one poll.

use alloc::vec::Vec;
use core::pin::pin;
use core::task::{Context, Poll, Waker};

use super::Component;

/// Contains generated code only.
///
/// The generated code implements the ABI with raw pointers into linear memory.
#[allow(unsafe_code, missing_docs, unreachable_pub, clippy::all)]
pub mod bindings {
    wit_bindgen::generate!({ path: "../wit", world: "tracker-blocking" });

    export!(Component with_types_in self);

    use super::Component;
}

use bindings::boundary::usage::{locks_blocking as locks, transactions_blocking as transactions};

pub use bindings::boundary::usage::types;
pub use transactions::{hashing_key, restore};

impl bindings::Guest for Component {
    fn track(activities: Vec<types::Activity>) {
        super::track::<Self>(activities);
    }

    fn flush(replica: types::Uuid) -> Result<types::Flushed, types::Error> {
        let flush = pin!(super::flush::<Self>(replica));
        match flush.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(flushed) => flushed,
            Poll::Pending => unreachable!("the imports of this world never wait"),
        }
    }
}

pub struct Transaction(transactions::Transaction);

impl Transaction {
    pub async fn begin(replica: types::Uuid) -> Result<Self, types::Error> {
        transactions::Transaction::begin(replica).map(Self)
    }

    pub async fn read(&self) -> Result<types::StoredUsage, types::Error> {
        self.0.read()
    }

    pub async fn upsert(&self, update: types::Update) -> Result<bool, types::Error> {
        self.0.upsert(&update)
    }

    pub async fn commit(self) -> Result<(), types::Error> {
        transactions::Transaction::commit(self.0)
    }
}

pub async fn acquire(transaction: &Transaction, lock: types::Lock, mode: types::Mode) -> Result<(), types::Error> {
    locks::acquire(&transaction.0, lock, mode)
}
