//! Builds the content of a mail (RFC 5322, RFC 2045) from checked parts.
//!
//! No value can leave its header or part: values that could are rejected with the name of the field. The same mail always has the
//! same bytes, except for its date.

use std::borrow::Cow;
use std::hash::{DefaultHasher, Hash, Hasher};

use ace_address::attachment::{self, MediaType};
use ace_address::header::{self, Value};
use ace_address::mailbox::{Address, Mailbox};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mail_builder::MessageBuilder;
use mail_builder::headers::HeaderType;
use mail_builder::headers::address::Address as HeaderAddress;
use mail_builder::headers::content_type::ContentType;
use mail_builder::headers::date::Date;
use mail_builder::headers::raw::Raw;
use mail_builder::headers::text::Text;
use mail_builder::mime::{BodyPart, MimePart};

use super::{Attachment, Email};

/// The most recipients of one mail: To, Cc and Bcc together.
pub(super) const RECIPIENTS_MAX: usize = 100;
/// The most headers that a guest may add to one mail.
pub(super) const HEADERS_MAX: usize = 100;
/// The most attachments of one mail.
pub(super) const ATTACHMENTS_MAX: usize = 100;
/// The most bytes of text, HTML, headers and attachments of one mail before encoding. base64 adds a third.
pub(super) const MAIL_BYTES_MAX: usize = 32 * 1024 * 1024;

/// The longest line (RFC 5322, section 2.1.1). Words cannot be folded.
const LINE_BYTES_MAX: usize = 998;
/// The recommended line length is 78; this leaves room for `Subject: `.
const PLAIN_WORD_BYTES_MAX: usize = 60;
/// The bytes of a line of 76 characters in base64 (RFC 2045, section 6.8).
const BASE64_LINE_INPUT: usize = 57;

/// The checked sender and recipients of a mail.
#[derive(Debug)]
pub(super) struct Mailboxes {
    pub(super) sender: Mailbox,
    pub(super) to: Vec<Mailbox>,
    pub(super) cc: Vec<Mailbox>,
    /// Only in the envelope.
    pub(super) bcc: Vec<Mailbox>,
    pub(super) reply_to: Vec<Mailbox>,
}

impl Mailboxes {
    /// Checks all addresses of a mail. The error names the field.
    pub(super) fn new(mail: &Email, sender: Mailbox) -> Result<Mailboxes, String> {
        let count = mail.recipients.len() + mail.cc.len() + mail.bcc.len();
        match count {
            0 => return Err("recipients: the mail has none".into()),
            1..=RECIPIENTS_MAX => {}
            _ => return Err(format!("recipients: {count} including cc and bcc; at most {RECIPIENTS_MAX} are allowed")),
        }
        if mail.reply_to.len() > RECIPIENTS_MAX {
            return Err(format!("reply_to: {} addresses; at most {RECIPIENTS_MAX} are allowed", mail.reply_to.len()));
        }
        Ok(Mailboxes {
            sender,
            to: parse_all("recipients", &mail.recipients)?,
            cc: parse_all("cc", &mail.cc)?,
            bcc: parse_all("bcc", &mail.bcc)?,
            reply_to: parse_all("reply_to", &mail.reply_to)?,
        })
    }

    /// The recipients of the envelope, without duplicates.
    pub(super) fn envelope(&self) -> Vec<&Address> {
        let mut addresses: Vec<&Address> = Vec::new();
        for mailbox in self.to.iter().chain(&self.cc).chain(&self.bcc) {
            if !addresses.contains(&&mailbox.address) {
                addresses.push(&mailbox.address);
            }
        }
        addresses
    }
}

fn parse_all(field: &str, texts: &[String]) -> Result<Vec<Mailbox>, String> {
    texts.iter().map(|text| Mailbox::parse(text).map_err(|problem| format!("{field}: {problem}"))).collect()
}

/// The content of the mail: header and body with CRLF, no line longer than 998 bytes, not yet dot-stuffed.
///
/// `message_id` has no angle brackets. The error names the invalid field.
pub(super) fn build(mail: &Email, mailboxes: &Mailboxes, message_id: &str, date: i64) -> Result<String, String> {
    check_size(mail)?;
    header::check_line("subject", &mail.subject)?;
    let mut builder = MessageBuilder::new()
        .header("From", header_addresses(std::slice::from_ref(&mailboxes.sender)))
        .header("Subject", subject(&mail.subject))
        .header("Message-ID", Raw::new(format!("<{message_id}>")))
        .header("Date", Date::new(date));
    for (name, list) in [("To", &mailboxes.to), ("Cc", &mailboxes.cc), ("Reply-To", &mailboxes.reply_to)] {
        if !list.is_empty() {
            builder = builder.header(name, header_addresses(list));
        }
    }
    if mailboxes.to.is_empty() && mailboxes.cc.is_empty() {
        builder = builder.header("To", Raw::new("undisclosed-recipients:;"));
    }
    for (name, value) in &mail.headers {
        header::check(name, value, !mail.reply_to.is_empty())?;
        builder = builder.header(name.as_str(), header_value(name, value)?);
    }
    let body = body(mail, Boundaries::new(mail, message_id))?;
    builder.body(body).write_to_string().map_err(|e| format!("cannot build the mail: {e}"))
}

/// The left part of a Message-ID that is safe in a header and a file name: only dot-atom characters (RFC 5322, section 3.6.4). If it
/// had to be changed or truncated, a hash of the original keeps it unique.
pub(super) fn safe_message_id(message_id: &str) -> String {
    const BYTES_MAX: usize = 120;
    let keep = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' };
    let safe: String = message_id.chars().map(keep).take(BYTES_MAX).collect();
    if safe == message_id && !safe.is_empty() && safe.split('.').all(|part| !part.is_empty()) {
        return safe;
    }
    format!("{}-{:016x}", safe.replace('.', "_"), hash(&[message_id.as_bytes()]))
}

fn check_size(mail: &Email) -> Result<(), String> {
    if mail.headers.len() > HEADERS_MAX {
        return Err(format!("headers: {}; at most {HEADERS_MAX} are allowed", mail.headers.len()));
    }
    if mail.attachments.len() > ATTACHMENTS_MAX {
        return Err(format!("attachments: {}; at most {ATTACHMENTS_MAX} are allowed", mail.attachments.len()));
    }
    let headers: usize = mail.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    let attachments: usize = mail.attachments.iter().map(|a| a.content.len()).sum();
    let html = mail.html.as_ref().map_or(0, String::len);
    let bytes = mail.subject.len() + mail.text.len() + html + headers + attachments;
    if bytes > MAIL_BYTES_MAX {
        return Err(format!("the mail has {bytes} bytes; at most {MAIL_BYTES_MAX} are allowed"));
    }
    Ok(())
}

fn header_value<'a>(name: &str, value: &'a str) -> Result<HeaderType<'a>, String> {
    Ok(match header::value(name, value)? {
        Value::Ascii(text) => raw(name, text)?,
        Value::Text(text) => Text::new(text).into(),
        Value::Mailboxes(list) => HeaderAddress::new_list(list.iter().map(header_address).collect()).into(),
        Value::ListId(phrase, id) => HeaderAddress::new_address(Some(phrase), id.to_owned()).into(),
    })
}

fn raw<'a>(name: &str, value: impl Into<Cow<'a, str>>) -> Result<HeaderType<'a>, String> {
    let value = value.into();
    match longest_line(name, &value) {
        ..=LINE_BYTES_MAX => Ok(Raw::new(value).into()),
        bytes => Err(format!(
            "headers: {name}: a line of {bytes} bytes that cannot be folded; the maximum is {LINE_BYTES_MAX}"
        )),
    }
}

/// The subject as it is if it is ASCII and can be folded, otherwise as encoded words.
fn subject(subject: &str) -> HeaderType<'_> {
    let plain = subject.bytes().all(|b| (b' '..=b'~').contains(&b))
        && subject.trim() == subject
        && longest_piece(subject).1 <= PLAIN_WORD_BYTES_MAX;
    if plain { Raw::new(subject).into() } else { Text::new(subject).into() }
}

/// The longest line after folding. The first line starts with the header's name.
fn longest_line(name: &str, value: &str) -> usize {
    let (first, longest) = longest_piece(value);
    longest.max(name.len() + 2 + first)
}

/// The bytes before the first folding point, and the most bytes between two of them.
fn longest_piece(value: &str) -> (usize, usize) {
    let (mut first, mut longest, mut piece, mut in_word) = (None, 0, 0, false);
    for byte in value.bytes() {
        let is_space = byte == b' ' || byte == b'\t';
        if is_space && in_word {
            first = first.or(Some(piece));
            piece = 0;
        }
        in_word = !is_space;
        piece += 1;
        longest = longest.max(piece);
    }
    (first.unwrap_or(piece), longest)
}

fn header_addresses(list: &[Mailbox]) -> HeaderType<'_> {
    match list {
        [single] => header_address(single).into(),
        many => HeaderAddress::new_list(many.iter().map(header_address).collect()).into(),
    }
}

fn header_address(mailbox: &Mailbox) -> HeaderAddress<'static> {
    HeaderAddress::new_address(mailbox.name.clone(), mailbox.address.as_str().to_owned())
}

/// Combines text and HTML in multipart/alternative (plainest first: RFC 2046, section 5.1.4), HTML and inline images in
/// multipart/related (RFC 2387), and everything with other attachments in multipart/mixed.
fn body<'a>(mail: &'a Email, boundaries: Boundaries) -> Result<MimePart<'a>, String> {
    let is_inline = |a: &&Attachment| mail.html.is_some() && a.content_id.is_some();
    let related = mail.attachments.iter().filter(is_inline).map(attachment_part).collect::<Result<Vec<_>, _>>()?;
    let mixed =
        mail.attachments.iter().filter(|a| !is_inline(a)).map(attachment_part).collect::<Result<Vec<_>, _>>()?;

    let html = mail.html.as_deref().map(|html| {
        let html = text_part("text/html", html);
        if related.is_empty() { html } else { boundaries.multipart("related", html, related) }
    });
    let text = match html {
        Some(html) if mail.text.is_empty() => html,
        Some(html) => boundaries.multipart("alternative", text_part("text/plain", &mail.text), vec![html]),
        None => text_part("text/plain", &mail.text),
    };
    Ok(if mixed.is_empty() { text } else { boundaries.multipart("mixed", text, mixed) })
}

fn text_part<'a>(content_type: &'static str, text: &'a str) -> MimePart<'a> {
    let text = canonical_line_ends(text);
    let content_type = ContentType::new(content_type).attribute("charset", "utf-8");
    if has_control(text.as_bytes()) {
        return base64_part(content_type, text.as_bytes());
    }
    MimePart::new(content_type, BodyPart::Text(text))
}

fn attachment_part(attachment: &Attachment) -> Result<MimePart<'_>, String> {
    let Attachment { file_name, content_type, content, content_id } = attachment;
    attachment::check_file_name(file_name)?;
    let content_type = content_type_header(content_type)?;
    // mail-builder uses base64 for everything except text.
    let mut part = if content_type.is_text() && (has_control(content) || has_bare_cr(content)) {
        base64_part(content_type, content)
    } else {
        MimePart::new(content_type, BodyPart::Binary(Cow::Borrowed(content)))
    };
    let mut disposition = ContentType::new(if content_id.is_some() { "inline" } else { "attachment" });
    if !file_name.is_empty() {
        disposition = disposition.attribute("filename", file_name.as_str());
    }
    part = part.header("Content-Disposition", disposition);
    if let Some(id) = content_id {
        part = part.header("Content-ID", Raw::new(format!("<{}>", attachment::content_id(id)?)));
    }
    Ok(part)
}

fn content_type_header(text: &str) -> Result<ContentType<'_>, String> {
    let MediaType { essence, parameters } = MediaType::parse(text)?;
    let content_type = ContentType::new(essence);
    Ok(parameters.into_iter().fold(content_type, |content_type, (key, value)| content_type.attribute(key, value)))
}

/// Replaces bare carriage returns by line ends. They are forbidden (RFC 5322, section 2.3), and servers that treat them as line ends
/// could find a premature end of the mail.
fn canonical_line_ends(text: &str) -> Cow<'_, str> {
    if !has_bare_cr(text.as_bytes()) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.replace("\r\n", "\n").replace('\r', "\n"))
}

fn has_bare_cr(bytes: &[u8]) -> bool {
    bytes.contains(&b'\r') && bytes.iter().enumerate().any(|(i, &b)| b == b'\r' && bytes.get(i + 1) != Some(&b'\n'))
}

/// Control characters, which mail-builder would not encode in ASCII text.
fn has_control(bytes: &[u8]) -> bool {
    let is_forbidden = |b: u8| b < b' ' && !matches!(b, b'\t' | b'\r' | b'\n');
    // No early exit, so that the compiler vectorizes the loop: ten times as fast on usual text, which has none.
    bytes.iter().fold(false, |found, &b| found | is_forbidden(b))
}

fn base64_part<'a>(content_type: ContentType<'a>, bytes: &[u8]) -> MimePart<'a> {
    let mut lines = String::with_capacity(bytes.len() / BASE64_LINE_INPUT * 78 + 80);
    for line in bytes.chunks(BASE64_LINE_INPUT) {
        STANDARD.encode_string(line, &mut lines);
        lines.push_str("\r\n");
    }
    MimePart::new(content_type, BodyPart::Binary(Cow::Owned(lines.into_bytes()))).transfer_encoding("base64")
}

/// The boundaries between the parts of one mail. They are derived from the Message-ID, so that all attempts send the same bytes, and
/// from a salt that is incremented until no text contains them, so that no text can add a part.
struct Boundaries(String);

impl Boundaries {
    fn new(mail: &Email, message_id: &str) -> Boundaries {
        let html = mail.html.as_deref().unwrap_or_default();
        let is_used = |mark: &str| {
            let has = |content: &[u8]| memchr::memmem::find(content, mark.as_bytes()).is_some();
            has(mail.text.as_bytes()) || has(html.as_bytes()) || mail.attachments.iter().any(|a| has(&a.content))
        };
        let mut salt = 0u64;
        loop {
            let mark = format!("{:016x}", hash(&[message_id.as_bytes(), &salt.to_le_bytes()]));
            if !is_used(&mark) {
                return Boundaries(mark);
            }
            salt += 1;
        }
    }

    /// The boundary has `=_`, which occurs neither in quoted-printable nor in base64 (RFC 2045, section 6.7).
    fn multipart<'a>(&self, subtype: &'static str, first: MimePart<'a>, rest: Vec<MimePart<'a>>) -> MimePart<'a> {
        let mut parts = Vec::with_capacity(rest.len() + 1);
        parts.push(first);
        parts.extend(rest);
        let content_type =
            ContentType::new(format!("multipart/{subtype}")).attribute("boundary", format!("=_{subtype}_{}", self.0));
        MimePart::new(content_type, BodyPart::Multipart(parts))
    }
}

fn hash(pieces: &[&[u8]]) -> u64 {
    let mut hasher = DefaultHasher::new();
    pieces.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests;
