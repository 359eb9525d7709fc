//! The process around the library: its signals stay alone, and its forks are detected.

use std::io;
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sys::signal::{SigSet, SigmaskHow, Signal};

/// The number of forks between the process that loaded the library and this one.
static FORKS: AtomicU32 = AtomicU32::new(0);

extern "C" fn count_fork() {
    FORKS.fetch_add(1, Ordering::Relaxed);
}

/// Identifies this process among its ancestors.
///
/// The number of forks costs one load. The id of the process would cost a system call.
pub(crate) fn generation() -> u32 {
    FORKS.load(Ordering::Relaxed)
}

/// Begins to count forks.
pub(crate) fn watch_forks() {
    static REGISTERED: Once = Once::new();
    REGISTERED.call_once(|| {
        // SAFETY: The handler adds to an atomic number, which is allowed after a fork.
        let error = unsafe { libc::pthread_atfork(None, None, Some(count_fork)) };
        assert_eq!(error, 0, "there is memory to register a handler of forks");
    });
}

/// The signals that a fault of the thread itself raises. If they were blocked, the process would end without its
/// handlers.
const FAULTS: [Signal; 6] =
    [Signal::SIGSEGV, Signal::SIGBUS, Signal::SIGFPE, Signal::SIGILL, Signal::SIGTRAP, Signal::SIGABRT];

/// Starts something that starts threads. They, and the threads that they start, receive no signals of the process.
///
/// Signals stay with the caller's threads. A broken connection to the database raises SIGPIPE, which would end the
/// process, and is an error of the write instead.
pub(crate) fn without_signals<T>(start: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let mut blocked = SigSet::all();
    FAULTS.into_iter().for_each(|fault| blocked.remove(fault));
    let previous = blocked.thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
    let started = start();
    previous.thread_set_mask()?;
    started
}
