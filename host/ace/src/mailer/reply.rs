//! Parses replies of mail servers as bytes (RFC 5321, section 4.2). Only the code counts; no text can change the meaning of a reply or
//! hide it.

use std::fmt;

use crate::message::text;

/// The longest reply with all its lines. The connection of a server that exceeds it is closed.
pub(super) const REPLY_BYTES_MAX: usize = 64 * 1024;
/// The longest text of a server in results and logs.
const TEXT_BYTES_MAX: usize = 400;
/// The longest quotation of an invalid reply in an error.
const QUOTED_CHARS_MAX: usize = 80;
/// The bytes of one read. Most replies fit.
const READ_BYTES: usize = 1024;

/// One reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reply {
    /// The code of the last line, which counts if lines disagree.
    pub(super) code: u16,
    /// Its lines without codes, separated by line breaks. Invalid UTF-8 is replaced.
    text: String,
    /// Whether any line has a code 2xx.
    has_positive_line: bool,
}

impl Reply {
    /// Parses the lines of a complete or incomplete reply. `None` if its first line has no code.
    fn parse(bytes: &[u8]) -> Option<Reply> {
        let mut reply: Option<Reply> = None;
        for line in bytes.split(|&b| b == b'\n') {
            let code = code(line);
            let text = String::from_utf8_lossy(if code.is_some() { line.get(4..).unwrap_or_default() } else { line });
            match &mut reply {
                None => reply = Some(Reply { code: code?, text: text.trim().to_owned(), has_positive_line: false }),
                Some(reply) => {
                    reply.code = code.unwrap_or(reply.code);
                    reply.text.push('\n');
                    reply.text.push_str(text.trim());
                }
            }
            if let Some(reply) = &mut reply {
                reply.has_positive_line |= reply.is_positive();
            }
        }
        reply
    }

    pub(super) fn lines(&self) -> impl Iterator<Item = &str> {
        self.text.split('\n')
    }

    /// The same reply with a text before its own.
    pub(super) fn with_text(self, text: &str) -> Reply {
        Reply { text: format!("{text} {}", self.text), ..self }
    }

    pub(super) fn is_positive(&self) -> bool {
        (200..300).contains(&self.code)
    }

    /// Whether the server expects more: content after DATA, a response in AUTH.
    pub(super) fn is_intermediate(&self) -> bool {
        (300..400).contains(&self.code)
    }

    /// Whether it is a temporary (4xx) or permanent (5xx) refusal.
    pub(super) fn is_refusal(&self) -> bool {
        (400..600).contains(&self.code)
    }

    /// Whether it is a permanent refusal of the mail. 530, 534, 535 and 538 are about the login (RFC 4954, section 6).
    pub(super) fn is_permanent(&self) -> bool {
        (500..600).contains(&self.code) && !matches!(self.code, 530 | 534 | 535 | 538)
    }

    /// Whether this reply to the final dot means that the server accepted the mail. If lines disagree, a positive one counts: a
    /// client may use the code of any line (RFC 5321, section 4.2.1), and a mail that may have been accepted is never repeated.
    pub(super) fn accepts_the_mail(&self) -> bool {
        self.has_positive_line
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = clipped(&self.text);
        write!(f, "{:03}{}{text}", self.code, if text.is_empty() { "" } else { " " })
    }
}

/// The code of a line: its first three bytes. Clients must ignore the rest (RFC 5321, section 4.2).
fn code(line: &[u8]) -> Option<u16> {
    let digits = line.first_chunk::<3>().filter(|digits| digits.iter().all(u8::is_ascii_digit))?;
    Some(digits.iter().fold(0, |code, digit| code * 10 + u16::from(digit - b'0')))
}

/// A server's text for logs and results: one line of bounded length, without control and hidden characters.
pub(super) fn clipped(text: &str) -> String {
    text::one_line(text.trim(), TEXT_BYTES_MAX)
}

/// Why bytes of the server are not a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Malformed {
    /// The first line has no code.
    NoCode,
    /// It is longer than [`REPLY_BYTES_MAX`].
    TooLong,
}

/// The received bytes: complete replies that were not taken yet, and the one that is being read.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    bytes: Vec<u8>,
    /// The start of the reply that is being read.
    start: usize,
    /// The start of its current line.
    line: usize,
    /// There is no line end between the start of the current line and this position.
    scanned: usize,
}

impl Inbox {
    /// Takes the next reply if it is complete. After an error, nothing more can be read.
    pub(super) fn take(&mut self) -> Result<Option<Reply>, Malformed> {
        while let Some(found) = self.bytes[self.scanned..].iter().position(|&b| b == b'\n') {
            let (start, line, end) = (self.start, self.line, self.scanned + found);
            let code = code(&self.bytes[line..end]);
            if line == start && code.is_none() {
                return Err(Malformed::NoCode);
            }
            if end - start > REPLY_BYTES_MAX {
                return Err(Malformed::TooLong);
            }
            (self.line, self.scanned) = (end + 1, end + 1);
            // Only a hyphen announces another line. A line without a code is text between two others.
            if code.is_some() && self.bytes.get(line + 3) != Some(&b'-') {
                self.start = end + 1;
                return Ok(Reply::parse(&self.bytes[start..end]));
            }
        }
        self.scanned = self.bytes.len();
        if self.bytes.len() - self.start > REPLY_BYTES_MAX {
            return Err(Malformed::TooLong);
        }
        Ok(None)
    }

    /// Skips a line that is not a reply.
    pub(super) fn skip_line(&mut self) {
        let end = self.bytes[self.start..].iter().position(|&b| b == b'\n');
        self.start = end.map_or(self.bytes.len(), |end| self.start + end + 1);
        (self.line, self.scanned) = (self.start, self.start);
    }

    /// The incomplete reply that is being read. `None` if even its code is incomplete.
    pub(super) fn unfinished(&self) -> Option<Reply> {
        Reply::parse(&self.bytes[self.start..])
    }

    /// The start of the current reply, quoted and truncated.
    pub(super) fn quoted(&self) -> String {
        let unread = &self.bytes[self.start..];
        let text = String::from_utf8_lossy(&unread[..unread.len().min(4 * QUOTED_CHARS_MAX)]);
        let quoted: String = text.trim_end().chars().take(QUOTED_CHARS_MAX).collect();
        format!("{quoted:?}{}", if quoted.len() < text.trim_end().len() { "…" } else { "" })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.start == self.bytes.len()
    }

    /// The buffer for the next bytes.
    pub(super) fn space(&mut self) -> &mut Vec<u8> {
        if self.start > 0 {
            self.bytes.drain(..self.start);
            (self.line, self.scanned) = (self.line - self.start, self.scanned - self.start);
            self.start = 0;
        }
        self.bytes.reserve(READ_BYTES);
        &mut self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Parses the bytes in pieces of every length.
    fn read(bytes: &[u8]) -> Vec<Result<Reply, Malformed>> {
        let mut readings = (1..=bytes.len()).map(|length| {
            let (mut inbox, mut found) = (Inbox::default(), Vec::new());
            for piece in bytes.chunks(length) {
                inbox.space().extend_from_slice(piece);
                while let Some(reply) = inbox.take().transpose() {
                    found.push(reply);
                    if found.last().is_some_and(Result::is_err) {
                        return found;
                    }
                }
            }
            found
        });
        let first = readings.next().unwrap();
        assert!(readings.all(|other| other == first), "{:?}", String::from_utf8_lossy(bytes));
        first
    }

    fn texts(bytes: &[u8]) -> Vec<String> {
        read(bytes).into_iter().map(|reply| reply.map_or_else(|e| format!("{e:?}"), |r| r.to_string())).collect()
    }

    #[test]
    fn only_the_first_three_bytes_count() {
        let table: [(&[u8], &[&str]); 21] = [
            (b"250 ok\r\n", &["250 ok"]),
            (b"250 ok\n", &["250 ok"]),
            (b"250\r\n", &["250"]),
            (b"250 \r\n", &["250"]),
            (b"250\tok\r\n", &["250 ok"]),
            (b"250:ok\r\n", &["250 ok"]),
            (b"250 \xe9t\xe9\r\n", &["250 \u{fffd}t\u{fffd}"]),
            (b"250 a\rb\0c\r\n", &["250 a b c"]),
            (b"999 what\r\n", &["999 what"]),
            (b"2500\r\n", &["250"]),
            (b"250-a\r\n250 b\r\n", &["250 a b"]),
            (b"250-a\n250-\n250\n", &["250 a"]),
            (b"250-a\r\nb\r\n250 c\r\n", &["250 a b c"]),
            (b"250-a\r\n550 b\r\n", &["550 a b"]),
            (b"250 a\r\n354 b\r\n", &["250 a", "354 b"]),
            (b"250 a\r\n25", &["250 a"]),
            (b"550 \x1b[2Jno \xe2\x80\xaeuser\xc2\x9b\xe2\x80\x8bhere\r\n", &["550  [2Jno user here"]),
            (b"\r\n", &["NoCode"]),
            (b" 250 ok\r\n", &["NoCode"]),
            (b"HTTP/1.1 400 Bad Request\r\n", &["NoCode"]),
            (b"\xff\xfe\r\n250 ok\r\n", &["NoCode"]),
        ];
        for (bytes, expected) in table {
            assert_eq!(texts(bytes), expected, "{:?}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn a_reply_of_any_form_is_bounded() {
        let long_line = [b"250 ", &[b'x'; REPLY_BYTES_MAX][..]].concat();
        let without_code = vec![b'x'; REPLY_BYTES_MAX + 1];
        let lines = b"250-more\r\n".repeat(REPLY_BYTES_MAX / 10 + 1);
        for bytes in [long_line, without_code, lines] {
            let mut inbox = Inbox::default();
            for piece in bytes.chunks(1000) {
                inbox.space().extend_from_slice(piece);
                if let Err(malformed) = inbox.take() {
                    assert_eq!(malformed, Malformed::TooLong);
                }
            }
            assert_eq!(inbox.take(), Err(Malformed::TooLong));
            assert!(inbox.quoted().len() < 200, "{}", inbox.quoted());
        }
        let longest = [b"250 ", &[b'x'; REPLY_BYTES_MAX - 5][..], b"\r\n"].concat();
        let mut inbox = Inbox::default();
        inbox.space().extend_from_slice(&longest);
        assert_eq!(inbox.take().unwrap().unwrap().to_string().len(), 4 + TEXT_BYTES_MAX + "…".len());
    }

    #[test]
    fn an_incomplete_reply_has_its_code() {
        let unfinished = |bytes: &[u8]| {
            let mut inbox = Inbox::default();
            inbox.space().extend_from_slice(bytes);
            assert_eq!(inbox.take(), Ok(None));
            inbox.unfinished().map(|reply| (reply.code, reply.accepts_the_mail()))
        };
        assert_eq!(unfinished(b"25"), None);
        assert_eq!(unfinished(b"250"), Some((250, true)));
        assert_eq!(unfinished(b"250 o\r"), Some((250, true)));
        assert_eq!(unfinished(b"250-ok\r\n4"), Some((250, true)));
        assert_eq!(unfinished(b"250-ok\r\n451 n"), Some((451, true)));
        assert_eq!(unfinished(b"451-no"), Some((451, false)));
    }
}
