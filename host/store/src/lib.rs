//! What ACE keeps on the disk. A leaf below the library `ace` and the server: it knows neither messages nor plugins, and takes bodies,
//! progress and reports as bytes.
//!
//! Start at [`queue::Queue`].
//!
//! - [`queue`]: messages from the moment they are accepted until they are settled, and for a while after that
//! - [`keyvalue`]: entries and counters that plugins share
//! - [`files`]: files written as a whole or not at all, and who may read them
//! - [`person`]: one form of a user id and of an address, by which people are found
//!
//! Both stores are SQLite databases; what is the same for them is in `sqlite`.

#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
pub mod files;
pub mod keyvalue;
pub mod person;
pub mod queue;
mod sqlite;
