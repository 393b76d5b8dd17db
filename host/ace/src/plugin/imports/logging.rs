//! `logging`: lines in the host's log, each with the plugin's name and the message's uuid.

use crate::monitoring::digest::{self, Failure};
use crate::plugin::runtime::bindings::logging::{Host, Level};
use crate::plugin::runtime::state::State;

impl Host for State {
    fn log(&mut self, level: Level, line: String) -> wasmtime::Result<()> {
        self.count_host_call()?;
        let max = self.settings.limits.log_bytes;
        let before = self.call.log_bytes;
        self.call.log_bytes = before.saturating_add(line.len());
        let (plugin, message_uuid) = (self.settings.name.as_str(), self.message_uuid());
        let message = self.call.message.as_ref().map(|message| message.uuid);
        if self.call.log_bytes > max {
            if before <= max {
                let text = format!("The plugin logs more than {max} bytes in one call; the rest is dropped.");
                digest::failed(&Failure { source: plugin, kind: "log", message, text: &text });
            }
            return Ok(());
        }
        // Control characters would let a guest forge lines.
        let text = self.settings.cut(&line, max);
        self.services.world.logged(word(level), &text);
        match level {
            Level::Debug => tracing::debug!(plugin, message_uuid, "{text}"),
            Level::Info => tracing::info!(plugin, message_uuid, "{text}"),
            Level::Warn => tracing::warn!(plugin, message_uuid, "{text}"),
            Level::Error => tracing::error!(plugin, message_uuid, "{text}"),
        }
        Ok(())
    }
}

fn word(level: Level) -> &'static str {
    match level {
        Level::Debug => "debug",
        Level::Info => "info",
        Level::Warn => "warn",
        Level::Error => "error",
    }
}
