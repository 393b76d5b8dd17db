//! What describes an attachment: its file name, its media type, and the id by which HTML shows it.

use crate::header::check_line;
use crate::mailbox::Quoted;

const FILE_NAME_BYTES_MAX: usize = 255;
const TOKEN_BYTES_MAX: usize = 127;
const CONTENT_ID_BYTES_MAX: usize = 200;

/// `type/subtype` and its parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediaType<'a> {
    /// `image/png`.
    pub essence: &'a str,
    /// Names and values, without quotes.
    pub parameters: Vec<(&'a str, &'a str)>,
}

impl<'a> MediaType<'a> {
    /// `type/subtype` with parameters (RFC 2045, section 5.1). Composite types are rejected, because their content has headers and must
    /// not be base64.
    ///
    /// # Errors
    /// That it is something else.
    pub fn parse(text: &'a str) -> Result<Self, String> {
        let invalid = || format!("attachments: content_type {}: expected something like \"image/png\"", Quoted(text));
        let mut pieces = text.split(';');
        let essence = pieces.next().unwrap_or_default().trim();
        let (kind, subtype) = essence.split_once('/').ok_or_else(invalid)?;
        let is_composite = kind.eq_ignore_ascii_case("multipart") || kind.eq_ignore_ascii_case("message");
        if !is_token(kind) || !is_token(subtype) || is_composite {
            return Err(invalid());
        }
        let mut parameters = Vec::new();
        for piece in pieces.map(str::trim).filter(|piece| !piece.is_empty()) {
            let (key, value) = piece.split_once('=').ok_or_else(invalid)?;
            let (key, value) = (key.trim(), value.trim().trim_matches('"'));
            let is_valid = value.len() <= FILE_NAME_BYTES_MAX && value.chars().all(|c| !c.is_control());
            if !is_token(key) || !is_valid {
                return Err(invalid());
            }
            parameters.push((key, value));
        }
        Ok(MediaType { essence, parameters })
    }
}

/// RFC 2045, section 5.1.
fn is_token(text: &str) -> bool {
    (1..=TOKEN_BYTES_MAX).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_graphic() && !br#"()<>@,;:\"/[]?="#.contains(&b))
}

/// Checks the name of an attached file.
///
/// # Errors
/// It is too long, or has a line break.
pub fn check_file_name(name: &str) -> Result<(), String> {
    check_line("attachments: file_name", name)?;
    match name.len() {
        ..=FILE_NAME_BYTES_MAX => Ok(()),
        _ => Err(format!("attachments: file_name {}: more than {FILE_NAME_BYTES_MAX} bytes", Quoted(name))),
    }
}

/// A Content-ID without angle brackets.
///
/// # Errors
/// It has other characters than a Content-ID.
pub fn content_id(id: &str) -> Result<&str, String> {
    let bare = id.strip_prefix('<').and_then(|rest| rest.strip_suffix('>')).unwrap_or(id);
    let is_valid = bare.bytes().all(|b| b.is_ascii_graphic() && !b"<>\"\\()".contains(&b));
    if bare.is_empty() || bare.len() > CONTENT_ID_BYTES_MAX || !is_valid {
        return Err(format!("attachments: content_id {}: expected ASCII letters, digits and \"@.-_\"", Quoted(id)));
    }
    Ok(bare)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_media_type_has_parameters_and_is_not_composite() {
        let media_type = MediaType::parse(" text/csv; charset=\"utf-8\"; header = present;").expect("valid");
        let parameters = vec![("charset", "utf-8"), ("header", "present")];
        assert_eq!(media_type, MediaType { essence: "text/csv", parameters });
        for wrong in ["", "text", "text/", "a b/c", "multipart/mixed", "message/rfc822", "a/b;c", "a/b\r\nX: y"] {
            assert!(MediaType::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn names_and_ids_fit_into_a_header() {
        assert_eq!((check_file_name("Zeugnis ü.pdf"), content_id("<logo@campus>")), (Ok(()), Ok("logo@campus")));
        assert!(check_file_name("a\nb").is_err() && check_file_name(&"x".repeat(256)).is_err());
        assert!(content_id("").is_err() && content_id("a>b").is_err());
    }
}
