//! The SDK for plugins of ACE, the automated communication engine, in Rust.
//!
//! A plugin is a WebAssembly component, and its exports define its kind: implement [`policy::Policy`], [`channel::Channel`],
//! [`recipient_resolver::RecipientResolver`] or [`feedback::Feedback`] for a type and pass the type to [`export_policy!`],
//! [`export_channel!`], [`export_recipient_resolver!`] or [`export_feedback!`]. One plugin may export several.
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
//! Its Cargo.toml has `crate-type = ["cdylib"]`, the target is wasm32-unknown-unknown, and the linker is `wasm-component-ld` of the
//! Rust toolchain, whose output is a component.
//!
//! The modules follow the interfaces of the WIT package openedx:ace:
//!
//! - traits that a plugin implements: [`policy`], [`channel`], [`recipient_resolver`], [`feedback`];
//! - values that it gets: [`Message`], [`Rendered`](channel::Rendered), [`Request`](feedback::Request);
//! - common functions of channels of the type `email`: [`email`]; of channels to devices: [`devices`];
//! - host functions that need no grant: [`Settings`] (checked by a [`SettingsReader`]), the log ([`debug!`], [`info!`], [`warn!`], [`error!`]), [`time`], [`random`],
//!   [`delivery`]; and those that need one: [`keyvalue`], [`http`], [`authorized_http`], [`signatures`], [`mailer`], [`outbox`].
//!
//! A component imports only the functions that it calls. They exist only in a host. In tests of a plugin (dev-dependencies with the
//! feature `testing`) a case simulates them, and `table_test!` runs the project's table of cases natively. Otherwise calling one
//! panics on any target except wasm32.
//!
//! Errors are one line each for operators. `?` converts each error type of this crate into a `String` (for
//! [`Policy`](policy::Policy)) and into a [`DeliveryError`](channel::DeliveryError) (for [`Channel`](channel::Channel)).
//!
//! A panic is logged with its location at the level ERROR before it traps.

#![deny(missing_docs)]

pub mod authorized_http;
mod bindings;
pub mod channel;
pub mod delivery;
pub mod devices;
pub mod email;
mod error;
#[doc(hidden)]
pub mod export;
pub mod feedback;
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
pub mod signatures;
#[cfg(all(feature = "testing", not(target_family = "wasm")))]
pub mod testing;
pub mod time;

pub use bindings::openedx::ace::common::{ChannelType, Json, Recipient, RecoverableError, Timestamp};
pub use bindings::openedx::ace::logging::Level;
pub use error::Error;
pub use logging::log;
pub use message::Message;
pub use settings::{Settings, SettingsReader};

/// The Rust code of docs/plugins.md, compiled.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/plugins.md")]
mod plugins {}
