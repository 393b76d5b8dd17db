//! What a plugin of ACE, the automated communication engine, needs when it is written in Rust.
//!
//! A plugin is a WebAssembly component. What it is follows from what it exports: implement [`policy::Policy`],
//! [`channel::Channel`] or [`recipient_resolver::RecipientResolver`] for a type and hand the type to
//! [`export_policy!`], [`export_channel!`] or [`export_recipient_resolver!`]. One plugin may export several.
//!
//! ```
//! use ace_plugin::policy::{Policy, PolicyResult};
//! use ace_plugin::{Message, Settings};
//!
//! struct Holiday;
//!
//! impl Policy for Holiday {
//!     fn check(message: &Message) -> Result<PolicyResult, String> {
//!         if message.is_transactional() || !Settings.get::<bool>("closed")?.unwrap_or(false) {
//!             return Ok(PolicyResult::pass());
//!         }
//!         Ok(PolicyResult::pass().deny("email", "we are on holiday"))
//!     }
//! }
//!
//! ace_plugin::export_policy!(Holiday);
//! ```
//!
//! Its Cargo.toml says `crate-type = ["cdylib"]`, the target is wasm32-unknown-unknown, and the linker of that target
//! is the Rust toolchain's own `wasm-component-ld`, which leaves a finished component.
//!
//! The modules follow the interfaces of the WIT package openedx:ace:
//!
//! - what a plugin implements: [`policy`], [`channel`], [`recipient_resolver`];
//! - what it is handed: [`Message`], [`Rendered`](channel::Rendered);
//! - what channels of the type `email` have in common: [`email`];
//! - what it may ask of the host without a grant: [`Settings`], the log ([`debug!`], [`info!`], [`warn!`], [`error!`]),
//!   [`time`], [`random`]; and with one: [`keyvalue`], [`http`], [`mailer`], [`outbox`].
//!
//! A component imports only what its code calls. The imports exist inside a host. In a plugin's own tests (dev-dependencies with
//! the feature `testing`) they ask the world that a case lays down, and `table_test!` runs the project's table of cases natively;
//! otherwise a call to one panics on any other target than wasm32.
//!
//! Errors are one line each for the operator. Each error type of this crate turns into a `String` (for
//! [`Policy`](policy::Policy)) and into a [`DeliveryError`](channel::DeliveryError) (for [`Channel`](channel::Channel)) by
//! `?`.
//!
//! A panic is logged at the level ERROR with its place before it traps.

#![deny(missing_docs)]

mod bindings;
pub mod channel;
pub mod email;
mod error;
#[doc(hidden)]
pub mod export;
pub mod http;
mod imports;
pub mod keyvalue;
mod logging;
pub mod mailer;
mod message;
pub mod outbox;
pub mod policy;
pub mod random;
pub mod recipient_resolver;
mod settings;
#[cfg(all(feature = "testing", not(target_family = "wasm")))]
pub mod testing;
pub mod time;

pub use bindings::openedx::ace::common::{ChannelType, Json, Recipient, RecoverableError, Timestamp};
pub use bindings::openedx::ace::logging::Level;
pub use error::Error;
pub use logging::log;
pub use message::Message;
pub use settings::Settings;

/// The Rust code of docs/plugins.md, compiled.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/plugins.md")]
mod plugins {}
