//! The functions that guests can call, one file for each interface. Each checks [`Grants`](super::grants::Grants) first.

mod authorized_http;
mod config;
mod delivery;
pub mod http;
mod incoming;
mod keyvalue;
mod logging;
mod mailer;
mod messages;
mod outbox;
mod poll;
mod signatures;
mod time_zones;

use wasmtime::component::{HasSelf, Linker};

use super::runtime::bindings;
use super::runtime::state::State;
use crate::monitoring::digest;

impl bindings::common::Host for State {}

/// The linker of all plugins. All of WASI is linked, but only clocks and random numbers work.
pub(super) fn linker(engine: &wasmtime::Engine) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    linker.allow_shadowing(true);
    wasmtime_wasi::p2::bindings::io::poll::add_to_linker::<_, HasSelf<State>>(&mut linker, |s| s)?;
    linker.allow_shadowing(false);
    http::wasi::add_to_linker(&mut linker)?;
    bindings::common::add_to_linker::<_, HasSelf<State>>(&mut linker, |s| s)?;
    bindings::messages::add_to_linker::<_, HasSelf<State>>(&mut linker, |s| s)?;
    bindings::config::add_to_linker::<_, HasSelf<State>>(&mut linker, |s| s)?;
    bindings::logging::add_to_linker::<_, HasSelf<State>>(&mut linker, |s| s)?;
    bindings::keyvalue::add_to_linker::<_, HasSelf<State>>(&mut linker, |s| s)?;
    bindings::http::add_to_linker::<_, HasSelf<State>>(&mut linker, |s| s)?;
    bindings::authorized_http::add_to_linker::<_, HasSelf<State>>(&mut linker, |s| s)?;
    bindings::signatures::add_to_linker::<_, HasSelf<State>>(&mut linker, |s| s)?;
    bindings::mailer::add_to_linker::<_, HasSelf<State>>(&mut linker, |s| s)?;
    bindings::outbox::add_to_linker::<_, HasSelf<State>>(&mut linker, |s| s)?;
    bindings::delivery::add_to_linker::<_, HasSelf<State>>(&mut linker, |s| s)?;
    bindings::time_zones::add_to_linker::<_, HasSelf<State>>(&mut linker, |s| s)?;
    bindings::incoming::add_to_linker::<_, HasSelf<State>>(&mut linker, |s| s)?;
    Ok(linker)
}

impl State {
    /// Runs host work with the guest's clock stopped.
    async fn outside<T>(&mut self, work: impl AsyncFnOnce(&mut State) -> T) -> T {
        self.call.enter_host();
        // Boxed: a future is copied into each one that wraps it, and the guest's call is wrapped many times.
        let answer = Box::pin(work(self)).await;
        self.call.leave_host();
        answer
    }

    /// Reports a host call to the world, for its trace.
    fn traced(&self, line: impl Fn() -> String) {
        self.services.world.traced(&line);
    }

    /// Records and logs a denied call. Returns the reason for the guest.
    fn refuse(&mut self, capability: &str, why: String) -> String {
        if self.call.denied.len() < DENIALS_KEPT_MAX {
            // Part of the text may come from the guest.
            let text = self.settings.clean(&format!("{capability}: {why}"));
            let (source, message) = (self.settings.name.as_str(), self.call.message.as_ref().map(|m| m.uuid));
            let line = format!("A host call was denied: {text}");
            digest::failed(&digest::Failure { source, kind: "denied", message, text: &line });
            self.call.denied.push(text);
        }
        why
    }

    fn message_uuid(&self) -> Option<tracing::field::DisplayValue<uuid::Uuid>> {
        self.call.message.as_ref().map(|m| tracing::field::display(m.uuid))
    }
}

/// Denied host calls of one call that are logged and recorded for the timeline.
const DENIALS_KEPT_MAX: usize = 16;
