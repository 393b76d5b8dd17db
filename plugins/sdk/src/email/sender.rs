//! The sender of a mail.

/// The value of the mail's `sender`: `None` is the relay's default, `Name <>` the relay's default address with a name.
///
/// The address is that of the message (`options.from_address`), otherwise the channel's default. The display name is that of the
/// message's address, otherwise the rendered `from_name`, otherwise that of the default.
///
/// # Errors
/// If an address is invalid.
pub fn sender(own: Option<&str>, default: Option<&str>, from_name: &str) -> Result<Option<String>, String> {
    match (own, default) {
        (Some(own), _) if has_name(own) => Ok(Some(own.trim().to_owned())),
        (Some(own), _) => {
            let address = address(own).map_err(|why| format!("options /from_address: {why}"))?;
            Ok(Some(named(from_name, address)))
        }
        (None, Some(default)) if from_name.is_empty() => Ok(Some(default.trim().to_owned())),
        (None, Some(default)) => {
            let address = address(default).map_err(|why| format!("config key \"default-from-email\": {why}"))?;
            Ok(Some(named(from_name, address)))
        }
        (None, None) if from_name.is_empty() => Ok(None),
        (None, None) => Ok(Some(format!("{} <>", display_name(from_name)))),
    }
}

/// The address in `Name <address>`, `<address>` or `address`.
///
/// # Errors
/// If it cannot be put between angle brackets. The host validates it fully.
pub fn address(mailbox: &str) -> Result<&str, String> {
    let bare = split(mailbox).map_or(mailbox, |(_, address)| address).trim();
    let is_valid = bare.contains('@') && !bare.chars().any(|c| c.is_control() || matches!(c, '<' | '>'));
    is_valid
        .then_some(bare)
        .ok_or_else(|| format!("{mailbox:?} is not an address; write name@domain or Name <name@domain>"))
}

fn has_name(mailbox: &str) -> bool {
    split(mailbox).is_some_and(|(name, _)| !matches!(name.trim(), "" | r#""""#))
}

/// `Name ` and `address` of `Name <address>`.
fn split(mailbox: &str) -> Option<(&str, &str)> {
    mailbox.trim().strip_suffix('>')?.rsplit_once('<')
}

fn named(name: &str, address: &str) -> String {
    match name {
        "" => address.to_owned(),
        name => format!("{} <{address}>", display_name(name)),
    }
}

/// A display name according to RFC 5322, section 3.2.5: atoms unchanged, anything else as a quoted string. Non-ASCII letters are
/// allowed in atoms (RFC 6532); the host encodes them.
pub fn display_name(name: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || !c.is_ascii() || " !#$%&'*+-/=?^_`{|}~".contains(c);
    if name.chars().all(is_plain) {
        return name.to_owned();
    }
    let escaped = name.replace('\\', "\\\\").replace('"', "\\\"");
    format!("\"{escaped}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(own: Option<&str>, default: Option<&str>, name: &str, expected: Option<&str>) {
        assert_eq!(sender(own, default, name), Ok(expected.map(str::to_owned)));
    }

    #[test]
    fn the_messages_address_takes_precedence_with_its_name_or_the_rendered_one() {
        check(Some("a@b.c"), Some("x@y.z"), "Jane", Some("Jane <a@b.c>"));
        check(Some(" Shop <a@b.c>"), Some("x@y.z"), "Jane", Some("Shop <a@b.c>"));
        check(Some("<a@b.c>"), None, "Jane", Some("Jane <a@b.c>"));
        check(Some("\"\" <a@b.c>"), None, "Jane", Some("Jane <a@b.c>"));
        check(Some("a@b.c"), None, "", Some("a@b.c"));
    }

    #[test]
    fn the_rendered_name_takes_precedence_over_that_of_a_default() {
        check(None, Some("Shop <x@y.z>"), "Jane", Some("Jane <x@y.z>"));
        check(None, Some("Shop <x@y.z>"), "", Some("Shop <x@y.z>"));
        check(None, None, "Jane", Some("Jane <>"));
        check(None, None, "", None);
    }

    #[test]
    fn names_are_quoted_if_necessary() {
        check(None, None, "Doe, Jane", Some("\"Doe, Jane\" <>"));
        check(None, None, "J. \"JD\" Doe \\", Some("\"J. \\\"JD\\\" Doe \\\\\" <>"));
        check(None, None, "Zoë Müller", Some("Zoë Müller <>"));
        check(Some("a@b.c"), None, "x <evil@b.c>", Some("\"x <evil@b.c>\" <a@b.c>"));
    }

    #[test]
    fn an_error_names_the_invalid_address() {
        let refused = sender(Some("a@b.c>, <d@e.f"), None, "Jane").expect_err("two addresses");
        assert!(refused.starts_with("options /from_address: "), "{refused}");
        assert!(sender(Some("a@b.c\r\nBcc: d@e.f"), None, "Jane").is_err());
        assert!(sender(None, Some("nobody"), "Jane").expect_err("no domain").contains("default-from-email"));
    }
}
