//! Generated code only: the contract in `wit/` as Rust types, functions and traits.

#![allow(missing_docs, unreachable_pub, clippy::all)]

wasmtime::component::bindgen!({
    path: "wit",
    world: "tracker",
    imports: { default: trappable },
    exports: { "track": async | store },
    with: { "boundary:usage/transactions.transaction": crate::plugin::transaction::Transaction },
});
