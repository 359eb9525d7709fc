//! Database work that is never dropped halfway.
//!
//! If a call's future is dropped before its end, the state of the connection is unknown. A crash of the component drops
//! the futures of all its calls. Therefore a task finishes the work of a dropped future.
//!
//! It would be simpler to run all work as tasks. But each call would then wake another thread and later the calling
//! thread again, which takes longer than the call itself.

use std::panic::{self, AssertUnwindSafe};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::runtime::Handle;

/// Database work, which the caller polls in the context of the database's runtime.
///
/// If this future is dropped before its end, a task of that runtime finishes the work.
pub(super) struct DatabaseWork<T: Send + 'static> {
    runtime: Handle,
    /// `None` after the work has ended.
    work: Option<Pin<Box<dyn Future<Output = T> + Send>>>,
}

/// The work panicked.
#[derive(Debug)]
pub(super) struct Panicked;

impl<T: Send + 'static> DatabaseWork<T> {
    pub(super) fn new(runtime: Handle, work: impl Future<Output = T> + Send + 'static) -> Self {
        Self { runtime, work: Some(Box::pin(work)) }
    }
}

impl<T: Send + 'static> Future for DatabaseWork<T> {
    type Output = Result<T, Panicked>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { runtime, work } = &mut *self;
        let running = work.as_mut().expect("a future is not polled after its end");
        // The connections and timers of the work belong to the database's runtime, which outlives the tracker.
        let _entered = runtime.enter();
        let polled = panic::catch_unwind(AssertUnwindSafe(|| running.as_mut().poll(context)));
        if !matches!(polled, Ok(Poll::Pending)) {
            *work = None;
        }
        match polled {
            Ok(polled) => polled.map(Ok),
            Err(_) => Poll::Ready(Err(Panicked)),
        }
    }
}

impl<T: Send + 'static> Drop for DatabaseWork<T> {
    fn drop(&mut self) {
        if let Some(work) = self.work.take() {
            self.runtime.spawn(work);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::oneshot;
    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn work_that_is_dropped_before_its_end_is_finished_by_a_task() {
        let (release, released) = oneshot::channel::<()>();
        let (end, ended) = oneshot::channel();
        let work = DatabaseWork::new(Handle::current(), async move {
            released.await.unwrap();
            end.send("finished").unwrap();
        });
        assert!(timeout(Duration::from_millis(1), work).await.is_err());
        release.send(()).unwrap();
        assert_eq!(ended.await, Ok("finished"));
    }

    #[tokio::test]
    async fn work_that_was_never_polled_is_finished_too() {
        let (end, ended) = oneshot::channel();
        drop(DatabaseWork::new(Handle::current(), async move { end.send("finished").unwrap() }));
        assert_eq!(ended.await, Ok("finished"));
    }

    #[tokio::test]
    async fn a_panic_of_the_work_is_a_result() {
        let work = DatabaseWork::new(Handle::current(), async { panic!("a driver's bug") });
        assert!(matches!(work.await, Err::<(), _>(Panicked)));
    }

    #[test]
    fn work_runs_in_the_context_of_the_databases_runtime() {
        let databases = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let trackers = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let id = databases.handle().id();
        let work = DatabaseWork::new(databases.handle().clone(), async { Handle::current().id() });
        assert_eq!(trackers.block_on(work).unwrap(), id);
    }
}
