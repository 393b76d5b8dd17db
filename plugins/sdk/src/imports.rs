//! The host's functions: those of the WIT, or in native tests of a plugin those that a case simulates.

#[cfg(any(not(feature = "testing"), target_family = "wasm"))]
pub use crate::bindings::openedx::ace::{
    authorized_http, config, delivery, http, incoming, keyvalue, logging, mailer, messages, outbox, signatures,
    time_zones,
};
#[cfg(any(not(feature = "testing"), target_family = "wasm"))]
pub use crate::bindings::wasi::{clocks::wall_clock, random::random};

#[cfg(all(feature = "testing", not(target_family = "wasm")))]
pub use crate::testing::world::imports::{
    authorized_http, config, delivery, http, incoming, keyvalue, logging, mailer, messages, outbox, random, signatures,
    time_zones, wall_clock,
};
