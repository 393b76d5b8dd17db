//! `ace serve`: accepts messages over HTTP, stores them until they are settled, and sends them with the library [`ace`].
//!
//! A program that serves starts at [`App::start`]. Inside:
//!
//! - `app`: the composition root: starts and stops the engine, the queue, the workers and the HTTP server
//! - `http`: routes, scopes, bounded bodies, problem details
//! - [`intake`]: turns recipients into messages of the queue
//! - [`worker`]: claims, sends, settlements
//! - `events`: events about settled messages; webhooks
//! - `feedback`: what providers report after a delivery
//! - [`tokens`]: the file of token hashes
//! - `gauges`: the metrics of the queue
//! - [`service`]: the service manager (systemd): its socket, readiness, its watchdog

#![warn(missing_docs, unreachable_pub)]

mod app;
mod events;
mod feedback;
mod gauges;
mod http;
pub mod intake;
pub mod service;
pub mod tokens;
pub mod worker;

pub use app::{App, Ending, ServeError};
