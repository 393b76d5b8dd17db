//! ACE, an automated communication engine. An application submits messages to recipients. ACE evaluates policies, chooses channels,
//! renders templates, delivers, retries, and reports what happened to each message. Policies and channels are WebAssembly components
//! from a plugin folder.
//!
//! An application that embeds ACE starts with [`Ace::builder`], adds its own policies ([`policy::Policy`]) and channels
//! ([`channel::Channel`]), and sends with [`Ace::send`] or [`dispatch::run`]. See docs/embedding.md. [`internals`] is for the other
//! crates of this workspace.
//!
//! The modules that process a message, in order:
//!
//! - [`message`]: the values that modules exchange, including edx-ace's JSON form
//! - [`policy`]: evaluates policies and merges their verdicts
//! - [`channel`]: chooses the channel of a message
//! - `presentation`: renders templates
//! - `retry`: schedules the next attempt
//! - `pipeline`: the steps in order, for one message
//! - [`dispatch`]: many messages concurrently, in bounded memory
//!
//! Supporting modules:
//!
//! - `plugin`: the component runtime; `mailer` and [`ace_store::keyvalue`]: capabilities that plugins can be granted
//! - [`suppression`]: addresses to which nothing is sent
//! - [`config`]: `ace.toml`; `tls`: trusted certificates; `credentials`: what the host adds to requests of plugins; `engine`: builds
//!   and rebuilds everything; [`watch`]: reloads changed files; `monitoring`: log events and metrics; `tasks`: restarts failed tasks

#![warn(missing_docs, unreachable_pub)]

pub mod channel;
pub mod config;
mod credentials;
mod destination;
pub mod dispatch;
mod engine;
pub mod internals;
mod mailer;
pub mod message;
mod monitoring;
mod pipeline;
mod plugin;
pub mod policy;
mod presentation;
mod retry;
pub mod suppression;
mod tasks;
mod tls;
pub mod watch;

pub use config::{Compile, Config};
pub use engine::{Ace, Builder, Reload, StartError};
pub use message::{Message, MessageType, Outcome, Recipient, Report};
pub use pipeline::InFlight;
pub use plugin::loading::compiler::child::compile_child;

/// The Rust code of docs/embedding.md, compiled.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/embedding.md")]
mod embedding {}
