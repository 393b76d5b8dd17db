//! Running guests: each call is bounded in time, memory, output and log.
//!
//! - [`engine`]: the wasmtime engine and its ticker
//! - [`instance`]: the instances of one plugin, and bounded calls; [`state`]: what the host keeps for one instance and one call
//! - [`calls`]: the exported functions, with the host's own types
//! - [`circuit_breaker`]: stops calling a plugin that fails too often
//! - [`contacts`]: the destinations that a call contacted; [`notes`]: what it noted of its message's addresses
//! - [`world`]: what guests reach outside this process, and what may replace it
//! - [`bindings`]: the WIT as Rust; [`errors`]: formats wasmtime's errors and backtraces

pub(super) mod bindings;
mod calls;
pub(super) mod circuit_breaker;
pub(super) mod contacts;
pub(super) mod engine;
pub(super) mod errors;
pub mod instance;
pub(super) mod notes;
pub(super) mod state;
pub mod world;
