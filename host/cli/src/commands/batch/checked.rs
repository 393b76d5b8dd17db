//! What a reader of CSV lets pass, and a person has to hear of: quotes that are not closed, rows of another length, and fields
//! without end.

use std::collections::VecDeque;
use std::io::{self, BufRead, Read};

use super::text::{Fault, Position};

/// Bytes of one record.
const RECORD_MAX: usize = 1 << 20;

/// CSV that is looked at while it passes: an error at the first place that is wrong.
pub struct Checked<R> {
    inner: R,
    delimiter: u8,
    at: Position,
    state: State,
    /// Where the field began that is being read, in quotes or without.
    field: Position,
    /// Fields of the record before this one.
    fields: usize,
    /// Bytes of the record.
    bytes: usize,
    record: Position,
    /// Fields of the first record: all have as many.
    columns: Option<usize>,
    has_quotes: bool,
    /// Each record that passed and was not asked for yet.
    passed: VecDeque<Passed>,
}

/// A record that passed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Passed {
    /// On which it began.
    pub line: u64,
    /// Whether one of its fields stood in quotes.
    pub has_quotes: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    /// Before a field's first character.
    Start,
    Plain,
    Quoted,
    /// Behind a quote in a quoted field: its end, or the first of two.
    Quote,
}

impl<R: BufRead> Checked<R> {
    /// `inner` begins at this place of its file.
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
            passed: VecDeque::new(),
        }
    }

    /// The next record that was not asked for.
    pub fn next_passed(&mut self) -> Passed {
        self.passed.pop_front().unwrap_or_default()
    }

    fn check(&mut self, byte: u8) -> Result<(), Fault> {
        let ends_record = matches!(byte, b'\n' | b'\r');
        self.bytes += 1;
        if byte == 0 {
            return Err(self.at.fault("a NUL character, which no text has"));
        }
        match (self.state, byte) {
            (State::Quoted, b'"') => self.state = State::Quote,
            (State::Quoted, _) => self.is_bounded()?,
            (State::Quote, b'"') => self.state = State::Quoted,
            (State::Start, b'"') => {
                self.has_column()?;
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
                self.has_column()?;
                self.state = State::Plain;
            }
            (State::Plain, _) => self.is_bounded()?,
        }
        self.at.step(byte);
        if self.state == State::Start {
            self.field = self.at;
        }
        Ok(())
    }

    fn is_bounded(&self) -> Result<(), Fault> {
        match (self.bytes > RECORD_MAX, self.state) {
            (false, _) => Ok(()),
            (true, State::Quoted) => Err(self.field.fault(format!("{UNCLOSED} within {RECORD_MAX} bytes"))),
            (true, _) => Err(self.record.fault(format!("the row is longer than {RECORD_MAX} bytes"))),
        }
    }

    /// A field with something in it belongs to a column. Spreadsheets leave empty ones behind the last.
    fn has_column(&self) -> Result<(), Fault> {
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
            self.passed.push_back(Passed { line: self.record.line, has_quotes: self.has_quotes });
        }
        (self.state, self.fields, self.bytes, self.has_quotes) = (State::Start, 0, 0, false);
        self.record = self.at;
        // Behind the end of the line; between CR and LF it is the same line.
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
const QUOTE_IT: &str = "a field with the delimiter in it stands in quotes";

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
