//! The allocator, the panic handler and the static state, which a standard library would provide.
//!
//! The component has no standard library. It also has no standard error stream, so a panic message would reach no
//! reader. The code for such messages would make up a quarter of the component's size.

#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

/// Turns a panic into a trap, which the host contains.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    core::arch::wasm32::unreachable()
}

/// Makes a value usable as a `static` in a single-threaded program.
pub struct OneThread<T>(pub T);

#[cfg(target_feature = "atomics")]
compile_error!("OneThread is unsound in a component with threads");

// SAFETY: An instance without WebAssembly atomics has one thread.
#[allow(unsafe_code)]
unsafe impl<T> Sync for OneThread<T> {}
