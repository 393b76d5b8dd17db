//! The parts of a mail. Whatever a mail contains, reading it takes time in proportion to its length, and little memory.

use std::borrow::Cow;

use mail_parser::HeaderValue;
use mail_parser::decoders::base64::base64_decode;
use mail_parser::decoders::quoted_printable::quoted_printable_decode;
use mail_parser::parsers::MessageStream;

/// Bytes of a block of fields that are read, and of the value of one.
const BLOCK_BYTES_MAX: usize = 64 * 1024;
const VALUE_BYTES_MAX: usize = 8 * 1024;
/// Fields of a block that are read.
const FIELDS_MAX: usize = 1_000;
/// Bytes of the content of a part that are read.
const CONTENT_BYTES_MAX: usize = 256 * 1024;
/// Parts of one multipart that are read.
const PARTS_MAX: usize = 16;

/// Fields of the form `Name: value`, with names in lower case and values without line breaks.
#[derive(Debug, Default)]
pub(crate) struct Fields(Vec<(String, String)>);

/// A mail, or a part of one.
pub(crate) struct Part<'a> {
    pub(crate) fields: Fields,
    /// The media type, such as `message/delivery-status`.
    pub(crate) media_type: String,
    boundary: Option<String>,
    body: &'a [u8],
}

impl Fields {
    /// The fields of a block. Lines that are no fields are left out.
    pub(crate) fn read(block: &[u8]) -> Fields {
        let block = String::from_utf8_lossy(&block[..block.len().min(BLOCK_BYTES_MAX)]);
        let mut fields: Vec<(String, String)> = Vec::new();
        for line in block.lines() {
            match (line.starts_with([' ', '\t']), fields.last_mut(), line.split_once(':')) {
                (true, Some((_, value)), _) => extend(value, line),
                (false, _, Some((name, start))) => {
                    if fields.len() == FIELDS_MAX {
                        break;
                    }
                    let mut value = String::new();
                    extend(&mut value, start);
                    fields.push((name.trim_end().to_ascii_lowercase(), value));
                }
                _ => {}
            }
        }
        Fields(fields)
    }

    /// The values of the fields with a name, in their order.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn first(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

fn extend(value: &mut String, line: &str) {
    let line = line.trim();
    if value.len() + line.len() < VALUE_BYTES_MAX {
        if !value.is_empty() {
            value.push(' ');
        }
        value.push_str(line);
    }
}

impl<'a> Part<'a> {
    pub(crate) fn read(bytes: &'a [u8]) -> Part<'a> {
        let (head, body) = first_block(bytes);
        let fields = Fields::read(head);
        let content_type = format!("{}\n", fields.first("content-type").unwrap_or("text/plain"));
        let HeaderValue::ContentType(parsed) = MessageStream::new(content_type.as_bytes()).parse_content_type() else {
            return Part { fields, media_type: "text/plain".to_owned(), boundary: None, body };
        };
        let media_type = format!("{}/{}", parsed.ctype(), parsed.subtype().unwrap_or_default()).to_ascii_lowercase();
        let boundary = parsed.attribute("boundary").map(str::to_owned);
        Part { fields, media_type, boundary, body }
    }

    /// The parts of a multipart; none of another part.
    pub(crate) fn parts(&self) -> Vec<Part<'a>> {
        let Some(boundary) = self.boundary.as_ref().filter(|_| self.media_type.starts_with("multipart/")) else {
            return Vec::new();
        };
        let mut parts = Vec::new();
        // Where the current part starts; none is before the first boundary.
        let mut start = None;
        let (mut at, mut rest) = (0, self.body);
        while !rest.is_empty() && parts.len() < PARTS_MAX {
            let (line, next) = first_line(rest);
            if let Some(is_last) = ends_part(line, boundary) {
                parts.extend(start.map(|start: usize| Part::read(&self.body[start..at])));
                start = Some(self.body.len() - next.len());
                if is_last {
                    return parts;
                }
            }
            at = self.body.len() - next.len();
            rest = next;
        }
        // The end is missing in a mail that was cut.
        parts.extend(start.filter(|_| rest.is_empty()).map(|start| Part::read(&self.body[start..])));
        parts
    }

    /// The start of the decoded content.
    pub(crate) fn content(&self) -> Cow<'a, [u8]> {
        let body = &self.body[..self.body.len().min(CONTENT_BYTES_MAX)];
        let encoding = self.fields.first("content-transfer-encoding").unwrap_or_default().to_ascii_lowercase();
        let decoded = match encoding.as_str() {
            "base64" => base64_decode(body),
            "quoted-printable" => quoted_printable_decode(body),
            _ => None,
        };
        decoded.map_or(Cow::Borrowed(body), Cow::Owned)
    }
}

/// The lines before the first empty one, and those after it.
pub(crate) fn first_block(bytes: &[u8]) -> (&[u8], &[u8]) {
    let mut rest = bytes;
    loop {
        let (line, next) = first_line(rest);
        if line.is_empty() {
            return (&bytes[..bytes.len() - rest.len()], next);
        }
        rest = next;
    }
}

/// The first line without its end, and what comes after it.
fn first_line(bytes: &[u8]) -> (&[u8], &[u8]) {
    let end = bytes.iter().position(|byte| *byte == b'\n');
    let (line, rest) = end.map_or((bytes, &bytes[bytes.len()..]), |end| (&bytes[..end], &bytes[end + 1..]));
    (line.strip_suffix(b"\r").unwrap_or(line), rest)
}

/// Whether a line is the boundary after a part, and after the last one.
fn ends_part(line: &[u8], boundary: &str) -> Option<bool> {
    match line.strip_prefix(b"--")?.strip_prefix(boundary.as_bytes())?.trim_ascii_end() {
        b"" => Some(false),
        b"--" => Some(true),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_unfolded_and_other_lines_left_out() {
        let fields = Fields::read(b"From ann Mon Nov 30\n folded\nA: 1\r\n\t2 \nnonsense\nb : x\xff\nA:3\n: \n");
        assert_eq!(fields.all("a").collect::<Vec<_>>(), ["1 2", "3"]);
        assert_eq!((fields.first("b"), fields.first("c")), (Some("x\u{fffd}"), None));
        let long = format!("A: {}\n {}\n x", "y".repeat(9_000), "z".repeat(100));
        assert_eq!(Fields::read(long.as_bytes()).first("a").map(str::len), Some(102), "what is too long is left out");
        assert_eq!(Fields::read("To:a\n".repeat(FIELDS_MAX + 1).as_bytes()).all("to").count(), FIELDS_MAX);
    }

    #[test]
    fn parts_are_found_whatever_is_around_them() {
        let mail =
            b"Content-Type: Multipart/Report; report-type=x;\r\n boundary=\"a b\"\r\n\r\npreamble\r\n--a b  \r\n\
            Content-Type: TEXT/x\r\n\r\none\r\n--a bc\r\n--a b\r\n\r\ntwo\r\n--a b--\r\n--a b\r\n\r\nepilogue";
        let parts = Part::read(mail).parts();
        let seen: Vec<_> = parts.iter().map(|part| (part.media_type.as_str(), part.body)).collect();
        assert_eq!(seen, [("text/x", &b"one\r\n--a bc\r\n"[..]), ("text/plain", b"two\r\n")]);
        let cut =
            b"Content-Type: multipart/x; boundary=b\n\n--b\n\none\n--b\nContent-Transfer-Encoding: BASE64\n\ndHdv";
        let parts = Part::read(cut).parts();
        assert_eq!(parts.iter().map(|part| part.content().into_owned()).collect::<Vec<_>>(), [&b"one\n"[..], b"two"]);
        for none in
            ["", "\n\n", "Content-Type: multipart/x\n\n--\n", "Content-Type: text/x; boundary=b\n\n--b\n\n--b--"]
        {
            assert!(Part::read(none.as_bytes()).parts().is_empty(), "{none:?}");
        }
        let many = format!("Content-Type: multipart/x; boundary=b\n\n{}", "--b\n\nx\n".repeat(1_000));
        assert_eq!(Part::read(many.as_bytes()).parts().len(), PARTS_MAX);
    }

    #[test]
    fn content_is_decoded_and_left_as_it_is_if_that_fails() {
        let content = |encoding: &str, body: &str| {
            let part = format!("Content-Transfer-Encoding: {encoding}\n\n{body}");
            String::from_utf8_lossy(&Part::read(part.as_bytes()).content()).into_owned()
        };
        assert_eq!(content("quoted-printable", "a=3D=\nb"), "a=b");
        assert_eq!(content("base64", "YQ==\r\n"), "a");
        assert_eq!(content("base64", "!!"), "!!");
        assert_eq!(content("8bit", &"x".repeat(CONTENT_BYTES_MAX + 1)).len(), CONTENT_BYTES_MAX);
    }
}
