//! Who a mail is from.

/// What goes into the mail's `sender`: `None` is the relay's default, `Name <>` the relay's default under a name.
///
/// The address is the message's own (`options.from_address`), else the channel's default. The rendered `from_name` is the
/// display name, unless the message's own address has one; that of a default gives way.
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
        (None, None) => Ok(Some(format!("{} <>", phrase(from_name)))),
    }
}

/// The address of `Name <address>`, `<address>` or `address`. Whether it is one in truth is for the host to say; here it
/// must only be fit to be put between angle brackets.
pub fn address(mailbox: &str) -> Result<&str, String> {
    let bare = split(mailbox).map_or(mailbox, |(_, address)| address).trim();
    let sound = bare.contains('@') && !bare.chars().any(|c| c.is_control() || matches!(c, '<' | '>'));
    sound.then_some(bare).ok_or_else(|| format!("{mailbox:?} is no address; write name@domain or Name <name@domain>"))
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
        name => format!("{} <{address}>", phrase(name)),
    }
}

/// A display name as RFC 5322, section 3.2.5, wants it: words of atoms as they are, anything else as a quoted string. Letters
/// beyond ASCII belong to words (RFC 6532); the host encodes them.
fn phrase(name: &str) -> String {
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
    fn the_messages_own_address_wins_with_its_own_name_or_the_rendered_one() {
        check(Some("a@b.c"), Some("x@y.z"), "Jane", Some("Jane <a@b.c>"));
        check(Some(" Shop <a@b.c>"), Some("x@y.z"), "Jane", Some("Shop <a@b.c>"));
        check(Some("<a@b.c>"), None, "Jane", Some("Jane <a@b.c>"));
        check(Some("\"\" <a@b.c>"), None, "Jane", Some("Jane <a@b.c>"));
        check(Some("a@b.c"), None, "", Some("a@b.c"));
    }

    #[test]
    fn a_defaults_name_gives_way_to_the_rendered_one() {
        check(None, Some("Shop <x@y.z>"), "Jane", Some("Jane <x@y.z>"));
        check(None, Some("Shop <x@y.z>"), "", Some("Shop <x@y.z>"));
        check(None, None, "Jane", Some("Jane <>"));
        check(None, None, "", None);
    }

    #[test]
    fn names_are_quoted_where_they_must_be() {
        check(None, None, "Doe, Jane", Some("\"Doe, Jane\" <>"));
        check(None, None, "J. \"JD\" Doe \\", Some("\"J. \\\"JD\\\" Doe \\\\\" <>"));
        check(None, None, "Zoë Müller", Some("Zoë Müller <>"));
        check(Some("a@b.c"), None, "x <evil@b.c>", Some("\"x <evil@b.c>\" <a@b.c>"));
    }

    #[test]
    fn what_is_no_address_is_refused_and_named() {
        let refused = sender(Some("a@b.c>, <d@e.f"), None, "Jane").expect_err("two addresses");
        assert!(refused.starts_with("options /from_address: "), "{refused}");
        assert!(sender(Some("a@b.c\r\nBcc: d@e.f"), None, "Jane").is_err());
        assert!(sender(None, Some("nobody"), "Jane").expect_err("no domain").contains("default-from-email"));
    }
}
