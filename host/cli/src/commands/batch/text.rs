//! Decodes a file to UTF-8. Errors name the position in the text.

use std::fmt;
use std::io::{self, BufRead, Read};
use std::path::{Path, PathBuf};

use encoding_rs::{Decoder, DecoderResult, Encoding, UTF_8, UTF_16BE, UTF_16LE};

/// Bytes that are decoded at once.
const PIECE: usize = 32 * 1024;
/// Bytes at the start of a file from which its type is detected.
const HEAD: usize = 4 * 1024;

/// An error in an input file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileFault {
    pub file: PathBuf,
    pub fault: Fault,
}

/// An error at a position of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// From 1; 0 for the file as a whole.
    pub line: u64,
    /// In characters, from 1; 0 for the line as a whole.
    pub column: u64,
    pub message: String,
}

impl Fault {
    pub fn whole(message: impl Into<String>) -> Self {
        Fault { line: 0, column: 0, message: message.into() }
    }

    pub fn of(self, file: &Path) -> FileFault {
        FileFault { file: file.to_owned(), fault: self }
    }

    /// The error of a reader in this module, or any other I/O error.
    pub fn from_io(error: io::Error) -> Self {
        match error.downcast::<Fault>() {
            Ok(fault) => fault,
            Err(error) => Fault::whole(error.to_string()),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Fault {}

impl fmt::Display for FileFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        for number in [self.fault.line, self.fault.column].into_iter().filter(|number| *number > 0) {
            write!(f, "{number}:")?;
        }
        write!(f, " {}", self.fault.message)
    }
}

impl std::error::Error for FileFault {}

/// A position in a text. A line ends with LF, CR, or CR LF.
#[derive(Debug, Clone, Copy)]
pub struct Position {
    pub line: u64,
    pub column: u64,
    after_return: bool,
}

impl Position {
    /// Before the first character of a line.
    pub fn at_line(line: u64) -> Self {
        Position { line, column: 1, after_return: false }
    }

    /// Advances by one byte of UTF-8.
    pub fn step(&mut self, byte: u8) {
        let ends_return = std::mem::replace(&mut self.after_return, byte == b'\r');
        match byte {
            b'\n' if ends_return => {}
            b'\n' | b'\r' => (self.line, self.column) = (self.line + 1, 1),
            // Continuation bytes of a character.
            0x80..=0xBF => {}
            _ => self.column += 1,
        }
    }

    pub fn fault(&self, message: impl Into<String>) -> Fault {
        Fault { line: self.line, column: self.column, message: message.into() }
    }
}

/// Decodes text to UTF-8, without its byte order mark. Bytes that cannot be decoded are an error that names their position.
pub struct Decoded<R> {
    inner: R,
    decoder: Decoder,
    raw: Vec<u8>,
    raw_at: usize,
    text: Vec<u8>,
    text_at: usize,
    at: Position,
    is_at_end: bool,
}

impl<R: Read> Decoded<R> {
    /// `chosen` is the encoding of a text without byte order mark; by default UTF-8.
    ///
    /// # Errors
    /// The file cannot be read, or is obviously not text in this encoding.
    pub fn new(mut inner: R, chosen: Option<&'static Encoding>) -> Result<Self, Fault> {
        let mut raw = Vec::with_capacity(PIECE);
        inner.by_ref().take(HEAD as u64).read_to_end(&mut raw).map_err(Fault::from_io)?;
        let (encoding, raw_at) = encoding_of(&raw, chosen)?;
        Ok(Decoded {
            inner,
            decoder: encoding.new_decoder_without_bom_handling(),
            raw,
            raw_at,
            text: Vec::with_capacity(PIECE * 3),
            text_at: 0,
            at: Position::at_line(1),
            is_at_end: false,
        })
    }

    /// Decodes until there is text, or the end.
    fn fill(&mut self) -> Result<(), Fault> {
        while self.text_at == self.text.len() && !self.is_at_end {
            if self.raw_at == self.raw.len() {
                self.raw.clear();
                self.raw_at = 0;
                let read = self.inner.by_ref().take(PIECE as u64).read_to_end(&mut self.raw);
                read.map_err(Fault::from_io)?;
            }
            // Only an empty piece is the last one.
            let is_last = self.raw.is_empty();
            self.text.clear();
            self.text_at = 0;
            self.text.resize(PIECE * 3, 0);
            let raw = &self.raw[self.raw_at..];
            let (result, read, written) = self.decoder.decode_to_utf8_without_replacement(raw, &mut self.text, is_last);
            self.text.truncate(written);
            self.raw_at += read;
            self.text.iter().for_each(|byte| self.at.step(*byte));
            match result {
                DecoderResult::InputEmpty => self.is_at_end = is_last,
                DecoderResult::OutputFull => {}
                DecoderResult::Malformed(length, behind) => {
                    let end = self.raw_at.saturating_sub(usize::from(behind));
                    let bytes = self.raw.get(end.saturating_sub(usize::from(length))..end).unwrap_or_default();
                    return Err(self.at.fault(malformed(self.decoder.encoding(), bytes)));
                }
            }
        }
        Ok(())
    }
}

impl<R: Read> BufRead for Decoded<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.fill().map_err(io::Error::other)?;
        Ok(&self.text[self.text_at..])
    }

    fn consume(&mut self, n: usize) {
        self.text_at += n;
    }
}

impl<R: Read> Read for Decoded<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let n = self.fill_buf()?.read(out)?;
        self.consume(n);
        Ok(n)
    }
}

fn malformed(encoding: &'static Encoding, bytes: &[u8]) -> String {
    let shown: Vec<String> = bytes.iter().map(|byte| format!("{byte:02X}")).collect();
    let what = if shown.is_empty() {
        "the file ends within a character".to_owned()
    } else {
        format!("hexadecimal {}", shown.join(" "))
    };
    let hint = if encoding == UTF_8 {
        ", or name its encoding, as in --encoding latin1 for Latin-1 (ISO 8859-1, Windows-1252)"
    } else {
        ""
    };
    format!("this is not {} ({what}); save the file as UTF-8{hint}", encoding.name())
}

/// Detects the encoding of a file, and the length of its byte order mark.
fn encoding_of(head: &[u8], chosen: Option<&'static Encoding>) -> Result<(&'static Encoding, usize), Fault> {
    if head.starts_with(b"PK\x03\x04") || head.starts_with(b"\xD0\xCF\x11\xE0") {
        return Err(Fault::whole("this is a spreadsheet or an archive, not text; save the sheet as CSV in UTF-8"));
    }
    if head.starts_with(b"\xFF\xFE\0\0") || head.starts_with(b"\0\0\xFE\xFF") {
        return Err(Fault::whole("this is UTF-32; save the file as UTF-8"));
    }
    if let Some(found) = Encoding::for_bom(head) {
        return Ok(found);
    }
    let zeros = |odd: usize| head.iter().skip(odd).step_by(2).filter(|byte| **byte == 0).count();
    let looks_like = match (zeros(0), zeros(1)) {
        // A few zeros are damage. In UTF-16, every second byte of Latin letters is zero.
        (even, odd) if (even + odd) * 8 < head.len().max(1) => None,
        (even, odd) if even > odd => Some(UTF_16BE),
        _ => Some(UTF_16LE),
    };
    match (chosen, looks_like) {
        (Some(chosen), _) => Ok((chosen, 0)),
        (None, None) => Ok((UTF_8, 0)),
        (None, Some(encoding)) => {
            let name = encoding.name();
            let hint = format!("save the file as UTF-8, or use --encoding {}", name.to_lowercase());
            Err(Fault::whole(format!("this looks like {name} without a byte order mark; {hint}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8], chosen: Option<&str>) -> Result<String, Fault> {
        let chosen = chosen.map(|label| Encoding::for_label(label.as_bytes()).expect("an encoding"));
        let mut text = String::new();
        match Decoded::new(bytes, chosen)?.read_to_string(&mut text) {
            Ok(_) => Ok(text),
            Err(error) => Err(Fault::from_io(error)),
        }
    }

    fn utf_16(text: &str, write: fn(u16) -> [u8; 2]) -> Vec<u8> {
        text.encode_utf16().flat_map(write).collect()
    }

    #[test]
    fn text_in_any_encoding_is_converted_or_rejected_by_name() {
        let text = "a,Zoë,日本,😀\r\n".repeat(9_000);
        assert_eq!(read(text.as_bytes(), None).as_ref(), Ok(&text));
        assert_eq!(read(format!("\u{feff}{text}").as_bytes(), None).as_ref(), Ok(&text));
        for write in [u16::to_le_bytes, u16::to_be_bytes] {
            assert_eq!(read(&utf_16(&format!("\u{feff}{text}"), write), None).as_ref(), Ok(&text));
        }
        assert_eq!(read(&utf_16(&text, u16::to_le_bytes), Some("utf-16le")).as_ref(), Ok(&text));
        assert_eq!(read(b"Zo\xeb", Some("latin1")).as_deref(), Ok("Zoë"));
        assert_eq!(read(b"\xc7a", Some("windows-1251")).as_deref(), Ok("Зa"));
        let refused = [
            (utf_16("lms_user_id", u16::to_le_bytes), 0, 0, "this looks like UTF-16LE without a byte order mark"),
            (utf_16("lms_user_id", u16::to_be_bytes), 0, 0, "this looks like UTF-16BE without a byte order mark"),
            (b"a,b\r\n7,Zo\xeb,x".to_vec(), 2, 5, "this is not UTF-8 (hexadecimal EB); save the file as UTF-8"),
            ("é".repeat(40_000).into_bytes().into_iter().chain([0xff]).collect(), 1, 40_001, "hexadecimal FF"),
            (b"a\xe2\x82".to_vec(), 1, 2, "this is not UTF-8 (the file ends within a character)"),
            (b"\xff\xfea\0b".to_vec(), 1, 2, "this is not UTF-16LE"),
            (b"\xff\xfe\0\0a\0\0\0".to_vec(), 0, 0, "UTF-32"),
            (b"PK\x03\x04rest".to_vec(), 0, 0, "spreadsheet"),
        ];
        for (bytes, line, column, message) in refused {
            let fault = read(&bytes, None).expect_err(message);
            assert_eq!((fault.line, fault.column), (line, column), "{fault}");
            assert!(fault.message.contains(message), "{fault}");
        }
    }
}
