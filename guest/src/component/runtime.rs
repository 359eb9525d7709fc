//! The allocator, the panic handler and the static state, which a standard library would provide.
//!
//! The component has no standard library. A component without files has no standard error stream, so a panic message
//! would reach no reader, and the code for it would be a quarter of the component.

#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

/// Turns a panic into a trap, which the host contains.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    core::arch::wasm32::unreachable()
}

/// A static value of a program that has one thread.
pub struct OneThread<T>(pub T);

#[cfg(target_feature = "atomics")]
compile_error!("OneThread is unsound in a component with threads");

// SAFETY: An instance without WebAssembly atomics has one thread.
#[allow(unsafe_code)]
unsafe impl<T> Sync for OneThread<T> {}
