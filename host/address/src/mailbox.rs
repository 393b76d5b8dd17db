//! Mailboxes: a display name and an address. They are checked so that they cannot inject a header, a recipient or a command.

use std::borrow::Cow;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use crate::person::is_hidden;

/// RFC 5321, section 4.5.3.1.1.
const LOCAL_PART_BYTES_MAX: usize = 64;
/// RFC 5321, section 4.5.3.1.3: a path of 256, less its angle brackets.
const ADDRESS_BYTES_MAX: usize = 254;
/// RFC 1035, section 3.1.
const LABEL_BYTES_MAX: usize = 63;
/// The longest quotation of an invalid value in an error.
const QUOTED_CHARS_MAX: usize = 80;

/// `local@domain`, valid in an envelope and in a header. The domain is ASCII (punycode if necessary).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    text: String,
    at: usize,
}

impl Address {
    /// Parses an address without a name.
    ///
    /// # Errors
    /// What is wrong with the address, which is quoted.
    pub fn parse(text: &str) -> Result<Address, String> {
        Address::check(text).map_err(|problem| format!("{}: {problem}", Quoted(text)))
    }

    fn check(text: &str) -> Result<Address, String> {
        if let Some(control) = text.chars().find(|c| c.is_control()) {
            return Err(format!("control character {control:?} in an address"));
        }
        if let Some(invisible) = text.chars().find(|&c| is_hidden(c)) {
            return Err(format!("an invisible character (U+{:04X}) in an address", u32::from(invisible)));
        }
        let Some((local, domain)) = text.rsplit_once('@') else {
            return Err("an address has the form name@domain".into());
        };
        let local = checked_local_part(local)?;
        let domain = ascii_domain(domain)?;
        let address = Address { text: format!("{local}@{domain}"), at: local.len() };
        if address.text.len() > ADDRESS_BYTES_MAX {
            return Err(format!("longer than {ADDRESS_BYTES_MAX} bytes"));
        }
        Ok(address)
    }

    /// The address as a text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The part after the `@`.
    pub fn domain(&self) -> &str {
        &self.text[self.at + 1..]
    }

    /// Only servers with SMTPUTF8 (RFC 6531) accept other addresses.
    pub fn is_ascii(&self) -> bool {
        self.text.is_ascii()
    }
}

/// `Name <address>`, `<address>` or an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mailbox {
    /// The display name, not empty.
    pub name: Option<String>,
    /// The address.
    pub address: Address,
}

impl Mailbox {
    /// Parses a mailbox.
    ///
    /// # Errors
    /// What is wrong with it, or that it is a list.
    pub fn parse(text: &str) -> Result<Mailbox, String> {
        match Named::parse(text)? {
            Named { address: "", .. } => Err(format!("{}: the address is missing", Quoted(text))),
            Named { name, address } => Ok(Mailbox { name, address: Address::parse(address)? }),
        }
    }

    /// Parses a sender. `Name <>` stands for the address of `default` with that name.
    ///
    /// # Errors
    /// As [`parse`](Self::parse), and if there is no address.
    pub fn parse_sender(text: &str, default: Option<&Mailbox>) -> Result<Mailbox, String> {
        let Named { name, address } = Named::parse(text)?;
        if !address.is_empty() {
            return Ok(Mailbox { name, address: Address::parse(address)? });
        }
        match default {
            Some(default) => Ok(Mailbox { name, address: default.address.clone() }),
            None => Err(format!("{} has no address, and no default sender is configured", Quoted(text))),
        }
    }
}

/// The parts of a mailbox, with an address that is not checked yet.
struct Named<'a> {
    name: Option<String>,
    address: &'a str,
}

impl<'a> Named<'a> {
    fn parse(text: &'a str) -> Result<Named<'a>, String> {
        if let Some(control) = text.chars().find(|c| c.is_control()) {
            return Err(format!("{}: control character {control:?}", Quoted(text)));
        }
        let text = text.trim();
        let Some(inner) = text.strip_suffix('>') else {
            return Ok(Named { name: None, address: text });
        };
        let Some((name, address)) = inner.rsplit_once('<') else {
            return Err(format!("{}: \">\" without \"<\"", Quoted(text)));
        };
        let phrase = Phrase::parse(name);
        if phrase.is_list() {
            return Err(format!("{}: more than one address; use a separate entry for each", Quoted(text)));
        }
        let name = phrase.text.trim();
        Ok(Named { name: (!name.is_empty()).then(|| name.to_owned()), address: address.trim() })
    }
}

/// A display name: words and quoted strings (RFC 5322, sections 3.2.4 and 3.2.5).
struct Phrase {
    /// Without the quotes.
    text: String,
    /// The text outside quotes.
    bare: String,
}

impl Phrase {
    /// Parses a phrase. A quote that is not closed is literal.
    fn parse(name: &str) -> Phrase {
        let mut phrase = Phrase { text: String::with_capacity(name.len()), bare: String::new() };
        let mut rest = name;
        while let Some(start) = rest.find('"') {
            let Some(end) = closing_quote(&rest[start + 1..]) else { break };
            phrase.push_bare(&rest[..start]);
            let mut chars = rest[start + 1..start + 1 + end].chars();
            while let Some(c) = chars.next() {
                phrase.text.extend(if c == '\\' { chars.next() } else { Some(c) });
            }
            rest = &rest[start + 1 + end + 1..];
        }
        phrase.push_bare(rest);
        phrase
    }

    fn push_bare(&mut self, text: &str) {
        self.text.push_str(text);
        self.bare.push_str(text);
    }

    /// Whether it contains another address, so that the text before the last `<` is not a name.
    fn is_list(&self) -> bool {
        self.bare.contains(['<', '>']) || (self.bare.contains('@') && self.bare.contains([',', ';']))
    }
}

/// The position of the closing quote, in the text after the opening one.
fn closing_quote(text: &str) -> Option<usize> {
    let mut is_escaped = false;
    text.char_indices().find_map(|(at, c)| {
        let ends = c == '"' && !is_escaped;
        is_escaped = c == '\\' && !is_escaped;
        ends.then_some(at)
    })
}

/// A checked local part. Leading, trailing and repeated dots, which some providers used (docomo, au), require quotes.
fn checked_local_part(local: &str) -> Result<Cow<'_, str>, String> {
    let has_loose_dots = local.split('.').any(str::is_empty) && local.contains(|c| c != '.');
    if has_loose_dots && local.chars().all(|c| is_atext(c) || c == '.') {
        let quoted = format!("\"{local}\"");
        check_local_part(&quoted)?;
        return Ok(Cow::Owned(quoted));
    }
    check_local_part(local)?;
    Ok(Cow::Borrowed(local))
}

/// Dot-string or quoted string (RFC 5321, section 4.1.2), with the letters of RFC 6531.
fn check_local_part(local: &str) -> Result<(), String> {
    if local.is_empty() {
        return Err("there is nothing before the \"@\"".into());
    }
    if local.len() > LOCAL_PART_BYTES_MAX {
        return Err(format!("more than {LOCAL_PART_BYTES_MAX} bytes before the \"@\""));
    }
    if let Some(inner) = local.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        return check_quoted(inner);
    }
    if local.split('.').any(str::is_empty) {
        return Err("a leading, trailing or repeated dot before the \"@\"".into());
    }
    match local.chars().find(|&c| !(is_atext(c) || c == '.')) {
        Some(c) => Err(format!("{c:?} before the \"@\"")),
        None => Ok(()),
    }
}

/// Stricter than the RFC: only dots and spaces need quotes. `<`, `>`, `,`, `@` and escapes would rely on correct quoting in every
/// server on the way.
fn check_quoted(inner: &str) -> Result<(), String> {
    match inner.chars().find(|&c| !(is_atext(c) || c == '.' || c == ' ')) {
        Some(c) => Err(format!("{c:?} in the quoted part before the \"@\"")),
        None if inner.trim().is_empty() => Err("there is nothing before the \"@\"".into()),
        None => Ok(()),
    }
}

/// RFC 5322, section 3.2.3, and RFC 6532, section 3.2.
fn is_atext(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c) || is_letter_beyond_ascii(c)
}

/// Excludes white space of other scripts, which is not used in addresses and is deceptive.
fn is_letter_beyond_ascii(c: char) -> bool {
    !c.is_ascii() && !c.is_whitespace() && !c.is_control()
}

/// The domain in ASCII: names by IDNA (UTS 46), address literals (RFC 5321, section 4.1.3) unchanged.
fn ascii_domain(domain: &str) -> Result<Cow<'_, str>, String> {
    if let Some(literal) = domain.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        let is_valid = match literal.strip_prefix("IPv6:") {
            Some(v6) => v6.parse::<Ipv6Addr>().is_ok(),
            None => literal.parse::<Ipv4Addr>().is_ok(),
        };
        return if is_valid { Ok(Cow::Borrowed(domain)) } else { Err(format!("{domain:?} is not an IP address")) };
    }
    let ascii = if domain.is_ascii() {
        Cow::Borrowed(domain)
    } else {
        idna::domain_to_ascii_cow(domain.as_bytes(), idna::AsciiDenyList::EMPTY)
            .map_err(|_| format!("{domain:?} is not a domain name"))?
    };
    if ascii.is_empty() {
        return Err("there is nothing after the \"@\"".into());
    }
    match ascii.split('.').find(|label| !is_label(label)) {
        Some(label) => Err(format!("{label:?} is not a valid part of a domain name")),
        None => Ok(ascii),
    }
}

/// RFC 1123, section 2.1. The underscore is not allowed there, but it is in use.
fn is_label(label: &str) -> bool {
    (1..=LABEL_BYTES_MAX).contains(&label.len())
        && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        && !label.starts_with('-')
        && !label.ends_with('-')
}

/// An invalid value in an error: quoted, escaped and truncated.
#[derive(Debug, Clone, Copy)]
pub struct Quoted<'a>(pub &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.char_indices().nth(QUOTED_CHARS_MAX) {
            Some((cut, _)) => write!(f, "{:?} …", &self.0[..cut]),
            None => write!(f, "{:?}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mailbox(text: &str) -> (Option<String>, String) {
        let mailbox = Mailbox::parse(text).unwrap();
        (mailbox.name, mailbox.address.as_str().to_owned())
    }

    #[test]
    fn the_forms_of_a_mailbox() {
        let table = [
            ("a@example.com", None, "a@example.com"),
            (" <a@example.com> ", None, "a@example.com"),
            ("Ann <a@example.com>", Some("Ann"), "a@example.com"),
            ("Ann, of Kent <a@example.com>", Some("Ann, of Kent"), "a@example.com"),
            (r#""Course" Staff <a@example.com>"#, Some("Course Staff"), "a@example.com"),
            (r#"Ann "the boss" Lee <a@example.com>"#, Some("Ann the boss Lee"), "a@example.com"),
            (r#"6" screen <a@example.com>"#, Some(r#"6" screen"#), "a@example.com"),
            (r#""Doe, Jane <x@y>; " <a@example.com>"#, Some("Doe, Jane <x@y>;"), "a@example.com"),
            ("a@example.com <a@example.com>", Some("a@example.com"), "a@example.com"),
            ("taro..suzuki@docomo.example", None, r#""taro..suzuki"@docomo.example"#),
            ("taro.@docomo.example", None, r#""taro."@docomo.example"#),
            (".taro@docomo.example", None, r#"".taro"@docomo.example"#),
            (r#""Ann \"the\" <x>" <a@example.com>"#, Some(r#"Ann "the" <x>"#), "a@example.com"),
            ("Zoë 🎓 <z@bücher.example>", Some("Zoë 🎓"), "z@xn--bcher-kva.example"),
            (r#""john doe"@example.com"#, None, r#""john doe"@example.com"#),
            ("zoë@example.com", None, "zoë@example.com"),
            ("o'neil+tag@sub_1.example.co", None, "o'neil+tag@sub_1.example.co"),
            ("root@localhost", None, "root@localhost"),
            ("root@[127.0.0.1]", None, "root@[127.0.0.1]"),
            ("root@[IPv6:::1]", None, "root@[IPv6:::1]"),
        ];
        for (text, name, address) in table {
            assert_eq!(mailbox(text), (name.map(String::from), address.to_owned()), "{text}");
        }
    }

    #[test]
    fn an_invalid_address_is_quoted_in_the_error() {
        let long_local = format!("{}@example.com", "x".repeat(65));
        let long_label = format!("a@{}.com", "x".repeat(64));
        let long = format!("a@{}com", "abcdefghi.".repeat(26));
        let table = [
            "",
            "a",
            "@example.com",
            "a@",
            "a@.",
            "a@example..com",
            "a@-x.com",
            "a@x-.com",
            "..@example.com",
            ".@example.com",
            "a..b c@example.com",
            "Ann <a@x.example>, Bob <b@x.example>",
            "Ann <a@x.example>; Bob <b@x.example>",
            "<a@x.example>, <b@x.example>",
            "a@x.example, Bob <b@x.example>",
            "a@x.example; Bob <b@x.example>",
            r#""Ann" <a@x.example>, "Bob" <b@x.example>"#,
            "a@x.example, b@x.example",
            "a@x.example;b@x.example",
            "Team: a@x.example, b@x.example;",
            "a\u{200b}b@example.com",
            "a@exa\u{200b}mple.com",
            "a@exam\u{ad}ple.com",
            "\u{202e}moc.elpmaxe@a",
            "ab\u{2066}@example.com",
            "a\u{e0041}@example.com",
            "a b@example.com",
            "a@exa mple.com",
            "a@b@example.com",
            "a@example.com>",
            "<a@example.com",
            "a@[1.2.3]",
            "a@[IPv6:zz]",
            "a,b@example.com",
            "a@example.com,b@x.org",
            "a@example.com\r\nRCPT TO:<b@x.org>",
            "Ann\n <a@example.com>",
            "a\0@example.com",
            "Ann <>",
            r#""a"b"@example.com"#,
            r#""a\"@example.com"#,
            r#""a>b"@example.com"#,
            r#""b@x.org, a"@example.com"#,
            "a\u{a0}b@example.com",
            &long_local,
            &long_label,
            &long,
        ];
        for text in table {
            let error = Mailbox::parse(text).expect_err(text);
            assert!(error.contains('"'), "{text:?}: {error}");
            assert!(!error.contains(['\r', '\n', '\0']), "{error:?}");
        }
    }

    #[test]
    fn a_name_without_an_address_gets_the_default_address() {
        let default = Mailbox::parse("Campus <no-reply@example.com>").unwrap();
        let sender = Mailbox::parse_sender("Course team <>", Some(&default)).unwrap();
        assert_eq!(sender.name.as_deref(), Some("Course team"));
        assert_eq!(sender.address, default.address);
        assert!(Mailbox::parse_sender("Course team <>", None).unwrap_err().contains("no default sender"));
    }
}
