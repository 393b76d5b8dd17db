//! The addresses that plugins may connect to, and a resolver that returns only those.
//!
//! The rule depends only on the host name, so that plugins can share connections: `localhost` resolves to loopback addresses,
//! any other name to public ones. Other addresses can be used only if the URL, and so the grant, contains the address itself. The
//! client connects to the addresses that were checked here, without a second look-up.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::sync::Semaphore;

/// Look-ups at the same time: each occupies a thread until the system's resolver gives up, even if its request has ended.
const LOOKUPS_MAX: usize = 32;

/// A name that resolves to an address that plugins may not connect to.
#[derive(Debug, thiserror::Error)]
#[error("the address of {host} is {address}, {kind}; a plugin can use it only if a grant contains the address itself")]
pub(super) struct RefusedAddress {
    host: String,
    address: IpAddr,
    kind: &'static str,
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Lookup = dyn Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync;

/// Looks names up with the system's resolver, and drops the addresses that plugins may not connect to.
#[derive(Clone)]
pub(super) struct Resolver {
    lookup: Arc<Lookup>,
    lookups: Arc<Semaphore>,
}

impl Resolver {
    /// Uses the system's resolver.
    pub(super) fn system() -> Self {
        Resolver::new(|host| Ok((host, 0).to_socket_addrs()?.collect()))
    }

    /// Uses this function, which may block.
    pub(super) fn new(lookup: impl Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static) -> Self {
        Resolver { lookup: Arc::new(lookup), lookups: Arc::new(Semaphore::new(LOOKUPS_MAX)) }
    }
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (lookup, lookups) = (self.lookup.clone(), self.lookups.clone());
        let host = name.as_str().to_owned();
        Box::pin(async move {
            let permit = lookups.acquire_owned().await?;
            let found = tokio::task::spawn_blocking(move || {
                let _permit = permit;
                Ok::<_, BoxError>(reachable(&host, lookup(&host)?)?)
            });
            Ok(Box::new(found.await??.into_iter()) as Addrs)
        })
    }
}

/// The addresses of a name that plugins may connect to. It is an error if all of them are rejected.
fn reachable(host: &str, found: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, RefusedAddress> {
    let why_not = |address: IpAddr| match host {
        "localhost" if address.is_loopback() => None,
        "localhost" => Some("not a loopback address"),
        _ => not_public(address),
    };
    let refused = found.iter().find_map(|at| why_not(at.ip()).map(|kind| (at.ip(), kind)));
    let allowed: Vec<SocketAddr> = found.into_iter().filter(|at| why_not(at.ip()).is_none()).collect();
    match refused {
        Some((address, kind)) if allowed.is_empty() => Err(RefusedAddress { host: host.to_owned(), address, kind }),
        _ => Ok(allowed),
    }
}

/// The kind of an address that is not public.
pub(super) fn not_public(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(address) => not_public_v4(address),
        IpAddr::V6(address) => not_public_v6(address),
    }
}

/// The IANA registry of special-purpose IPv4 addresses (RFC 6890 and its updates), and an address of the Azure cloud.
fn not_public_v4(address: Ipv4Addr) -> Option<&'static str> {
    match address.octets() {
        [0, ..] => Some("an unspecified address"),
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => Some("a private address"),
        [100, 64..=127, ..] => Some("a private address of a carrier"),
        [127, ..] => Some("a loopback address"),
        [169, 254, ..] => Some("a link-local address, like those of cloud metadata services"),
        // Azure's metadata and DNS.
        [168, 63, 129, 16] => Some("an address of the cloud's host"),
        [192, 0, 0, _] | [192, 88, 99, _] | [198, 18..=19, ..] => Some("a reserved address"),
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => Some("an address for documentation"),
        [255, 255, 255, 255] => Some("the broadcast address"),
        [224..=239, ..] => Some("a multicast address"),
        [240..=255, ..] => Some("a reserved address"),
        _ => None,
    }
}

/// RFC 4291 and IANA's registry: 2000::/3 is public, except for its special-purpose ranges. An embedded IPv4 address decides for
/// itself.
fn not_public_v6(address: Ipv6Addr) -> Option<&'static str> {
    let segments = address.segments();
    let embedded = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        not_public_v4(Ipv4Addr::new(a, b, c, d))
    };
    match segments {
        [0, 0, 0, 0, 0, 0, 0, 0] => Some("an unspecified address"),
        [0, 0, 0, 0, 0, 0, 0, 1] => Some("a loopback address"),
        // Mapped (RFC 4291, 2.5.5.2), compatible (2.5.5.1), and NAT64's well-known prefix (RFC 6052).
        [0, 0, 0, 0, 0, 0xffff | 0, high, low] => embedded(high, low),
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => embedded(high, low),
        // 6to4 (RFC 3056).
        [0x2002, high, low, ..] => embedded(high, low),
        [0x2001, 0..=0x1ff, ..] => Some("a reserved address"),
        [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => Some("an address for documentation"),
        [0x2000..=0x3fff, ..] => None,
        [0xfc00..=0xfdff, ..] => Some("a unique-local address"),
        [0xfe80..=0xfebf, ..] => Some("a link-local address"),
        [0xff00..=0xffff, ..] => Some("a multicast address"),
        _ => Some("a reserved address"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_are_not_public_have_a_kind() {
        let table = [
            ("unspecified", &["0.0.0.0", "0.1.2.3", "::", "::ffff:0.0.0.0"][..]),
            ("loopback", &["127.0.0.1", "127.255.255.254", "::1", "::ffff:127.0.0.1", "::127.0.0.1"]),
            ("loopback", &["64:ff9b::127.0.0.1", "2002:7f00:1::", "2002:7f00:0001:1:2:3:4:5"]),
            ("private", &["10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "::ffff:10.1.2.3", "::10.1.2.3"]),
            ("private", &["100.64.0.1", "100.100.100.200", "100.127.255.255", "2002:a00:1::1", "64:ff9b::c0a8:101"]),
            ("cloud", &["169.254.169.254", "169.254.0.1", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe"]),
            ("cloud", &["168.63.129.16", "2002:a9fe:a9fe::"]),
            ("link-local", &["fe80::1", "febf::1"]),
            ("unique-local", &["fc00::1", "fd00:ec2::254", "fdff:ffff::1"]),
            ("multicast", &["224.0.0.1", "239.255.255.255", "ff02::1", "::ffff:224.0.0.251"]),
            ("broadcast", &["255.255.255.255", "::ffff:255.255.255.255"]),
            ("reserved", &["240.0.0.1", "192.0.0.192", "198.18.0.1", "192.88.99.1", "fec0::1", "4000::1", "100::1"]),
            ("reserved", &["2001::1", "2001:1ff::1", "64:ff9b:1::1", "::ffff:0:7f00:1", "5f00::1", "1::1"]),
            ("documentation", &["192.0.2.1", "198.51.100.1", "203.0.113.9", "2001:db8::1", "3fff::1"]),
        ];
        for (kind, addresses) in table {
            for address in addresses {
                let found = not_public(address.parse().unwrap());
                assert!(found.is_some_and(|found| found.contains(kind)), "{address}: {found:?}, not {kind}");
            }
        }
    }

    #[test]
    fn public_addresses_are_public() {
        let public = "1.1.1.1 9.255.255.255 11.0.0.1 100.63.255.255 100.128.0.1 126.255.255.255 128.0.0.1 169.253.1.1 \
            172.15.255.255 172.32.0.1 192.167.1.1 192.169.0.1 198.17.0.1 198.20.0.1 223.255.255.255 168.63.129.17 \
            2606:4700::1111 2001:4860:4860::8888 2a00:1450::1 ::ffff:8.8.8.8 64:ff9b::8.8.8.8 2002:808:808::1";
        for address in public.split_whitespace() {
            assert_eq!(not_public(address.parse().unwrap()), None, "{address}");
        }
    }

    fn at(addresses: &[&str]) -> Vec<SocketAddr> {
        addresses.iter().map(|a| SocketAddr::new(a.parse().unwrap(), 0)).collect()
    }

    #[test]
    fn names_resolve_to_public_addresses_and_localhost_to_loopback() {
        assert_eq!(reachable("a.example", at(&["10.0.0.1", "1.1.1.1", "::1"])).unwrap(), at(&["1.1.1.1"]));
        assert_eq!(reachable("localhost", at(&["::1", "127.0.0.1"])).unwrap(), at(&["::1", "127.0.0.1"]));
        assert_eq!(reachable("a.example", Vec::new()).unwrap(), Vec::new());
        let refused = [
            ("a.example", &["127.0.0.1", "10.0.0.1"][..], "a.example is 127.0.0.1, a loopback address"),
            ("localhost", &["1.1.1.1"], "localhost is 1.1.1.1, not a loopback address"),
            ("x.localhost", &["127.0.0.1"], "x.localhost is 127.0.0.1"),
            ("localhost.", &["127.0.0.1"], "localhost. is 127.0.0.1"),
        ];
        for (host, found, expected) in refused {
            let error = reachable(host, at(found)).unwrap_err().to_string();
            assert!(error.contains(expected), "{host}: {error}");
        }
    }
}
