//! ACE: an automated communication engine. An application says "tell this person this"; ACE decides through policies
//! whether, and over which channels, renders the templates, delivers, retries, and can say what happened to each message.
//! Policies and channels are WebAssembly components from a plugin folder.
//!
//! An application that embeds ACE starts at [`Ace::builder`], gives it policies ([`policy::Policy`]) and channels
//! ([`channel::Channel`]) of its own, and sends with [`Ace::send`] or [`dispatch::run`]; docs/embedding.md shows it. What is in
//! [`internals`] is for the other crates of this workspace.
//!
//! A message's way, each step a module:
//!
//! - [`message`]: every value that crosses modules, edx-ace's JSON form among them
//! - [`policy`]: asks each policy and folds the verdicts
//! - [`channel`]: which channel carries a message
//! - `presentation`: the templates
//! - `retry`: when the next attempt is
//! - `pipeline`: the steps in order, for one message
//! - [`dispatch`]: many messages at once, in bounded memory
//!
//! What serves them:
//!
//! - `plugin`: the component runtime; `mailer` and [`ace_store::keyvalue`]: what plugins may be granted
//! - [`config`]: `ace.toml`; `tls`: what is trusted; `engine`: builds everything, and builds it anew; [`watch`]: reloads
//!   what changes; `monitoring`: events and metrics; `tasks`: what is started again when it fails

#![warn(missing_docs, unreachable_pub)]

pub mod channel;
pub mod config;
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
