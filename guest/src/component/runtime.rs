//! What a standard library would bring along: an allocator, what becomes of a panic, and state that outlives a call.
//!
//! The component does without one. Nobody could read what it says of a panic, since a component without files has no standard
//! error stream; and to say it would be a quarter of the component.

#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

/// A panic is a trap, which the host contains.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    core::arch::wasm32::unreachable()
}

/// A value that only one thread can reach, since there is only one.
pub(crate) struct OneThread<T>(pub(crate) T);

#[cfg(target_feature = "atomics")]
compile_error!("a component with threads needs another way to keep its state");

// SAFETY: without the atomics of WebAssembly, an instance has one thread.
#[allow(unsafe_code)]
unsafe impl<T> Sync for OneThread<T> {}
