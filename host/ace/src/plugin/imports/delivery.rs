//! `delivery`: what a channel reports besides the result of `deliver`. It needs no grant.

use jiff::Timestamp;

use crate::message::Hold;
use crate::monitoring::digest::{self, Failure};
use crate::plugin::runtime::bindings::delivery::Host;
use crate::plugin::runtime::state::State;

impl Host for State {
    fn hold_channel(&mut self, until: Option<u64>, reason: String) -> wasmtime::Result<()> {
        self.count_host_call()?;
        if !self.is_delivery("hold-channel") {
            return Ok(());
        }
        let reason = match self.settings.clean(&reason) {
            reason if reason.trim().is_empty() => "the channel gave no reason".to_owned(),
            reason => reason,
        };
        let until = until.map(|ms| i64::try_from(ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok()));
        let until = until.map(|at| at.unwrap_or(Timestamp::MAX));
        self.traced(|| {
            format!("delivery.hold-channel {}: {reason}", until.map_or_else(String::new, |at| at.to_string()))
        });
        self.call.notes.hold = Some(Hold { until, reason });
        Ok(())
    }

    fn note_outcome(&mut self, outcome: String) -> wasmtime::Result<()> {
        self.count_host_call()?;
        if !self.is_delivery("note-outcome") {
            return Ok(());
        }
        self.traced(|| format!("delivery.note-outcome {outcome}"));
        if let Err(why) = self.call.notes.add(&outcome, &self.settings) {
            let text = self.settings.clean(&format!("note-outcome changed nothing: {why}"));
            self.services.world.logged("error", &text);
            let (source, message) = (self.settings.name.as_str(), self.call.message.as_ref().map(|m| m.uuid));
            digest::failed(&Failure { source, kind: "note", message, text: &text });
        }
        Ok(())
    }

    fn noted_outcomes(&mut self) -> wasmtime::Result<String> {
        self.count_host_call()?;
        Ok(self.call.notes.earlier_json())
    }
}

impl State {
    /// Whether this call is a `deliver`. Elsewhere the functions have no effect, which is logged once for an instance.
    fn is_delivery(&mut self, function: &str) -> bool {
        let is_delivery = self.call.delivery_key.is_some();
        if !is_delivery && !std::mem::replace(&mut self.noted_outside, true) {
            let plugin = self.settings.name.as_str();
            tracing::debug!(plugin, "{function} was called outside of deliver, where it has no effect.");
            self.services.world.logged("debug", &format!("{function} has no effect outside of deliver"));
        }
        is_delivery
    }
}
