//! The authority of a URL: a host with an optional port (RFC 3986, 3.2.2).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The longest name, in octets (RFC 1035, 2.3.4).
const NAME_MAX: usize = 253;

/// A host with an optional port, as in `Host` and `:authority`. Equal hosts are equal values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority {
    /// The name or address.
    pub host: Host,
    /// `None`: the port of the scheme.
    pub port: Option<u16>,
}

/// A name or an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// An IP address. A mapped IPv4 address is in its IPv4 form.
    Address(IpAddr),
    /// A name in lower case, without a final dot.
    Name(String),
}

impl Authority {
    /// Parses `name`, `name:port`, `192.0.2.1:port` or `[2001:db8::1]:port`. Returns `None` for anything else: a user before `@`,
    /// escapes, zones, and short forms of IPv4 addresses (`127.1`), which browsers expand.
    pub fn parse(text: &str) -> Option<Authority> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (address, port) = rest.split_once(']')?;
                (Host::Address(address.parse::<Ipv6Addr>().ok()?.to_canonical()), port)
            }
            None => {
                let (host, port) = text.split_at(text.find(':').unwrap_or(text.len()));
                (Host::named(host)?, port)
            }
        };
        let port = match port.strip_prefix(':') {
            None if port.is_empty() => None,
            Some("") => None,
            // `parse` alone would accept a sign.
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => Some(digits.parse().ok()?),
            _ => return None,
        };
        Some(Authority { host, port })
    }

    /// Whether it is a loopback address, or `localhost` (RFC 6761, 6.3).
    pub fn is_this_machine(&self) -> bool {
        match &self.host {
            Host::Address(address) => address.is_loopback(),
            Host::Name(name) => name == "localhost",
        }
    }
}

impl Host {
    fn named(text: &str) -> Option<Host> {
        if let Ok(address) = text.parse::<Ipv4Addr>() {
            return Some(Host::Address(address.into()));
        }
        let name = text.strip_suffix('.').unwrap_or(text);
        let is_label = |label: &str| {
            !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
        };
        // A last label of digits makes it an address in short form (https://url.spec.whatwg.org/#ends-in-a-number-checker).
        let last = name.rsplit('.').next().unwrap_or_default();
        let is_number = last.bytes().all(|b| b.is_ascii_digit()) || last.starts_with("0x") || last.starts_with("0X");
        let is_name = name.len() <= NAME_MAX && name.split('.').all(is_label) && !is_number;
        is_name.then(|| Host::Name(name.to_ascii_lowercase()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_of_this_machine_are_recognized() {
        for text in [
            "localhost",
            "LocalHost",
            "localhost.",
            "localhost:8025",
            "localhost:",
            "127.0.0.1:8025",
            "127.8.9.10",
            "[::1]",
            "[::1]:8025",
            "[0:0:0:0:0:0:0:1]",
            "[::ffff:127.0.0.1]:80",
            "[::FFFF:7f00:1]",
        ] {
            assert!(Authority::parse(text).is_some_and(|authority| authority.is_this_machine()), "{text}");
        }
        for text in [
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.nip.io",
            "evil.localhost",
            "0.0.0.0",
            "[::]",
            "[::2]",
            "192.168.0.1:8025",
            "[::ffff:10.0.0.1]",
        ] {
            assert!(Authority::parse(text).is_some_and(|authority| !authority.is_this_machine()), "{text}");
        }
    }

    #[test]
    fn invalid_hosts_are_rejected() {
        for text in [
            "",
            ":8025",
            ".",
            "localhost..",
            "a..b",
            "127.1",
            "2130706433",
            "0x7f.0.0.1",
            "0x7f000001",
            "0177.0.0.1",
            "127.0.0.1.",
            "user@localhost",
            "evil.example@127.0.0.1",
            "127.0.0.1@evil.example",
            "local%68ost",
            "localhost%00",
            "localhost:+80",
            "localhost:65536",
            "localhost:80:80",
            "localhost: 80",
            "localhost/",
            "localhost,evil.example",
            " localhost",
            "::1",
            "[::1",
            "[::1]8025",
            "[::1%25lo]",
            "[127.0.0.1]",
            "bücher.example",
        ] {
            assert_eq!(Authority::parse(text), None, "{text}");
        }
    }
}
