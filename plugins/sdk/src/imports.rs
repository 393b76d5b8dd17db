//! The host's functions. Inside a host, and where no tests of plugins run, they are the WIT's own; in an author's tests they are
//! those of the world that a case lays down.

#[cfg(any(not(feature = "testing"), target_family = "wasm"))]
pub use crate::bindings::openedx::ace::{config, http, keyvalue, logging, mailer, messages, outbox, time_zones};
#[cfg(any(not(feature = "testing"), target_family = "wasm"))]
pub use crate::bindings::wasi::{clocks::wall_clock, random::random};

#[cfg(all(feature = "testing", not(target_family = "wasm")))]
pub use crate::testing::world::imports::{
    config, http, keyvalue, logging, mailer, messages, outbox, random, time_zones, wall_clock,
};
