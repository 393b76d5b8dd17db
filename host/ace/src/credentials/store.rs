//! What must survive the process: refresh tokens that replaced the configured ones, and tokens that are still good.

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;

use crate::config::Secret;
use ace_store::keyvalue::Keyvalue;

/// A durable store that no plugin can read. The errors contain no secret.
#[async_trait]
pub trait TokenStore: Send + Sync {
    /// The value of a name, unless it expired.
    ///
    /// # Errors
    /// The store cannot be read.
    async fn get(&self, name: &str, now: Timestamp) -> Result<Option<Secret>, String>;

    /// Stores a value durably, for `ttl` or for good.
    ///
    /// # Errors
    /// The store cannot be written.
    async fn put(&self, name: &str, value: &Secret, ttl: Option<Duration>, now: Timestamp) -> Result<(), String>;
}

/// The entries of the host, which no grant can name.
#[async_trait]
impl TokenStore for Keyvalue {
    async fn get(&self, name: &str, now: Timestamp) -> Result<Option<Secret>, String> {
        let value = self.host_entry(name, now).map_err(|e| e.to_string())?;
        Ok(value.and_then(|value| String::from_utf8(value).ok()).map(Secret::new))
    }

    async fn put(&self, name: &str, value: &Secret, ttl: Option<Duration>, now: Timestamp) -> Result<(), String> {
        self.set_host_entry(name, value.expose().as_bytes().to_vec(), ttl, now).await.map_err(|e| e.to_string())
    }
}
