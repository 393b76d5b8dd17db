//! Decodes single values. An error says what is expected, and does not quote a value that may be secret.

use std::fmt::Display;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::tz::TimeZone;
use url::Url;

use super::reader::nearest;
use super::tree::{Node, Value};
use super::{Authority, BucketGrant, PATH_TOKEN, Rate, SAMPLE_TOKEN};
use crate::message::Object;

pub(super) const KIB: usize = 1024;
pub(super) const MIB: usize = 1024 * KIB;
pub(super) const GIB: usize = 1024 * MIB;

pub(super) const MILLISECOND: Duration = Duration::from_millis(1);
pub(super) const MINUTE: Duration = Duration::from_secs(60);
pub(super) const HOUR: Duration = Duration::from_secs(3600);
pub(super) const DAY: Duration = Duration::from_secs(86_400);

/// The longest local part and domain, in octets (RFC 5321, 4.5.3.1).
const LOCAL_PART_MAX: usize = 64;
const DOMAIN_MAX: usize = 255;
/// The longest line, in characters.
const LINE_MAX: usize = 500;
/// The highest count of a rate.
const RATE_COUNT_MAX: u32 = 1_000_000_000;

const DURATION_UNITS: [(&str, u64); 5] = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
const SIZE_UNITS: [(&str, usize); 7] =
    [("KiB", KIB), ("MiB", MIB), ("GiB", GIB), ("KB", 1000), ("MB", 1_000_000), ("GB", 1_000_000_000), ("B", 1)];

fn wrong_type(what: impl Display, node: &Node) -> String {
    format!("must be {what}, not {}", node.value.kind())
}

pub(super) fn text(node: &Node) -> Result<String, String> {
    match (&node.value, &node.text) {
        (Value::Text(text), _) | (_, Some(text)) => Ok(text.clone()),
        _ => Err(wrong_type("a string", node)),
    }
}

/// A string on one line that is safe for a terminal and for a mail header.
pub(super) fn line(node: &Node) -> Result<String, String> {
    let text = text(node)?;
    match text {
        _ if text.trim().is_empty() => Err("must not be empty".to_owned()),
        _ if text.chars().any(char::is_control) => Err("must not contain control characters or line breaks".to_owned()),
        _ if text.chars().count() > LINE_MAX => Err(format!("must have at most {LINE_MAX} characters")),
        _ => Ok(text),
    }
}

/// A language tag, in Django's notation.
pub(super) fn language(node: &Node) -> Result<String, String> {
    let text = line(node)?;
    let is_tag = text.len() <= 35 && text.split(['-', '_']).all(|part| (1..=8).contains(&part.len()));
    if is_tag && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b)) {
        Ok(text)
    } else {
        Err("must be a language, as in \"en\" or \"pt-br\"".to_owned())
    }
}

/// A time zone of the IANA database.
pub(super) fn time_zone(node: &Node) -> Result<TimeZone, String> {
    TimeZone::get(&line(node)?).map_err(|_| "must be a time zone, as in \"UTC\" or \"Europe/Berlin\"".to_owned())
}

/// An absolute http or https URL that others can be relative to.
pub(super) fn base_url(node: &Node) -> Result<Url, String> {
    let url = Url::parse(&line(node)?).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
    url.ok_or_else(|| "must be a URL, as in \"https://learn.example.org\"".to_owned())
}

/// A public key in minisign's format: base64 of two letters, a number and 32 bytes.
pub(super) fn signing_key(node: &Node) -> Result<String, String> {
    use base64::Engine;
    let key = line(node)?;
    match base64::prelude::BASE64_STANDARD.decode(&key) {
        Ok(bytes) if bytes.len() == 42 && bytes.starts_with(b"Ed") => Ok(key),
        _ => {
            Err(format!("{key:?} is not a minisign public key; these start with RW, and `ace plugin key` creates one"))
        }
    }
}

pub(super) fn boolean(node: &Node) -> Result<bool, String> {
    match node.value {
        Value::Boolean(b) => Ok(b),
        _ => Err(wrong_type("true or false", node)),
    }
}

/// An integer in a range.
pub(super) fn integer<T>(range: RangeInclusive<T>) -> impl Fn(&Node) -> Result<T, String>
where
    T: TryFrom<i128> + PartialOrd + Display,
{
    move |node| {
        let what = format!("a whole number from {} to {}", range.start(), range.end());
        let Value::Integer(i) = node.value else { return Err(wrong_type(what, node)) };
        T::try_from(i).ok().filter(|i| range.contains(i)).ok_or_else(|| format!("must be {what}"))
    }
}

/// A number from 0 to 1.
pub(super) fn fraction(node: &Node) -> Result<f64, String> {
    let number = match node.value {
        Value::Float(number) => Some(number),
        Value::Integer(whole) => Some(whole as f64),
        _ => None,
    };
    number.filter(|number| (0.0..=1.0).contains(number)).ok_or_else(|| wrong_type("a number from 0 to 1", node))
}

/// `"250ms"`, `"120s"`, `"5m"`, `"2h"`, `"1d"`.
pub(super) fn duration(range: RangeInclusive<Duration>) -> impl Fn(&Node) -> Result<Duration, String> {
    move |node| {
        let what = format!(
            "a duration from {} to {}: a whole number and its unit (ms, s, m, h, d), as in \"120s\"",
            show_duration(*range.start()),
            show_duration(*range.end())
        );
        let Value::Text(text) = &node.value else { return Err(wrong_type(what, node)) };
        let units = DURATION_UNITS.iter().map(|(unit, factor)| (*unit, u128::from(*factor)));
        with_unit(text, units)
            .and_then(|millis| u64::try_from(millis).ok())
            .map(Duration::from_millis)
            .filter(|duration| range.contains(duration))
            .ok_or_else(|| format!("must be {what}"))
    }
}

/// `"14/s"`, `"100/m"`, `"1000/h"`, `"50000/d"`.
pub(super) fn rate(node: &Node) -> Result<Rate, String> {
    let what = "a rate: a whole number and the time it is for (s, m, h, d), as in \"14/s\" or \"50000/d\"";
    let Value::Text(text) = &node.value else { return Err(wrong_type(what, node)) };
    let read = || {
        let (count, unit) = text.split_once('/')?;
        let (_, millis) = DURATION_UNITS.iter().skip(1).find(|(name, _)| *name == unit.trim())?;
        let count = count.trim().parse().ok().filter(|count| (1..=RATE_COUNT_MAX).contains(count))?;
        Some(Rate { count, per: Duration::from_millis(*millis) })
    };
    read().ok_or_else(|| format!("must be {what}; at least 1 and at most {RATE_COUNT_MAX}"))
}

/// `"64MiB"`, `"10KB"`, `"512B"`, or a number of bytes.
pub(super) fn size(range: RangeInclusive<usize>) -> impl Fn(&Node) -> Result<usize, String> {
    move |node| {
        let what = format!(
            "a size from {} to {}: a number of bytes, or a whole number \
             and its unit (B, KB, KiB, MB, MiB, GB, GiB), as in \"64MiB\"",
            show_size(*range.start()),
            show_size(*range.end())
        );
        let units = SIZE_UNITS.iter().map(|(unit, factor)| (*unit, *factor as u128));
        let bytes = match &node.value {
            Value::Integer(bytes) => u128::try_from(*bytes).ok(),
            Value::Text(text) => with_unit(text, units),
            _ => return Err(wrong_type(what, node)),
        };
        bytes
            .and_then(|bytes| usize::try_from(bytes).ok())
            .filter(|bytes| range.contains(bytes))
            .ok_or_else(|| format!("must be {what}"))
    }
}

fn with_unit(text: &str, units: impl IntoIterator<Item = (&'static str, u128)>) -> Option<u128> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let (_, factor) = units.into_iter().find(|(name, _)| *name == unit.trim_start())?;
    number.parse::<u128>().ok()?.checked_mul(factor)
}

/// A duration in the notation of ace.toml, in the largest unit that divides it.
pub fn show_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    let divides = |(_, factor): &&(&str, u64)| millis.is_multiple_of(u128::from(*factor));
    // Zero is "0s"; the first unit, milliseconds, divides everything.
    let units = if millis == 0 { &DURATION_UNITS[1..2] } else { &DURATION_UNITS[..] };
    let (unit, factor) = units.iter().rev().find(divides).unwrap_or(&DURATION_UNITS[0]);
    format!("{}{unit}", millis / u128::from(*factor))
}

/// A size in the notation of ace.toml, in the largest binary unit that divides it.
pub fn show_size(bytes: usize) -> String {
    let binary = &SIZE_UNITS[..3];
    match binary.iter().rev().find(|(_, factor)| bytes != 0 && bytes.is_multiple_of(*factor)) {
        Some((unit, factor)) => format!("{}{unit}", bytes / factor),
        None => format!("{bytes}B"),
    }
}

/// One of a few words.
pub(super) fn one_of<T: Copy>(words: &[(&str, T)]) -> impl Fn(&Node) -> Result<T, String> {
    move |node| {
        let word = text(node)?;
        if let Some((_, value)) = words.iter().find(|(known, _)| *known == word) {
            return Ok(*value);
        }
        let known: Vec<String> = words.iter().map(|(known, _)| format!("{known:?}")).collect();
        let hint = nearest(&word, words.iter().map(|(known, _)| *known))
            .map(|near| format!("; did you mean {near:?}?"))
            .unwrap_or_default();
        Err(format!("must be one of {}{hint}", known.join(", ")))
    }
}

/// The number of a group, or its name in /etc/group.
pub(super) fn group(node: &Node) -> Result<u32, String> {
    if let Ok(number) = integer(0..=u32::MAX - 1)(node) {
        return Ok(number);
    }
    let name = line(node)?;
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    let groups = std::fs::read_to_string("/etc/group").unwrap_or_default();
    let mut known = groups.lines().filter_map(|line| {
        let mut fields = line.split(':');
        Some((fields.next()?, fields.nth(1)?.parse().ok()?))
    });
    let found = known.find(|(known, _)| *known == name).map(|(_, number)| number);
    found.ok_or_else(|| {
        format!("there is no group {name:?} in /etc/group; write the number of a group from another source")
    })
}

/// A path. A relative path starts at `folder`.
pub(super) fn path(folder: PathBuf) -> impl Fn(&Node) -> Result<PathBuf, String> {
    move |node| {
        let text = text(node)?;
        if text.is_empty() || text.contains('\0') {
            return Err("must be a path".to_owned());
        }
        Ok(folder.join(text))
    }
}

/// The path of an existing folder.
pub(super) fn existing_folder(folder: PathBuf) -> impl Fn(&Node) -> Result<PathBuf, String> {
    let path = path(folder);
    move |node| existing(path(node)?, "folder", Path::is_dir)
}

/// The path of an existing file.
pub(super) fn existing_file(folder: PathBuf) -> impl Fn(&Node) -> Result<PathBuf, String> {
    let path = path(folder);
    move |node| existing(path(node)?, "file", Path::is_file)
}

/// The path of a file that exists or can be created, because its folder exists.
pub(super) fn creatable_file(folder: PathBuf) -> impl Fn(&Node) -> Result<PathBuf, String> {
    let path = path(folder);
    move |node| {
        let file = path(node)?;
        if file.is_dir() {
            return Err(format!("{} is not a file", file.display()));
        }
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        existing(folder.to_owned(), "folder", Path::is_dir)?;
        Ok(file)
    }
}

fn existing(path: PathBuf, what: &str, is: fn(&Path) -> bool) -> Result<PathBuf, String> {
    match path.try_exists() {
        Ok(true) if is(&path) => Ok(path),
        Ok(true) => Err(format!("{} is not a {what}", path.display())),
        Ok(false) => Err(format!("there is no {what} {}", path.display())),
        Err(e) => Err(format!("{} cannot be reached: {e}", path.display())),
    }
}

/// A table with any keys, for a plugin. Dates become strings.
pub(super) fn object(node: &Node) -> Result<Object, String> {
    match json(node)? {
        serde_json::Value::Object(object) => Ok(object),
        _ => Err(wrong_type("a table", node)),
    }
}

fn json(node: &Node) -> Result<serde_json::Value, String> {
    use serde_json::Value as Json;
    Ok(match &node.value {
        Value::Text(text) | Value::Moment(text) => Json::String(text.clone()),
        Value::Integer(i) => {
            i64::try_from(*i).map(Json::from).map_err(|_| "contains a number of more than 64 bits".to_owned())?
        }
        Value::Float(f) => serde_json::Number::from_f64(*f)
            .map(Json::Number)
            .ok_or_else(|| "contains a number that JSON does not allow: inf or nan".to_owned())?,
        Value::Boolean(b) => Json::Bool(*b),
        Value::List(items) => Json::Array(items.iter().map(json).collect::<Result<_, _>>()?),
        Value::Table(table) => Json::Object(
            table
                .0
                .iter()
                .map(|(key, node)| json(node).map(|value| (key.clone(), value)).map_err(|e| format!("{key}: {e}")))
                .collect::<Result<_, _>>()?,
        ),
    })
}

/// A channel type, in lower case as in edx-ace, because it is also the name of a folder of templates.
pub(super) fn channel_type(name: &str) -> Result<(), String> {
    let is_valid = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_');
    if !name.is_empty() && name.chars().all(is_valid) {
        Ok(())
    } else {
        Err("is not a channel type: use lower-case letters, digits, `-` and `_`, as in email".to_owned())
    }
}

/// The name or address of a mail server.
pub(super) fn host(node: &Node) -> Result<String, String> {
    let host = line(node)?;
    if host.parse::<std::net::IpAddr>().is_ok() {
        return Ok(host);
    }
    if let Some((name, port)) = host.rsplit_once(':')
        && port.parse::<u16>().is_ok()
    {
        return Err(format!("must be a host without a port; write host = {name:?}, port = {port}"));
    }
    // Names in a container network contain underscores, and a final dot prevents a resolver from adding a suffix.
    let name = host.strip_suffix('.').unwrap_or(&host).replace('_', "-");
    is_domain(&name).then_some(host).ok_or_else(|| "must be a host name or an IP address".to_owned())
}

/// A domain name. International names become ASCII.
pub(super) fn domain(node: &Node) -> Result<String, String> {
    let text = line(node)?;
    let ascii = idna::domain_to_ascii(&text).ok().filter(|name| is_domain(name));
    ascii.ok_or_else(|| "must be a domain name, as in \"example.com\"".to_owned())
}

/// A DKIM selector: labels of ASCII letters, digits and `-` (RFC 6376, section 3.1).
pub(super) fn selector(node: &Node) -> Result<String, String> {
    let text = line(node)?;
    if text.is_ascii() && is_domain(&text) {
        Ok(text)
    } else {
        Err("must be a selector, as in \"2026\" or \"mail-1\": letters, digits, `-` and `.`".to_owned())
    }
}

/// An IP address and a port to listen on.
pub(super) fn socket_address(node: &Node) -> Result<SocketAddr, String> {
    let address = line(node)?;
    address.parse().map_err(|_| "must be an IP address and a port, as in \"127.0.0.1:8025\" or \"[::]:443\"".to_owned())
}

/// The host name or address of a server, with an optional port. International names become ASCII, as clients send them.
pub(super) fn authority(node: &Node) -> Result<Authority, String> {
    let text = line(node)?;
    let ascii = if text.is_ascii() { Some(text) } else { idna::domain_to_ascii(&text).ok() };
    ascii.and_then(|text| Authority::parse(&text)).ok_or_else(|| {
        "must be a host name or an IP address, with or without a port, as in \"ace.example.org\" or \"[2001:db8::1]:8025\""
            .to_owned()
    })
}

/// The name in EHLO, or an address in brackets (RFC 5321, 4.1.1.1).
pub(super) fn hello_name(node: &Node) -> Result<String, String> {
    let name = line(node)?;
    let literal = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let is_literal = literal.is_some_and(|ip| ip.trim_start_matches("IPv6:").parse::<std::net::IpAddr>().is_ok());
    if is_literal || is_domain(&name) {
        Ok(name)
    } else {
        Err("must be a host name, or an IP address in brackets".to_owned())
    }
}

/// `a@b.example`.
pub(super) fn bare_address(node: &Node) -> Result<String, String> {
    let address = line(node)?;
    if is_address(&address) {
        Ok(address)
    } else if address.contains('<') {
        Err(format!("{address:?} has a display name; write only the address, as in \"bounces@example.com\""))
    } else {
        Err(format!("{address:?} is not an e-mail address; write it as in \"bounces@example.com\""))
    }
}

/// `a@b.example`, or `a+{token}@b.example`.
pub(super) fn return_path(node: &Node) -> Result<String, String> {
    let text = line(node)?;
    let Some(start) = text.find('{') else { return bare_address(node) };
    let placeholder = &text[start..text[start..].find('}').map_or(text.len(), |end| start + end + 1)];
    let with_token = text.replacen(PATH_TOKEN, SAMPLE_TOKEN, 1);
    match with_token.rsplit_once('@') {
        _ if placeholder != PATH_TOKEN => {
            Err(format!("unknown placeholder {placeholder:?}; only {PATH_TOKEN} is known"))
        }
        _ if with_token.contains('{') => Err(format!("{PATH_TOKEN} must stand in it once")),
        Some((local, _)) if local.len() > LOCAL_PART_MAX => {
            let most = LOCAL_PART_MAX - SAMPLE_TOKEN.len();
            Err(format!(
                "only {most} characters are allowed beside {PATH_TOKEN}, which becomes {} characters",
                SAMPLE_TOKEN.len()
            ))
        }
        Some((local, _)) if local.contains(SAMPLE_TOKEN) && is_address(&with_token) => Ok(text),
        _ => Err(format!("{text:?} is not an e-mail address; write it as in \"bounce+{PATH_TOKEN}@example.com\"")),
    }
}

/// `a@b.example` or `Name <a@b.example>`.
pub(super) fn sender(node: &Node) -> Result<String, String> {
    let sender = line(node)?;
    let address = match sender.rsplit_once('<') {
        Some((_, rest)) => rest.trim_end().strip_suffix('>').unwrap_or_default(),
        None => sender.trim(),
    };
    if is_address(address) {
        Ok(sender)
    } else {
        Err(format!("{sender:?} is not a sender: write \"a@example.com\" or \"Name <a@example.com>\""))
    }
}

/// A mailbox of RFC 5321 without quoted local parts and address literals, which senders of bulk mail do not have. Non-ASCII letters are
/// allowed (RFC 6531), and so is a domain with one label (Django's `webmaster@localhost`).
fn is_address(address: &str) -> bool {
    let Some((local, domain)) = address.rsplit_once('@') else { return false };
    let is_atom = |atom: &str| {
        let is_valid = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c) || c as u32 > 0x9f;
        !atom.is_empty() && atom.chars().all(|c| is_valid(c) && !c.is_whitespace())
    };
    local.len() <= LOCAL_PART_MAX && local.split('.').all(is_atom) && is_domain(domain)
}

fn is_domain(domain: &str) -> bool {
    let is_label = |label: &str| {
        let is_valid = |c: char| c.is_alphanumeric() || c == '-';
        (1..=63).contains(&label.len())
            && label.chars().all(is_valid)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    domain.len() <= DOMAIN_MAX && domain.split('.').all(is_label)
}

/// The grant of a bucket: `"course-optouts:read"`, `"counters:write"`, `"state:read-write"`; without a suffix, both.
pub(super) fn bucket(node: &Node) -> Result<BucketGrant, String> {
    let text = text(node)?;
    let (bucket, access) = text.split_once(':').unwrap_or((&text, "read-write"));
    if !ace_store::keyvalue::is_bucket(bucket) {
        return Err(format!("{bucket:?} is not a valid bucket name: at most 128 letters, digits, `-`, `_` and `.`"));
    }
    let (read, write) = match access {
        "read" => (true, false),
        "write" => (false, true),
        "read-write" => (true, true),
        _ => return Err(format!("{text:?} must end in :read, :write or :read-write")),
    };
    Ok(BucketGrant { bucket: bucket.to_owned(), read, write })
}
