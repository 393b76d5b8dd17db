//! `config`: the plugin's own settings and secrets.

use serde_json::Value;

use crate::plugin::runtime::bindings::config::Host;
use crate::plugin::runtime::state::State;

impl Host for State {
    fn get(&mut self, key: String) -> wasmtime::Result<Option<String>> {
        self.count_host_call()?;
        if let Some(secret) = self.settings.secrets.get(&key) {
            return Ok(Some(secret.expose().to_owned()));
        }
        Ok(self.settings.config.get(&key).map(|value| match value {
            Value::String(s) => s.clone(),
            other => other.to_string(),
        }))
    }
}
