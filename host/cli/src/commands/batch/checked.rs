//! Strict checks that a CSV reader does not make: unclosed quotes, rows with too many or too few fields, and endless fields.

use std::collections::VecDeque;
use std::io::{self, BufRead, Read};

use super::text::{Fault, Position};

/// The maximum size of a record in bytes.
const RECORD_MAX: usize = 1 << 20;

/// A reader of CSV that fails at the first error of the format.
pub struct Checked<R> {
    inner: R,
    delimiter: u8,
    at: Position,
    state: State,
    /// Where the current field started.
    field: Position,
    /// Fields of the record before the current field.
    fields: usize,
    /// Bytes of the record so far.
    bytes: usize,
    record: Position,
    /// Fields of the first record, which every record must have.
    columns: Option<usize>,
    has_quotes: bool,
    /// Checked records that were not taken yet.
    checked: VecDeque<CheckedRecord>,
}

/// A record that passed the checks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CheckedRecord {
    /// The line on which it starts.
    pub line: u64,
    /// Whether a field of it was quoted.
    pub has_quotes: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    /// Before a field's first character.
    Start,
    Plain,
    Quoted,
    /// After a quote in a quoted field: the end of the field, or the first of two quotes.
    Quote,
}

impl<R: BufRead> Checked<R> {
    /// `inner` starts at this position of its file.
    pub fn new(inner: R, delimiter: u8, at: Position) -> Self {
        Checked {
            inner,
            delimiter,
            at,
            state: State::Start,
            field: at,
            fields: 0,
            bytes: 0,
            record: at,
            columns: None,
            has_quotes: false,
            checked: VecDeque::new(),
        }
    }

    /// Takes the next checked record.
    pub fn next_record(&mut self) -> CheckedRecord {
        self.checked.pop_front().unwrap_or_default()
    }

    fn check(&mut self, byte: u8) -> Result<(), Fault> {
        let ends_record = matches!(byte, b'\n' | b'\r');
        self.bytes += 1;
        if byte == 0 {
            return Err(self.at.fault("a NUL character, which is not allowed in text"));
        }
        match (self.state, byte) {
            (State::Quoted, b'"') => self.state = State::Quote,
            (State::Quoted, _) => self.check_size()?,
            (State::Quote, b'"') => self.state = State::Quoted,
            (State::Start, b'"') => {
                self.check_column()?;
                (self.state, self.has_quotes) = (State::Quoted, true);
            }
            (_, _) if byte == self.delimiter => {
                self.fields += 1;
                self.state = State::Start;
            }
            (_, _) if ends_record => self.end_record()?,
            (State::Quote, _) => {
                let message = format!(
                    "text follows the quote that closes the field opened at {}:{}; a quote within a quoted field is written \
                     twice (\"\")",
                    self.field.line, self.field.column
                );
                return Err(self.at.fault(message));
            }
            (State::Start, _) => {
                self.check_column()?;
                self.state = State::Plain;
            }
            (State::Plain, _) => self.check_size()?,
        }
        self.at.step(byte);
        if self.state == State::Start {
            self.field = self.at;
        }
        Ok(())
    }

    fn check_size(&self) -> Result<(), Fault> {
        if self.bytes <= RECORD_MAX {
            Ok(())
        } else if self.state == State::Quoted {
            Err(self.field.fault(format!("{UNCLOSED} within {RECORD_MAX} bytes")))
        } else {
            Err(self.record.fault(format!("the row is longer than {RECORD_MAX} bytes")))
        }
    }

    /// A field that is not empty must belong to a column. Spreadsheets write empty fields after the last column.
    fn check_column(&self) -> Result<(), Fault> {
        match self.columns {
            Some(columns) if self.fields >= columns => {
                let columns = counted(columns);
                Err(self.at.fault(format!("the row has more fields than the header, which has {columns}; {QUOTE_IT}")))
            }
            _ => Ok(()),
        }
    }

    fn end_record(&mut self) -> Result<(), Fault> {
        let is_blank = self.state == State::Start && self.fields == 0;
        if !is_blank {
            let fields = self.fields + 1;
            match self.columns {
                Some(columns) if fields < columns => {
                    let (fields, columns) = (counted(fields), columns);
                    return Err(self.at.fault(format!("the row ends after {fields}, and the header has {columns}")));
                }
                Some(_) => {}
                None => self.columns = Some(fields),
            }
            self.checked.push_back(CheckedRecord { line: self.record.line, has_quotes: self.has_quotes });
        }
        (self.state, self.fields, self.bytes, self.has_quotes) = (State::Start, 0, 0, false);
        self.record = self.at;
        // The next record starts after the line break, which may be CR LF.
        self.record.step(b'\n');
        Ok(())
    }

    fn end(&mut self) -> Result<(), Fault> {
        match self.state {
            State::Quoted => Err(self.field.fault(UNCLOSED)),
            _ => self.end_record(),
        }
    }
}

const UNCLOSED: &str = "the quote that opens this field is not closed";
const QUOTE_IT: &str = "put quotes around a field that contains the delimiter";

fn counted(fields: usize) -> String {
    if fields == 1 { "1 field".to_owned() } else { format!("{fields} fields") }
}

impl<R: BufRead> Read for Checked<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(out)?;
        for byte in &out[..n] {
            self.check(*byte).map_err(io::Error::other)?;
        }
        if n == 0 {
            self.end().map_err(io::Error::other)?;
        }
        Ok(n)
    }
}
