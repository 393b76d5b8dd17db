//! Reads the file of recipients as lines of NDJSON. Errors name file, line and column.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufRead, Cursor, Read};
use std::path::{Path, PathBuf};

use ace::message::{Member, MemberError};
use ace_store::lines::{Line, LineError, LineReader, TooLong};
use ace_store::person::normal_address;
use csv::{ReaderBuilder, StringRecord};
use encoding_rs::Encoding;

use super::checked::{Checked, CheckedRecord};
use super::columns::{Columns, Mapping};
use super::text::{Decoded, Fault, FileFault, Position};

/// The maximum size in bytes of a line of NDJSON, and of a header.
const LINE_MAX: usize = 1 << 20;
/// The size of a piece of a request body; it is exceeded by at most one line.
const CHUNK: usize = 64 * 1024;
/// Delimiters between fields, the most likely first.
const DELIMITERS: [u8; 4] = [b',', b';', b'\t', b'|'];

/// How a file is read.
#[derive(clap::Args, Debug, Clone)]
pub struct Reading {
    /// The column of a CSV file that holds a field, if it has another name, as in
    /// email_address=email; may be repeated
    #[arg(long = "column", value_name = "FIELD=HEADER")]
    columns: Vec<Mapping>,

    /// Read numbers, true and false in a CSV file as such, if they go into user_context
    #[arg(long)]
    typed: bool,

    /// The encoding of the file, such as latin1, if it is not UTF-8 and has no byte order mark
    #[arg(long, value_name = "NAME", value_parser = encoding)]
    encoding: Option<&'static Encoding>,

    /// Send only to the first of several rows with the same e-mail address
    #[arg(long, value_name = "FIELD")]
    dedupe: Option<Dedupe>,
}

/// What two rows must not have in common.
#[derive(clap::ValueEnum, Debug, Clone, Copy)]
enum Dedupe {
    /// The e-mail address, in upper or lower case
    Email,
}

/// How many rows a file has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counted {
    /// Rows that are sent to.
    pub recipients: u64,
    /// Rows that are left out because of `--dedupe`.
    pub duplicates: u64,
}

fn encoding(label: &str) -> Result<&'static Encoding, String> {
    Encoding::for_label(label.as_bytes()).ok_or_else(|| {
        "unknown encoding; known are utf-8, utf-16le, latin1, windows-1252, shift_jis and others".to_owned()
    })
}

/// A file of recipients.
#[derive(Clone)]
pub struct Recipients {
    file: PathBuf,
    reading: Reading,
    is_csv: bool,
}

/// Some lines, and their number.
pub type Chunk = (Vec<u8>, u64);

impl Recipients {
    /// # Errors
    /// The file has an unknown extension.
    pub fn new(file: &Path, reading: Reading) -> Result<Self, FileFault> {
        let extension = file.extension().unwrap_or_default().to_ascii_lowercase();
        let is_csv = match extension.to_str() {
            Some("csv" | "tsv") => true,
            Some("ndjson" | "jsonl") => false,
            _ => {
                return Err(
                    Fault::whole("the file of recipients must have the extension .ndjson, .csv or .tsv").of(file)
                );
            }
        };
        Ok(Recipients { file: file.to_owned(), reading, is_csv })
    }

    /// Reads the whole file if it can be read twice, so that nothing is sent if there is an error at its end. `None` if it cannot.
    /// Blocks.
    ///
    /// # Errors
    /// The first error in the file.
    pub fn check(&self) -> Result<Option<Counted>, FileFault> {
        if !std::fs::metadata(&self.file).is_ok_and(|found| found.is_file()) {
            return Ok(None);
        }
        let mut source = self.source()?;
        let mut line = Vec::new();
        let mut recipients = 0;
        while source.add_line(&mut line).map_err(|wrong| wrong.fault().of(&self.file))?.is_some() {
            line.clear();
            recipients += 1;
        }
        Ok(Some(Counted { recipients, duplicates: source.duplicates }))
    }

    /// The rows with their line numbers, and every error of a row. Only an error of the file as a whole is the last one. Blocks.
    ///
    /// # Errors
    /// The file cannot be opened, or its header is invalid.
    pub fn rows(&self) -> Result<impl Iterator<Item = Result<(u64, Vec<u8>), FileFault>> + Send + use<>, FileFault> {
        let (name, mut source) = (self.file.clone(), self.source()?);
        let mut is_over = false;
        Ok(std::iter::from_fn(move || {
            let mut line = Vec::new();
            if is_over {
                return None;
            }
            match source.add_line(&mut line) {
                Ok(number) => number.map(|number| Ok((number, line))),
                Err(wrong) => {
                    is_over = matches!(wrong, Wrong::File(_));
                    Some(Err(wrong.fault().of(&name)))
                }
            }
        }))
    }

    fn source(&self) -> Result<Source, FileFault> {
        let name = &self.file;
        let file = File::open(name).map_err(|error| Fault::whole(error.to_string()).of(name))?;
        let text = Decoded::new(file, self.reading.encoding).map_err(|fault| fault.of(name))?;
        let lines = if self.is_csv {
            Lines::Rows(Box::new(Rows::new(text, &self.reading).map_err(|fault| fault.of(name))?))
        } else {
            Lines::Json(LineReader::new(text, LINE_MAX))
        };
        Ok(Source { lines, seen: self.reading.dedupe.map(|Dedupe::Email| HashSet::new()), duplicates: 0 })
    }

    /// The file in pieces, each of which is read when it is requested. Blocks.
    ///
    /// # Errors
    /// The file cannot be opened, or its header is invalid. A piece with an invalid line is an error, and the last one.
    pub fn chunks(&self) -> Result<impl Iterator<Item = Result<Chunk, FileFault>> + Send + use<>, FileFault> {
        let (name, mut source) = (self.file.clone(), self.source()?);
        let mut is_over = false;
        Ok(std::iter::from_fn(move || {
            if is_over {
                return None;
            }
            let chunk = chunk(&mut source);
            is_over = chunk.as_ref().map_or(true, |(text, _)| text.is_empty());
            Some(chunk.map_err(|fault| fault.of(&name)))
                .filter(|chunk| !matches!(chunk, Ok((text, _)) if text.is_empty()))
        }))
    }
}

/// The lines of a file, without those that repeat an address.
struct Source {
    lines: Lines,
    /// The addresses before this line.
    seen: Option<HashSet<String>>,
    duplicates: u64,
}

enum Lines {
    Rows(Box<Rows>),
    Json(LineReader<Decoded<File>>),
}

/// An error, and whether the lines after it can be read.
enum Wrong {
    Line(Fault),
    File(Fault),
}

impl Wrong {
    fn fault(self) -> Fault {
        match self {
            Wrong::Line(fault) | Wrong::File(fault) => fault,
        }
    }
}

impl Source {
    /// Adds the next line to a chunk, and returns its number in the file; `None` at the end.
    fn add_line(&mut self, chunk: &mut Vec<u8>) -> Result<Option<u64>, Wrong> {
        loop {
            let start = chunk.len();
            let number = match &mut self.lines {
                Lines::Rows(rows) => rows.add_line(chunk)?,
                Lines::Json(lines) => add_json(lines, chunk)?,
            };
            if number.is_none() || self.is_new(&chunk[start..]) {
                return Ok(number);
            }
            chunk.truncate(start);
            self.duplicates += 1;
        }
    }

    /// Whether no line before this one has its address.
    fn is_new(&mut self, line: &[u8]) -> bool {
        let Some(seen) = &mut self.seen else { return true };
        let address = Member::from_json(line).ok().and_then(|member| member.personal.recipient.email_address);
        address.is_none_or(|address| seen.insert(normal_address(&address)))
    }
}

fn chunk(source: &mut Source) -> Result<Chunk, Fault> {
    let (mut chunk, mut n) = (Vec::new(), 0);
    while chunk.len() < CHUNK && source.add_line(&mut chunk).map_err(Wrong::fault)?.is_some() {
        n += 1;
    }
    Ok((chunk, n))
}

/// Adds the next line of NDJSON that is not empty, and returns its number; `None` at the end.
fn add_json(lines: &mut LineReader<Decoded<File>>, chunk: &mut Vec<u8>) -> Result<Option<u64>, Wrong> {
    loop {
        let Line { number, text } = match lines.next_line() {
            Ok(None) => return Ok(None),
            Ok(Some(line)) => line,
            Err(LineError::Io { error, .. }) => return Err(Wrong::File(Fault::from_io(error))),
            Err(LineError::TooLong(TooLong { number, max })) => {
                let message = format!("the line is longer than {max} bytes");
                return Err(Wrong::Line(Fault { line: number, column: 0, message }));
            }
        };
        let text = text.trim_ascii();
        if text.is_empty() {
            continue;
        }
        let fault = |column, message| Wrong::Line(Fault { line: number, column, message });
        match Member::from_json(text) {
            Ok(_) => {}
            Err(MemberError::Json { column, message }) => return Err(fault(column, message)),
            Err(error) => return Err(fault(0, error.to_string())),
        }
        chunk.extend_from_slice(text);
        chunk.push(b'\n');
        return Ok(Some(number));
    }
}

/// A file whose first record has been read ahead.
type Text = std::io::Chain<Cursor<Vec<u8>>, Decoded<File>>;

/// The rows of a CSV file.
struct Rows {
    reader: csv::Reader<Checked<Text>>,
    columns: Columns,
    row: StringRecord,
}

impl Rows {
    fn new(mut text: Decoded<File>, reading: &Reading) -> Result<Self, Fault> {
        let mut head = first_record(&mut text)?;
        let (mut delimiter, mut at) = (None, Position::at_line(1));
        if let Some(declared) = declared_delimiter(&head) {
            // Excel writes this line before the header.
            (delimiter, at) = (Some(declared), Position::at_line(2));
            head = first_record(&mut text)?;
        }
        let delimiter = delimiter.unwrap_or_else(|| most_likely_delimiter(&head));
        let checked = Checked::new(Cursor::new(head).chain(text), delimiter, at);
        let mut reader =
            ReaderBuilder::new().has_headers(false).flexible(true).delimiter(delimiter).from_reader(checked);
        let mut header = StringRecord::new();
        if !reader.read_record(&mut header).map_err(fault_of)? {
            return Err(Fault::whole(
                "the file is empty; a CSV file has a header with the column lms_user_id or email_address",
            ));
        }
        let record = reader.get_mut().next_record();
        let columns = Columns::new(&header, &reading.columns, reading.typed);
        let columns = columns.map_err(|(column, message)| at_field(record, &header, column, message))?;
        Ok(Rows { reader, columns, row: header })
    }

    /// Adds the next row that is not empty, and returns the number of its line; `None` at the end.
    fn add_line(&mut self, chunk: &mut Vec<u8>) -> Result<Option<u64>, Wrong> {
        while self.reader.read_record(&mut self.row).map_err(|error| Wrong::File(fault_of(error)))? {
            let record = self.reader.get_mut().next_record();
            let line = self.columns.line(&self.row);
            let wrong = |(column, message)| Wrong::Line(at_field(record, &self.row, Some(column), message));
            if let Some(line) = line.map_err(wrong)? {
                chunk.extend_from_slice(line.as_bytes());
                chunk.push(b'\n');
                return Ok(Some(record.line));
            }
        }
        Ok(None)
    }
}

/// An error in a row, or in one of its fields.
fn at_field(record: CheckedRecord, row: &StringRecord, field: Option<usize>, message: String) -> Fault {
    // With quotes, the start of a field is unknown.
    let before = field.filter(|_| !record.has_quotes).map(|at| row.iter().take(at));
    let column = before.map_or(0, |before| 1 + before.map(|field| field.chars().count() as u64 + 1).sum::<u64>());
    Fault { line: record.line, column, message }
}

pub fn fault_of(error: csv::Error) -> Fault {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => Fault::from_io(error),
        other => Fault::whole(format!("{other:?}")),
    }
}

/// The text up to the end of the first line outside quotes, or of the file.
fn first_record(text: &mut Decoded<File>) -> Result<Vec<u8>, Fault> {
    let (mut record, mut is_quoted) = (Vec::new(), false);
    loop {
        let piece = text.fill_buf().map_err(Fault::from_io)?;
        let end = piece.iter().position(|byte| {
            is_quoted ^= *byte == b'"';
            !is_quoted && matches!(byte, b'\n' | b'\r')
        });
        let taken = end.map_or(piece.len(), |at| at + 1);
        record.extend_from_slice(&piece[..taken]);
        let is_over = end.is_some() || piece.is_empty();
        text.consume(taken);
        if record.ends_with(b"\r") && text.fill_buf().map_err(Fault::from_io)?.starts_with(b"\n") {
            record.push(b'\n');
            text.consume(1);
        }
        // A longer record is rejected by the caller.
        if is_over || record.len() > LINE_MAX {
            return Ok(record);
        }
    }
}

/// The delimiter that a line like `sep=;` declares.
fn declared_delimiter(line: &[u8]) -> Option<u8> {
    let (name, declared) = line.split_at_checked(4)?;
    match declared {
        [delimiter, b'\n' | b'\r', ..] if name.eq_ignore_ascii_case(b"sep=") => Some(*delimiter),
        _ => None,
    }
}

fn most_likely_delimiter(header: &[u8]) -> u8 {
    let mut is_quoted = false;
    let mut counts = [0; DELIMITERS.len()];
    for byte in header {
        is_quoted ^= *byte == b'"';
        if let Some(at) = DELIMITERS.iter().position(|delimiter| delimiter == byte && !is_quoted) {
            counts[at] += 1;
        }
    }
    let most = (0..DELIMITERS.len()).rev().max_by_key(|at| counts[*at]).unwrap_or_default();
    DELIMITERS[most]
}

#[cfg(test)]
mod tests;
