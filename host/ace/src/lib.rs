//! ACE: an automated communication engine. An application says "tell this person this"; ACE decides through policies
//! whether, and over which channels, renders the templates, delivers, retries, and can say what happened to each message.
//! Policies and channels are WebAssembly components from a plugin folder.
//!
//! A message's way, each step a module:
//!
//! - [`message`]: every value that crosses modules, edx-ace's JSON form among them
//! - [`policy`]: asks each policy and folds the verdicts
//! - [`channel`]: which channel carries a message
//! - [`presentation`]: the templates
//! - [`delivery`], [`retry`]: one attempt, and when the next one is
//! - [`pipeline`]: the steps in order, for one message
//! - [`dispatch`]: many messages at once, in bounded memory
//!
//! What serves them:
//!
//! - [`plugin`]: the component runtime; [`mailer`] and [`ace_store::keyvalue`]: what plugins may be granted
//! - [`config`]: `ace.toml`; [`tls`]: what is trusted; [`engine`]: builds everything, and builds it anew; [`watch`]: reloads
//!   what changes; [`monitoring`]: events and metrics; [`tasks`]: what is started again when it fails
//!
//! An application that embeds ACE starts at [`Ace::builder`].

pub mod channel;
pub mod config;
pub mod delivery;
pub mod destination;
pub mod dispatch;
pub mod engine;
pub mod mailer;
pub mod message;
pub mod monitoring;
pub mod pipeline;
pub mod plugin;
pub mod policy;
pub mod presentation;
pub mod retry;
pub mod tasks;
pub mod tls;
pub mod watch;

pub use config::{Compile, Config};
pub use engine::{Ace, StartError};
pub use message::{Message, MessageType, Outcome, Recipient, Report};
pub use plugin::compiler::child::compile_child;

/// The Rust code of docs/embedding.md, compiled.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/embedding.md")]
mod embedding {}
