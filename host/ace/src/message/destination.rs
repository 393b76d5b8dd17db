//! The relays and HTTP origins to which channels send.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A relay or an HTTP origin, which can be down as a whole. Its text, in stored progress and in logs: `relay main`,
/// `https://api.example.com`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Destination {
    /// The name of a `[relays.NAME]` section.
    Relay(String),
    /// Scheme, host, and port unless it is the scheme's default.
    Origin(String),
}

const RELAY: &str = "relay ";

impl Destination {
    /// `relay` or `origin`.
    pub fn kind(&self) -> &'static str {
        match self {
            Destination::Relay(_) => "relay",
            Destination::Origin(_) => "origin",
        }
    }

    /// The name of the relay, or the origin.
    pub fn name(&self) -> &str {
        match self {
            Destination::Relay(name) | Destination::Origin(name) => name,
        }
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Destination::Relay(name) => write!(f, "{RELAY}{name}"),
            Destination::Origin(origin) => f.write_str(origin),
        }
    }
}

impl FromStr for Destination {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text.strip_prefix(RELAY) {
            Some(name) => Destination::Relay(name.to_owned()),
            None => Destination::Origin(text.to_owned()),
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

/// A destination that an attempt could not use. Nothing was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreached {
    /// The relay or origin.
    pub destination: Destination,
    /// The reason in one line.
    pub reason: String,
    /// Whether it was contacted. Otherwise it was already known to be down.
    pub is_contacted: bool,
}
