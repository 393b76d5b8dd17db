//! The host's functions: those of the WIT, or in native tests of a plugin those that a case simulates.

#[cfg(any(not(feature = "testing"), target_family = "wasm"))]
pub use crate::bindings::openedx::ace::{config, http, keyvalue, logging, mailer, messages, outbox, time_zones};
#[cfg(any(not(feature = "testing"), target_family = "wasm"))]
pub use crate::bindings::wasi::{clocks::wall_clock, random::random};

#[cfg(all(feature = "testing", not(target_family = "wasm")))]
pub use crate::testing::world::imports::{
    config, http, keyvalue, logging, mailer, messages, outbox, random, time_zones, wall_clock,
};
