//! Builds the bytes of a mail (RFC 5322, RFC 2045) from checked parts.
//!
//! Whatever a value contains, it stays inside its own header or part: values that could leave it are refused with the name
//! of the field, and the same mail always gives the same bytes, but for its date.

use std::borrow::Cow;
use std::hash::{DefaultHasher, Hash, Hasher};

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

use super::address::{Address, Mailbox, Shown};
use super::{Attachment, Email};

/// Recipients of one mail: To, Cc and Bcc together.
pub(super) const RECIPIENTS_MAX: usize = 100;
/// Headers a guest may add to one mail.
pub(super) const HEADERS_MAX: usize = 100;
/// Attachments of one mail.
pub(super) const ATTACHMENTS_MAX: usize = 100;
/// Text, HTML, headers and attachments of one mail before they are encoded; base64 adds a third.
pub(super) const MAIL_BYTES_MAX: usize = 32 * 1024 * 1024;

/// No line may be longer than 998 bytes (RFC 5322, section 2.1.1), and a word cannot be folded.
const LINE_BYTES_MAX: usize = 998;
const HEADER_NAME_BYTES_MAX: usize = 76;
const FILE_NAME_BYTES_MAX: usize = 255;
const TOKEN_BYTES_MAX: usize = 127;
const CONTENT_ID_BYTES_MAX: usize = 200;
/// Readers would like lines of at most 78; this leaves room for `Subject: `.
const PLAIN_WORD_BYTES_MAX: usize = 60;
/// RFC 2045, section 6.8: 57 bytes make a line of 76.
const BASE64_LINE_INPUT: usize = 57;

/// Headers that only the host writes.
const HOST_HEADERS: [&str; 9] =
    ["from", "to", "cc", "bcc", "date", "message-id", "subject", "mime-version", "return-path"];

/// Who a mail is from and to, checked.
#[derive(Debug)]
pub(super) struct Mailboxes {
    pub(super) sender: Mailbox,
    pub(super) to: Vec<Mailbox>,
    pub(super) cc: Vec<Mailbox>,
    /// In the envelope only.
    pub(super) bcc: Vec<Mailbox>,
    pub(super) reply_to: Vec<Mailbox>,
}

impl Mailboxes {
    /// Checks every address of a mail. The error names the field.
    pub(super) fn new(mail: &Email, sender: Mailbox) -> Result<Mailboxes, String> {
        let count = mail.recipients.len() + mail.cc.len() + mail.bcc.len();
        match count {
            0 => return Err("recipients: the mail has none".into()),
            1..=RECIPIENTS_MAX => {}
            _ => return Err(format!("recipients: {count} with cc and bcc, at most {RECIPIENTS_MAX} are allowed")),
        }
        if mail.reply_to.len() > RECIPIENTS_MAX {
            return Err(format!("reply_to: {} addresses, at most {RECIPIENTS_MAX} are allowed", mail.reply_to.len()));
        }
        Ok(Mailboxes {
            sender,
            to: parse_all("recipients", &mail.recipients)?,
            cc: parse_all("cc", &mail.cc)?,
            bcc: parse_all("bcc", &mail.bcc)?,
            reply_to: parse_all("reply_to", &mail.reply_to)?,
        })
    }

    /// The envelope's recipients, each once.
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

/// The mail's bytes: header and body with CRLF line ends, none longer than 998 bytes, not yet dot-stuffed.
///
/// `message_id` is what stands between the angle brackets. The error names the field that cannot be.
pub(super) fn build(mail: &Email, mailboxes: &Mailboxes, message_id: &str, date: i64) -> Result<String, String> {
    check_size(mail)?;
    check_text("subject", &mail.subject)?;
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
        check_header(name, value, mail)?;
        builder = builder.header(name.as_str(), header_value(name, value)?);
    }
    let body = body(mail, Boundaries::new(mail, message_id))?;
    builder.body(body).write_to_string().map_err(|e| format!("the mail cannot be built: {e}"))
}

/// The left part of a Message-ID, safe in a header and a file name: dot-atom characters only (RFC 5322, section 3.6.4).
/// What had to be changed or cut is told apart by a hash of the whole.
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
        return Err(format!("headers: {}, at most {HEADERS_MAX} are allowed", mail.headers.len()));
    }
    if mail.attachments.len() > ATTACHMENTS_MAX {
        return Err(format!("attachments: {}, at most {ATTACHMENTS_MAX} are allowed", mail.attachments.len()));
    }
    let headers: usize = mail.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    let attachments: usize = mail.attachments.iter().map(|a| a.content.len()).sum();
    let html = mail.html.as_ref().map_or(0, String::len);
    let bytes = mail.subject.len() + mail.text.len() + html + headers + attachments;
    if bytes > MAIL_BYTES_MAX {
        return Err(format!("the mail has {bytes} bytes, at most {MAIL_BYTES_MAX} are allowed"));
    }
    Ok(())
}

/// Line breaks and NUL end a header in some reader or other; a value that has them is refused, not mended.
fn check_text(field: &str, value: &str) -> Result<(), String> {
    match value.chars().find(|c| matches!(c, '\r' | '\n' | '\0')) {
        Some(c) => Err(format!("{field}: {c:?} is not allowed in it: {}", Shown(value))),
        None => Ok(()),
    }
}

fn check_header(name: &str, value: &str, mail: &Email) -> Result<(), String> {
    let is_ftext = |b: u8| (33..=126).contains(&b) && b != b':';
    if name.is_empty() || name.len() > HEADER_NAME_BYTES_MAX || !name.bytes().all(is_ftext) {
        return Err(format!("headers: {} is not a header name (RFC 5322, section 3.6.8)", Shown(name)));
    }
    let lower = name.to_ascii_lowercase();
    if HOST_HEADERS.contains(&lower.as_str()) || lower.starts_with("content-") {
        return Err(format!("headers: {name} is written by the host; use the mail's own fields"));
    }
    if lower == "reply-to" && !mail.reply_to.is_empty() {
        return Err("headers: Reply-To is given twice; leave the header or the field reply_to out".into());
    }
    check_text(&format!("headers: {name}"), value)?;
    match value.chars().find(|&c| c.is_control() && c != '\t') {
        Some(c) => Err(format!("headers: {name}: control character {c:?}")),
        None => Ok(()),
    }
}

/// What stands in a header that a guest adds.
enum Content {
    /// Words for people (RFC 5322, section 2.2.1).
    Unstructured,
    /// A list of mailboxes.
    Mailboxes,
    /// `phrase <id>` (RFC 2919).
    ListId,
    /// `<URL>, <URL>` (RFC 2369).
    Urls,
    /// Names and numbers that programs read.
    Structured,
}

impl Content {
    fn of(header: &str) -> Content {
        match header.to_ascii_lowercase().as_str() {
            "reply-to"
            | "sender"
            | "errors-to"
            | "return-receipt-to"
            | "disposition-notification-to"
            | "mail-followup-to"
            | "mail-reply-to"
            | "resent-from"
            | "resent-sender"
            | "resent-to"
            | "resent-cc" => Content::Mailboxes,
            "list-id" => Content::ListId,
            "list-unsubscribe" | "list-subscribe" | "list-help" | "list-post" | "list-owner" | "list-archive" => {
                Content::Urls
            }
            "references"
            | "in-reply-to"
            | "resent-message-id"
            | "resent-date"
            | "list-unsubscribe-post"
            | "precedence"
            | "auto-submitted"
            | "importance"
            | "priority"
            | "x-priority"
            | "feedback-id"
            | "dkim-signature"
            | "received"
            | "original-message-id" => Content::Structured,
            _ => Content::Unstructured,
        }
    }
}

/// ASCII as it is. Beyond that an encoded word may only stand where words for people do: in a structured header it would spoil the
/// address or the URL (RFC 2047, section 5), so there the name alone is encoded.
fn header_value<'a>(name: &str, value: &'a str) -> Result<HeaderType<'a>, String> {
    let value = value.trim_matches([' ', '\t']);
    if value.is_ascii() {
        return raw(name, value);
    }
    let wrong = |why: String| format!("headers: {name}: {why}");
    match Content::of(name) {
        Content::Unstructured => Ok(Text::new(value).into()),
        Content::Mailboxes => {
            let list = split_mailboxes(value).map(Mailbox::parse).collect::<Result<Vec<_>, _>>().map_err(wrong)?;
            let all = list.iter().map(header_address).collect();
            Ok(HeaderAddress::new_list(all).into())
        }
        Content::ListId => {
            let parts = value.strip_suffix('>').and_then(|rest| rest.rsplit_once('<'));
            let (phrase, id) = parts.filter(|(_, id)| id.is_ascii()).ok_or_else(|| {
                wrong(format!(
                    "{}: an id of ASCII letters between \"<\" and \">\" is expected at its end",
                    Shown(value)
                ))
            })?;
            let phrase = phrase.trim().trim_matches('"').to_owned();
            Ok(HeaderAddress::new_address(Some(phrase), id.trim().to_owned()).into())
        }
        Content::Urls => raw(name, ascii_urls(value).map_err(wrong)?),
        Content::Structured => Err(wrong(format!("{}: only ASCII can stand in it", Shown(value)))),
    }
}

fn raw<'a>(name: &str, value: impl Into<Cow<'a, str>>) -> Result<HeaderType<'a>, String> {
    let value = value.into();
    match longest_line(name, &value) {
        ..=LINE_BYTES_MAX => Ok(Raw::new(value).into()),
        bytes => Err(format!(
            "headers: {name}: a line of {bytes} bytes that cannot be broken; a line has at most {LINE_BYTES_MAX}"
        )),
    }
}

/// The mailboxes of a list, parted at commas outside quotes.
fn split_mailboxes(list: &str) -> impl Iterator<Item = &str> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    list.split(move |c| {
        let is_quote = c == '"' && !is_escaped;
        is_escaped = c == '\\' && is_quoted && !is_escaped;
        is_quoted ^= is_quote;
        c == ',' && !is_quoted
    })
}

/// The URLs of `<URL>, <URL>` in the form that the URL standard gives them, which is ASCII: hosts by IDNA, the rest percent-encoded.
fn ascii_urls(value: &str) -> Result<String, String> {
    let url = |part: &str| {
        let inner = part.trim().strip_prefix('<').and_then(|rest| rest.strip_suffix('>'));
        let inner = inner.ok_or_else(|| format!("{}: a URL between \"<\" and \">\" is expected", Shown(part)))?;
        url::Url::parse(inner).map(|url| format!("<{url}>")).map_err(|e| format!("{}: {e}", Shown(inner)))
    };
    Ok(value.split(',').map(url).collect::<Result<Vec<_>, _>>()?.join(", "))
}

/// ASCII that folds well stays readable on the wire, anything else becomes encoded words.
fn subject(subject: &str) -> HeaderType<'_> {
    let plain = subject.bytes().all(|b| (b' '..=b'~').contains(&b))
        && subject.trim() == subject
        && longest_piece(subject).1 <= PLAIN_WORD_BYTES_MAX;
    if plain { Raw::new(subject).into() } else { Text::new(subject).into() }
}

/// The longest line that folding leaves: the first one begins with the header's name.
fn longest_line(name: &str, value: &str) -> usize {
    let (first, longest) = longest_piece(value);
    longest.max(name.len() + 2 + first)
}

/// The bytes before the first place where a line can be folded, and the most between two of them: a run of white space and the word
/// after it.
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

/// text and html as multipart/alternative (RFC 2046, section 5.1.4: the plainest first), the inline images with the html
/// in multipart/related (RFC 2387), other attachments around them in multipart/mixed.
fn body<'a>(mail: &'a Email, boundaries: Boundaries) -> Result<MimePart<'a>, String> {
    let is_inline = |a: &&Attachment| mail.html.is_some() && a.content_id.is_some();
    let related = mail.attachments.iter().filter(is_inline).map(attachment_part).collect::<Result<Vec<_>, _>>()?;
    let mixed =
        mail.attachments.iter().filter(|a| !is_inline(a)).map(attachment_part).collect::<Result<Vec<_>, _>>()?;

    let html = mail.html.as_deref().map(|html| {
        let html = text_part("text/html", html);
        if related.is_empty() { html } else { boundaries.multipart("related", html, related) }
    });
    let words = match html {
        Some(html) if mail.text.is_empty() => html,
        Some(html) => boundaries.multipart("alternative", text_part("text/plain", &mail.text), vec![html]),
        None => text_part("text/plain", &mail.text),
    };
    Ok(if mixed.is_empty() { words } else { boundaries.multipart("mixed", words, mixed) })
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
    check_text("attachments: file_name", file_name)?;
    if file_name.len() > FILE_NAME_BYTES_MAX {
        return Err(format!("attachments: file_name {}: more than {FILE_NAME_BYTES_MAX} bytes", Shown(file_name)));
    }
    let content_type = content_type_header(content_type)?;
    // mail-builder takes base64 for everything that is not text.
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
        part = part.header("Content-ID", Raw::new(format!("<{}>", checked_content_id(id)?)));
    }
    Ok(part)
}

/// `type/subtype` with parameters (RFC 2045, section 5.1). Composite types are refused: their content has headers of its
/// own and may not be base64.
fn content_type_header(text: &str) -> Result<ContentType<'_>, String> {
    let refused = || format!("attachments: content_type {}: expected something like \"image/png\"", Shown(text));
    let mut pieces = text.split(';');
    let media_type = pieces.next().unwrap_or_default().trim();
    let (kind, subtype) = media_type.split_once('/').ok_or_else(refused)?;
    let is_composite = kind.eq_ignore_ascii_case("multipart") || kind.eq_ignore_ascii_case("message");
    if !is_token(kind) || !is_token(subtype) || is_composite {
        return Err(refused());
    }
    let mut content_type = ContentType::new(media_type);
    for piece in pieces.map(str::trim).filter(|piece| !piece.is_empty()) {
        let (key, value) = piece.split_once('=').ok_or_else(refused)?;
        let value = value.trim().trim_matches('"');
        let sound = value.len() <= FILE_NAME_BYTES_MAX && value.chars().all(|c| !c.is_control());
        if !is_token(key.trim()) || !sound {
            return Err(refused());
        }
        content_type = content_type.attribute(key.trim(), value);
    }
    Ok(content_type)
}

/// RFC 2045, section 5.1.
fn is_token(text: &str) -> bool {
    (1..=TOKEN_BYTES_MAX).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_graphic() && !br#"()<>@,;:\"/[]?="#.contains(&b))
}

fn checked_content_id(id: &str) -> Result<&str, String> {
    let bare = id.strip_prefix('<').and_then(|rest| rest.strip_suffix('>')).unwrap_or(id);
    let sound = bare.bytes().all(|b| b.is_ascii_graphic() && !b"<>\"\\()".contains(&b));
    if bare.is_empty() || bare.len() > CONTENT_ID_BYTES_MAX || !sound {
        return Err(format!("attachments: content_id {}: ASCII letters, digits and \"@.-_\" are expected", Shown(id)));
    }
    Ok(bare)
}

/// A carriage return of its own becomes a line end: bare ones are forbidden (RFC 5322, section 2.3), and servers that take
/// them for line ends could be led to see the end of the mail in one.
fn canonical_line_ends(text: &str) -> Cow<'_, str> {
    if !has_bare_cr(text.as_bytes()) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.replace("\r\n", "\n").replace('\r', "\n"))
}

fn has_bare_cr(bytes: &[u8]) -> bool {
    bytes.contains(&b'\r') && bytes.iter().enumerate().any(|(i, &b)| b == b'\r' && bytes.get(i + 1) != Some(&b'\n'))
}

/// mail-builder would leave control characters, and the bare carriage returns of an attachment, as they are in ASCII text.
fn has_control(bytes: &[u8]) -> bool {
    let is_forbidden = |b: u8| b < b' ' && !matches!(b, b'\t' | b'\r' | b'\n');
    // Without an early end the compiler looks at many bytes at once: ten times as fast on the usual text, which has none.
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

/// What parts the parts of one mail. Derived from the Message-ID, so that another attempt sends the same bytes, and from a
/// salt that is counted up until no text of the mail contains it: a text cannot add a part of its own.
struct Boundaries(String);

impl Boundaries {
    fn new(mail: &Email, message_id: &str) -> Boundaries {
        let html = mail.html.as_deref().unwrap_or_default();
        let is_taken = |mark: &str| {
            let has = |content: &[u8]| memchr::memmem::find(content, mark.as_bytes()).is_some();
            has(mail.text.as_bytes()) || has(html.as_bytes()) || mail.attachments.iter().any(|a| has(&a.content))
        };
        let mut salt = 0u64;
        loop {
            let mark = format!("{:016x}", hash(&[message_id.as_bytes(), &salt.to_le_bytes()]));
            if !is_taken(&mark) {
                return Boundaries(mark);
            }
            salt += 1;
        }
    }

    /// The `=_` occurs neither in quoted-printable nor in base64 (RFC 2045, section 6.7).
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
