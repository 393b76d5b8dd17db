//! `ace serve`: takes messages over HTTP, keeps them until they are settled, and sends them with the library [`ace`].
//!
//! - [`app`]: the composition root: starts and stops the engine, the queue, the workers and the HTTP server
//! - [`http`]: routes, scopes, bounded bodies, problem details
//! - [`intake`]: how recipients become messages of the queue
//! - [`worker`]: claims, sends, settlements
//! - [`events`]: what is told of a settled message; webhooks
//! - [`tokens`]: the file of token hashes

pub mod app;
pub mod events;
mod gauges;
pub mod http;
pub mod intake;
pub mod tokens;
pub mod worker;
