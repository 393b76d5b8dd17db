//! What can be down or held as a whole: relays, HTTP origins, channels.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A relay, an HTTP origin, or a channel that asked for a hold. Its text, in stored progress and in logs: `relay main`,
/// `https://api.example.com`, `channel sms`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Destination {
    /// The name of a `[relays.NAME]` section.
    Relay(String),
    /// Scheme, host, and port unless it is the scheme's default.
    Origin(String),
    /// The name of a channel.
    Channel(String),
}

const RELAY: &str = "relay ";
const CHANNEL: &str = "channel ";

impl Destination {
    /// `relay`, `origin` or `channel`.
    pub fn kind(&self) -> &'static str {
        match self {
            Destination::Relay(_) => "relay",
            Destination::Origin(_) => "origin",
            Destination::Channel(_) => "channel",
        }
    }

    /// The name of the relay or channel, or the origin.
    pub fn name(&self) -> &str {
        match self {
            Destination::Relay(name) | Destination::Origin(name) | Destination::Channel(name) => name,
        }
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Destination::Relay(name) => write!(f, "{RELAY}{name}"),
            Destination::Origin(origin) => f.write_str(origin),
            Destination::Channel(name) => write!(f, "{CHANNEL}{name}"),
        }
    }
}

impl FromStr for Destination {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(if let Some(name) = text.strip_prefix(RELAY) {
            Destination::Relay(name.to_owned())
        } else if let Some(name) = text.strip_prefix(CHANNEL) {
            Destination::Channel(name.to_owned())
        } else {
            Destination::Origin(text.to_owned())
        })
    }
}

impl Serialize for Destination {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Destination {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        let Ok(destination) = text.parse();
        Ok(destination)
    }
}

/// A destination that an attempt could not use. Nothing was sent, except what the channel noted of the message's addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreached {
    /// The relay, origin or channel.
    pub destination: Destination,
    /// The reason in one line.
    pub reason: String,
    /// Whether it was contacted. Otherwise it was already known to be down.
    pub is_contacted: bool,
}
