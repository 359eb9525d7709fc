//! The contract in `wit/` as Rust types, functions and traits. All code here is generated.

#![allow(missing_docs, unreachable_pub, clippy::all)]

wasmtime::component::bindgen!({
    path: "wit",
    world: "tracker",
    imports: { default: trappable },
    exports: { "track": async | store },
    trappable_error_type: { "boundary:usage/types.error" => crate::capabilities::CallError },
    with: { "boundary:usage/transactions.transaction": crate::capabilities::Transaction },
});
