//! How long messages are retried, as `ace check` and `ace explain` print it: the effective settings and their sources.

use std::time::Duration;

use serde_json::{Value, json};

use ace::config::{Config, Defaults, Delivery, show_duration};

/// The defaults of each command.
const COMMANDS: [(&str, Defaults); 2] = [("ace serve", Defaults::Serve), ("ace send", Defaults::Send)];

/// The effective value of a setting for a command.
pub struct EffectiveSetting {
    pub key: &'static str,
    /// `None` for every command.
    command: Option<&'static str>,
    transactional: Duration,
    other: Duration,
    /// Where it is set, or whose default it is.
    source: String,
}

/// The delivery window, its maximum, and how long messages wait for a relay or origin that is down.
pub fn effective(config: &Config) -> Vec<EffectiveSetting> {
    type Read = fn(&Delivery, bool) -> Duration;
    let keys: [(&'static str, bool, Read); 3] = [
        ("delivery.expiration-delay", config.delivery.expiration_delay.is_some(), Delivery::window),
        ("delivery.max-expiration-delay", config.delivery.max_expiration_delay.is_some(), Delivery::max_window),
        ("delivery.max-age", config.delivery.max_age.is_some(), |delivery, is_transactional| {
            delivery.max_age(is_transactional).unwrap_or_else(|| delivery.window(is_transactional))
        }),
    ];
    let mut all = Vec::new();
    for (key, is_set, read) in keys {
        let of = |command, defaults, source| {
            let delivery = Delivery { defaults, ..config.delivery.clone() };
            EffectiveSetting {
                key,
                command,
                transactional: read(&delivery, true),
                other: read(&delivery, false),
                source,
            }
        };
        if is_set {
            all.push(of(None, Defaults::Serve, super::check::location(&config.problem(key, ""))))
        } else {
            all.extend(COMMANDS.map(|(name, defaults)| of(Some(name), defaults, format!("default of {name}"))))
        }
    }
    all
}

impl EffectiveSetting {
    /// One line for people.
    pub fn line(&self) -> String {
        let (transactional, other) = (show_duration(self.transactional), show_duration(self.other));
        let value = if transactional == other {
            transactional
        } else {
            format!("{transactional} transactional, {other} otherwise")
        };
        format!("{} = {value} ({})", self.key, self.source)
    }

    pub fn json(&self) -> Value {
        json!({
            "key": self.key,
            "command": self.command,
            "transactional": show_duration(self.transactional),
            "other": show_duration(self.other),
            "source": self.source,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(toml: &str) -> Vec<String> {
        let config = Config::read(toml, Some("ace.toml".as_ref()), []).unwrap_or_else(|e| panic!("{e}"));
        effective(&config).iter().map(EffectiveSetting::line).collect()
    }

    #[test]
    fn effective_settings_name_their_source() {
        assert_eq!(
            lines(""),
            [
                "delivery.expiration-delay = 4h transactional, 2d otherwise (default of ace serve)",
                "delivery.expiration-delay = 2m (default of ace send)",
                "delivery.max-expiration-delay = 4h transactional, 2d otherwise (default of ace serve)",
                "delivery.max-expiration-delay = 5m (default of ace send)",
                "delivery.max-age = 1d transactional, 5d otherwise (default of ace serve)",
                "delivery.max-age = 2m (default of ace send)",
            ]
        );
        let set = lines("[delivery]\nexpiration-delay = '10m'\n\nmax-age = '3h'");
        assert_eq!(set[0], "delivery.expiration-delay = 10m (ace.toml:2)");
        assert_eq!(set[1], "delivery.max-expiration-delay = 10m (default of ace serve)");
        assert_eq!(set[3], "delivery.max-age = 3h (ace.toml:4)");
    }
}
