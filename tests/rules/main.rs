//! The rules that the tracker keeps, each as a test named after what it promises.

#![forbid(unsafe_code)]

/// What the component asks for and offers, and what a wrong one is told: R9.
mod contract;
/// What `track` and `flush` promise while they run beside each other: R1 to R4, R10, D2, D3, D5.
mod tracker;
