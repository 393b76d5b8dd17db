//! Storage for ACE. This crate is below the library `ace` and the server: it knows neither messages nor plugins, and treats bodies,
//! progress and reports as bytes.
//!
//! Start at [`queue::Queue`].
//!
//! - [`queue`]: the durable queue: messages from acceptance to settlement, and for a retention period after that
//! - [`keyvalue`]: entries and counters that plugins share
//! - [`faults`]: injected faults, for tests
//! - [`files`]: atomic replacement of files, and their permissions
//! - [`lines`]: lines of limited length
//!
//! Both stores are SQLite databases; their common parts are in `sqlite`.

#![warn(missing_docs, unreachable_pub)]

#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
pub mod faults;
pub mod files;
pub mod keyvalue;
pub mod lines;
pub mod queue;
mod sqlite;

pub use ace_address::person;
