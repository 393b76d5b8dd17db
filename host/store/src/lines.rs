//! Reads lines of limited length.
//!
//! A line ends with a line feed, or with a carriage return and a line feed. The last line may end with the input. A byte order mark
//! before the first line is removed.

use std::io::{self, BufRead, ErrorKind};

const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";
/// Bytes of a line that do not count: a byte order mark and a carriage return.
const SLACK: usize = BYTE_ORDER_MARK.len() + 1;

/// A line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Its number, from 1.
    pub number: u64,
    /// Its bytes, without the line end.
    pub text: Vec<u8>,
}

/// The error for a line that is too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("line {number} is longer than {max} bytes")]
pub struct TooLong {
    /// The number of the line, from 1.
    pub number: u64,
    /// The longest line, in bytes.
    pub max: usize,
}

/// Why a line cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// The input cannot be read.
    #[error("line {number}: {error}")]
    Io {
        /// The number of the line, from 1.
        number: u64,
        /// The error.
        error: io::Error,
    },
    /// The line is too long.
    #[error(transparent)]
    TooLong(#[from] TooLong),
}

/// Splits an input that arrives in pieces into lines.
#[derive(Debug)]
pub struct Splitter {
    max: usize,
    /// The number of the last line that was returned.
    number: u64,
    /// The start of the current line.
    text: Vec<u8>,
    /// The current line is too long; its error was returned.
    is_skipping: bool,
}

impl Splitter {
    /// Splits into lines of at most `max` bytes, without the line end.
    pub fn new(max: usize) -> Self {
        Splitter { max, number: 0, text: Vec::new(), is_skipping: false }
    }

    /// Takes bytes from the start of a piece, up to a line end. Returns their number, and the line if it is complete. For a line that is
    /// too long the error is returned as soon as that is known, and its rest is skipped.
    pub fn push(&mut self, piece: &[u8]) -> (usize, Option<Result<Line, TooLong>>) {
        let end = memchr::memchr(b'\n', piece);
        let taken = end.map_or(piece.len(), |at| at + 1);
        if self.is_skipping {
            self.is_skipping = end.is_none();
            return (taken, None);
        }
        let text = &piece[..end.unwrap_or(taken)];
        if self.text.len() + text.len() > self.max.saturating_add(SLACK) {
            self.is_skipping = end.is_none();
            self.text.clear();
            self.number += 1;
            return (taken, Some(Err(self.too_long())));
        }
        self.text.extend_from_slice(text);
        (taken, end.map(|_| self.complete()))
    }

    /// Returns the last line of the input if it has no line end.
    pub fn finish(&mut self) -> Option<Result<Line, TooLong>> {
        (!self.text.is_empty()).then(|| self.complete())
    }

    fn complete(&mut self) -> Result<Line, TooLong> {
        self.number += 1;
        let mut text = std::mem::take(&mut self.text);
        if text.ends_with(b"\r") {
            text.pop();
        }
        if self.number == 1 && text.starts_with(BYTE_ORDER_MARK) {
            text.drain(..BYTE_ORDER_MARK.len());
        }
        if text.len() > self.max { Err(self.too_long()) } else { Ok(Line { number: self.number, text }) }
    }

    fn too_long(&self) -> TooLong {
        TooLong { number: self.number, max: self.max }
    }
}

/// Reads lines from an input.
#[derive(Debug)]
pub struct LineReader<R> {
    input: R,
    splitter: Splitter,
}

impl<R: BufRead> LineReader<R> {
    /// Reads lines of at most `max` bytes, without the line end.
    pub fn new(input: R, max: usize) -> Self {
        LineReader { input, splitter: Splitter::new(max) }
    }

    /// The next line; `None` at the end. After a line that is too long, the next one can be read. Blocks.
    ///
    /// # Errors
    /// The input cannot be read, or the line is too long.
    pub fn next_line(&mut self) -> Result<Option<Line>, LineError> {
        loop {
            let number = self.splitter.number + 1;
            let piece = match self.input.fill_buf() {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                piece => piece.map_err(|error| LineError::Io { number, error })?,
            };
            let is_end = piece.is_empty();
            let (taken, line) = if is_end { (0, self.splitter.finish()) } else { self.splitter.push(piece) };
            self.input.consume(taken);
            match line {
                Some(line) => return Ok(Some(line?)),
                None if is_end => return Ok(None),
                None => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use super::*;

    /// The lines of an input that arrives in pieces of `bytes`; errors as text.
    fn lines(input: &[u8], max: usize, bytes: usize) -> Vec<(u64, String)> {
        let mut reader = LineReader::new(BufReader::with_capacity(bytes, input), max);
        let mut found = Vec::new();
        loop {
            match reader.next_line() {
                Ok(None) => return found,
                Ok(Some(Line { number, text })) => found.push((number, String::from_utf8(text).expect("UTF-8"))),
                Err(LineError::TooLong(error)) => found.push((error.number, error.to_string())),
                Err(error) => panic!("{error}"),
            }
        }
    }

    #[test]
    fn lines_end_with_a_line_feed_or_with_the_input() {
        for bytes in 1..12 {
            let wanted = [(1, "one"), (2, ""), (3, "two"), (4, "a\rb"), (5, "last")].map(|(n, t)| (n, t.to_owned()));
            for end in ["", "\n", "\r\n"] {
                let input = format!("\u{feff}one\n\r\ntwo\r\na\rb\nlast{end}");
                assert_eq!(lines(input.as_bytes(), 100, bytes), wanted, "{bytes}: {end:?}");
            }
            assert_eq!(lines(b"", 100, bytes), []);
            assert_eq!(lines(b"\n", 100, bytes), [(1, String::new())]);
        }
    }

    #[test]
    fn a_line_that_is_too_long_is_an_error_with_its_number_and_the_next_can_be_read() {
        for bytes in 1..24 {
            let wanted = [(1, "123456"), (2, "line 2 is longer than 6 bytes"), (3, "abcdef"), (4, "x")];
            let wanted = wanted.map(|(n, t)| (n, t.to_owned()));
            for too_long in ["1234567".to_owned(), "y".repeat(1_000)] {
                let input = format!("\u{feff}123456\r\n{too_long}\r\nabcdef\nx");
                assert_eq!(lines(input.as_bytes(), 6, bytes), wanted, "{bytes}");
            }
            assert_eq!(lines(&[b'z'; 100], 6, bytes), [(1, "line 1 is longer than 6 bytes".to_owned())]);
        }
    }

    #[test]
    fn a_line_without_an_end_takes_no_more_memory_than_its_limit() {
        let mut splitter = Splitter::new(1_000);
        let errors = (0..10_000).filter(|_| splitter.push(&[b'x'; 100]).1.is_some()).count();
        assert!(errors == 1 && splitter.text.capacity() < 4_000, "{errors}, {}", splitter.text.capacity());
        assert_eq!(splitter.finish(), None);
    }

    #[test]
    fn an_unreadable_input_is_an_error_with_the_number_of_the_line() {
        struct Broken;
        impl io::Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("the disk is gone"))
            }
        }
        let mut reader = LineReader::new(BufReader::new(io::Read::chain(&b"one\ntw"[..], Broken)), 100);
        assert!(matches!(reader.next_line(), Ok(Some(Line { number: 1, .. }))));
        let error = reader.next_line().expect_err("it cannot be read");
        assert_eq!(error.to_string(), "line 2: the disk is gone");
    }
}
