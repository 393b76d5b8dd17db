//! The normal form of user ids and addresses, independent of how they are written. The queue uses it to index, list and erase the
//! messages of a person.

use std::borrow::Cow;

use icu_normalizer::ComposingNormalizerBorrowed;

/// The normal form of a user id: lower case (Unicode), composed (NFC), without invisible characters.
pub fn normal_user(user: &str) -> String {
    normal(&visible(user))
}

/// The normal form of an address. Of `Name <address>` only the address is used; the domain is in ASCII (IDNA), everything in lower case
/// and composed (NFC). Surrounding spaces, invisible characters, quotes around the local part and a dot after the domain are removed. A
/// text that is not an address is normalized like a user id.
pub fn normal_address(address: &str) -> String {
    let seen = visible(address);
    let bare = bare(&seen);
    let Some((local, domain)) = bare.rsplit_once('@') else { return normal(bare) };
    let domain = domain.trim().trim_end_matches('.');
    let domain = if domain.is_ascii() {
        domain.to_ascii_lowercase()
    } else {
        idna::domain_to_ascii(domain).unwrap_or_else(|_| normal(domain))
    };
    let local = local.trim();
    let unquoted = local.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(local);
    format!("{}@{domain}", normal(unquoted))
}

/// The kind and the normal form of an address, as one text: `email:alice@example.com`.
pub fn address_key(kind: &str, address: &str) -> String {
    match kind {
        "email" => format!("email:{}", normal_address(address)),
        "phone" => format!("phone:{}", normal_phone(address)),
        // Tokens are compared as they are, in their case.
        _ => format!("{kind}:{}", visible(address)),
    }
}

/// A phone number without the characters that only make it readable. The international prefix `00` becomes `+`.
fn normal_phone(text: &str) -> String {
    let is_layout = |c: char| matches!(c, ' ' | '-' | '.' | '/' | '(' | ')') || c.is_whitespace() || is_hidden(c);
    let digits = text.replace(is_layout, "");
    match digits.strip_prefix("00") {
        Some(international) => format!("+{international}"),
        None => digits.to_ascii_lowercase(),
    }
}

/// Why an address in a query is rejected, and how to write it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct AddressError(String);

/// Rejects an address in a query that is empty, or that has a space, which was a `+` before the URL was decoded.
///
/// # Errors
/// The address is empty, or has a space.
pub fn check_query_address(address: &str) -> Result<(), AddressError> {
    let bare = bare(address);
    if bare.trim().is_empty() {
        return Err(AddressError("is empty; give an address".to_owned()));
    }
    let (local, domain) = bare.rsplit_once('@').unwrap_or((bare, ""));
    // A quoted local part may hold spaces (RFC 5321, section 4.1.2).
    let is_quoted = local.len() > 1 && local.starts_with('"') && local.ends_with('"');
    if domain.contains(' ') || (!is_quoted && local.contains(' ')) {
        let (meant, written) = (bare.replace(' ', "+"), bare.replace(' ', "%2B"));
        return Err(AddressError(format!(
            "{address:?} contains a space, which addresses do not; in a URL, write + as %2B: {written} for {meant}"
        )));
    }
    Ok(())
}

/// The address in `Name <address>`; any other text unchanged.
fn bare(text: &str) -> &str {
    let inner = text.trim_end().strip_suffix('>').and_then(|text| text.rsplit_once('<'));
    inner.map_or(text.trim_end_matches(' '), |(_, address)| address.trim())
}

fn normal(text: &str) -> String {
    let text = text.trim();
    if text.is_ascii() {
        return text.to_ascii_lowercase();
    }
    let nfc = ComposingNormalizerBorrowed::new_nfc();
    nfc.normalize(&nfc.normalize(text).to_lowercase()).into_owned()
}

/// Removes invisible characters and surrounding white space.
fn visible(text: &str) -> Cow<'_, str> {
    let text = text.trim();
    if !text.is_ascii() && text.contains(is_hidden) {
        Cow::Owned(text.replace(is_hidden, "").trim().to_owned())
    } else {
        Cow::Borrowed(text)
    }
}

/// Whether a character is invisible, or changes the direction of text, so that a text is not what it looks like. Unicode's
/// `Default_Ignorable_Code_Point` and `Bidi_Control`, interlinear annotations, and blank fillers.
pub fn is_hidden(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}'
        | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}'
        | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}'
        | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_one_normal_form() {
        let table = [
            (
                "a@example.com",
                &["A@Example.COM", " a@example.com ", "a@example.com\u{a0}", "\u{feff}a@example.com"][..],
            ),
            (
                "éva@example.com",
                &["ÉVA@EXAMPLE.com", "E\u{301}va@example.com", "é\u{200b}va@example.com", "\u{a0}Éva@example.com"],
            ),
            (
                "a@xn--bcher-kva.example",
                &["a@bücher.example", "A@BÜCHER.example", "a@bu\u{308}cher.example", "a@XN--BCHER-KVA.example"],
            ),
            (
                "zoë@example.com",
                &["Zoë <ZOË@example.com>", "<zoë@example.com>", "zoë@example.com.", "\"zoë\"@example.com"],
            ),
            ("john doe@example.com", &["\"John Doe\"@example.com"]),
            ("taro..suzuki@docomo.example", &["\"taro..suzuki\"@docomo.example"]),
            ("no address", &[" No Address\u{3000}"]),
            ("οδυσσευς@example.com", &["ΟΔΥΣΣΕΥΣ@example.com"]),
        ];
        for (normal, forms) in table {
            for form in forms.iter().chain([&normal]) {
                assert_eq!(normal_address(form), normal, "{form:?}");
            }
        }
        assert_ne!(
            normal_address("ı@example.com"),
            normal_address("i@example.com"),
            "different letters are different people"
        );
        assert_ne!(normal_address("a+tag@example.com"), normal_address("a@example.com"));
        assert_eq!((normal_user(" ÉVA\u{a0}"), normal_user("7")), ("éva".to_owned(), "7".to_owned()));
    }

    #[test]
    fn a_space_in_a_queried_address_was_a_plus() {
        for address in ["a tag@x.example", " tag@x.example", "a b c@x.example", "a@x .example"] {
            let error = check_query_address(address).expect_err(address).to_string();
            assert!(error.contains("%2B"), "{error}");
        }
        for address in ["", " ", "Ann <>"] {
            assert!(check_query_address(address).expect_err("empty").to_string().contains("empty"), "{address:?}");
        }
        for address in [
            "a+tag@x.example",
            "a@x.example\u{a0}",
            "a@x.example ",
            "\"john doe\"@x.example",
            "Ann B <a@x.example>",
            "7",
        ] {
            assert_eq!(check_query_address(address), Ok(()), "{address:?}");
        }
    }
}
